"""Where things lie in the state directory, and the claim on it.

    localdisk.json       whose directory this is
    lock                 held by the one driver that uses it
    records/<kind>/      one JSON file per object
    volumes/ snapshots/  the bytes: <id> for directories, <id>.img for images, tmp-<id>… while being made
    mounts/<id>/         where an image is mounted while it is in use

It must not change anything but the frame itself: no object is made or removed here.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from adapters.localdisk.records import Snapshot, Volume

MARKER = "localdisk.json"
FORMAT = 1
TEMPORARY = "tmp-"


class StateDirError(RuntimeError):
    """The state directory cannot be used. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one state directory."""

    root: Path

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def mounts(self) -> Path:
        return self.root / "mounts"

    def records(self, kind: str) -> Path:
        return self.root / "records" / kind

    def data(self, record: Volume | Snapshot) -> Path:
        """The place of an object's bytes."""
        folder = self.volumes if isinstance(record, Volume) else self.snapshots
        return folder / (f"{record.id}.img" if record.form.is_file else record.id)

    def temporary(self, record: Volume | Snapshot) -> Path:
        """The place of an object's bytes while they are being made."""
        final = self.data(record)
        return final.with_name(TEMPORARY + final.name)

    def home(self, volume_id: str) -> Path:
        """Where an image is mounted."""
        return self.mounts / volume_id


def claim(root: Path, driver_name: str) -> tuple[Layout, int]:
    """Makes the frame if need be and locks it. Returns it with the file descriptor that holds the lock.

    Raises StateDirError for a directory that is in use, is another driver's, or holds things that are not ours.
    """
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    root = root.resolve()
    _refuse_strangers(root)
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _mark(root, driver_name)
    except BlockingIOError:
        os.close(lock)
        raise StateDirError(
            f"{root} is in use by another driver: stop it, or give each its own --state-dir"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    layout = Layout(root)
    for folder in (layout.volumes, layout.snapshots, layout.mounts):
        folder.mkdir(exist_ok=True)
    return layout, lock


def _refuse_strangers(root: Path) -> None:
    """A directory without our marker must be empty, or hold only what an interrupted first start left."""
    if not (root / MARKER).exists():
        ours = ("lock", "lost+found", f"{MARKER}.tmp")
        strangers = sorted(p.name for p in root.iterdir() if p.name not in ours)
        if strangers:
            raise StateDirError(f"{root} is not empty ({strangers[0]} …): give an empty directory as --state-dir")


def _mark(root: Path, driver_name: str) -> None:
    marker = root / MARKER
    if not marker.exists():
        scratch = root / f"{MARKER}.tmp"
        scratch.write_text(json.dumps({"format": FORMAT, "driver": driver_name}) + "\n")
        scratch.rename(marker)
    found = json.loads(marker.read_text())
    if found.get("format") != FORMAT or found.get("driver") != driver_name:
        raise StateDirError(
            f"{marker} says {found}, not driver {driver_name!r} of format {FORMAT}: "
            f"give the --driver-name it was made with, or another --state-dir"
        )
