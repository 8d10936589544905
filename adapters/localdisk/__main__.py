"""`python -m adapters.localdisk`: the driver as a program."""

from __future__ import annotations

import sys

from adapters.localdisk.server import main

sys.exit(main())
