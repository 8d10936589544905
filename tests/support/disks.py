"""Small disks of a chosen file system, for tests that need one: a mounted image, gone at the end. Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from adapters.localdisk import loop, mounts
from tests.support import localdisk
from tests.support.bed import packages, paths


@contextlib.contextmanager
def mounted(fs_type: str, size_bytes: int = 1 << 30) -> Iterator[Path]:
    """A mounted, empty file system of that type. What is mounted below it is unmounted at the end too."""
    folder = paths.fresh("disk")
    image, place = folder / "disk.img", folder / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    force = "-F" if fs_type == "ext4" else "-f"
    subprocess.run([packages.program(f"mkfs.{fs_type}"), "-q", force, image], check=True, stdout=subprocess.DEVNULL)
    device, handle = loop.attach(image, until_closed=True)
    try:
        mounts.mount(str(device), place, fs_type)
    finally:
        os.close(handle)
    try:
        yield place
    finally:
        localdisk.clear(folder)
