"""csi-sanity finds nothing wrong with localdisk, in every way that it keeps volumes.

A spec may be skipped only because of a capability that the driver does not announce.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.support import disks, localdisk
from tests.support.bed import sanity

pytestmark = pytest.mark.usefixtures("csi_sanity")

# What localdisk does not announce, in the suite's words.
NOT_ANNOUNCED = {
    "Controller Publish, UnpublishVolume not supported",
    "ControllerPublishVolume not supported",
    "ControllerUnpublishVolume not supported",
    "ControllerModifyVolume not supported",
    "Modify Volume not supported",
    "Modify volume not supported",
    "ControllerGetVolumeHealth not supported",
    "ControllerListVolumeHealth not supported",
    "NodeGetVolumeHealth not supported",
    "NodeGetStorageHealth not supported",
    "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported",
}
SIZES = ("--csi.testvolumesize=67108864", "--csi.testvolumeexpandsize=134217728")
PENDING = 1  # one spec of the suite is switched off in the suite itself


@contextlib.contextmanager
def driver(kind: str) -> Iterator[localdisk.LocalDisk]:
    with contextlib.ExitStack() as stack:
        if kind in ("btrfs", "xfs"):
            place = stack.enter_context(disks.mounted(kind))
            mode = "btrfs" if kind == "btrfs" else "image"
            yield stack.enter_context(localdisk.start_localdisk(place, mode=mode))
        elif kind == "rootless":
            yield stack.enter_context(localdisk.start_localdisk(mode="directory", rootless=True))
        else:
            yield stack.enter_context(localdisk.start_localdisk(mode=kind))


def check(kind: str, *flags: str) -> None:
    with driver(kind) as running:
        verdict = sanity.run(running.socket, flags=(*SIZES, *flags))
        assert verdict.failed == (), verdict.output
        assert set(verdict.skip_reasons.values()) - NOT_ANNOUNCED == set()
        assert len(verdict.skipped) - len(verdict.skip_reasons) <= PENDING
        assert len(verdict.passed) >= 77, str(verdict)
        assert running.left_over() == []


@pytest.mark.parametrize("access", ["mount", "block"])
def test_without_root(access: str) -> None:
    check("rootless", f"--csi.testvolumeaccesstype={access}")


@pytest.mark.root
@pytest.mark.parametrize("access", ["mount", "block"])
@pytest.mark.parametrize("kind", ["image", "directory", "btrfs", "xfs"])
def test_as_root(kind: str, access: str) -> None:
    check(kind, f"--csi.testvolumeaccesstype={access}")
