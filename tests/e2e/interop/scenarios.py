"""The whole set, for one file per stack: a file is what the test runner gives to one of its processes."""

from __future__ import annotations

from tests.e2e.interop.binding import Binding
from tests.e2e.interop.creating import Creating
from tests.e2e.interop.defaulting import Defaulting
from tests.e2e.interop.deleting import Deleting
from tests.e2e.interop.driven import Driven
from tests.e2e.interop.flagged import Flagged
from tests.e2e.interop.grouping import Grouping
from tests.e2e.interop.refused import Refused
from tests.e2e.interop.troubled import Troubled


class Scenarios(Flagged, Defaulting, Refused, Troubled, Driven, Deleting, Grouping, Binding, Creating):
    """What holds on every stack."""
