"""The quick start works: what README tells a newcomer to run first ends well and cleans up after itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.localdisk import mounts
from tests.support.bed import paths


@pytest.mark.timeout(240)
def test_the_quick_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo.standalone"],
        cwd=paths.REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sums = re.findall(r"checksum ([0-9a-f]{16})", done.stdout)
    assert len(sums) == 3, done.stdout
    before, damaged, restored = sums
    assert before == restored
    assert damaged != before
    assert list(tmp_path.iterdir()) == []
    assert mounts.below(tmp_path) == []
