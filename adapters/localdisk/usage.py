"""How full a volume is, measured at the path where it is in use. It must not follow links out of the volume."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from adapters.localdisk.records import Form, Volume


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and inodes. Inodes are zero where they are not counted."""

    total_bytes: int
    used_bytes: int
    total_inodes: int = 0
    used_inodes: int = 0


def measure(volume: Volume, path: Path, data: Path) -> Usage:
    """Reads the figures: of an image's file system, a directory's sum, or the blocks of a raw image."""
    if volume.form is Form.RAW:
        return Usage(volume.capacity_bytes, data.stat().st_blocks * 512)
    status = os.statvfs(path)
    if volume.form is Form.IMAGE:
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        return Usage(status.f_blocks * status.f_frsize, used, status.f_files, status.f_files - status.f_ffree)
    used, inodes = _added_up(path)
    return Usage(volume.capacity_bytes, used, status.f_files, inodes)


def _added_up(root: Path) -> tuple[int, int]:
    used, seen = 0, set()
    for folder, _, names in os.walk(root):
        for name in [*names, "."]:
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                used += status.st_blocks * 512
    return used, len(seen)
