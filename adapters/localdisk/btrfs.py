"""Subvolumes of btrfs, by ioctl: made, snapshotted and destroyed, each in one atomic step.

It must not be told of paths outside the state directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

_SUBVOL_CREATE = 0x5000940E
_SNAP_DESTROY = 0x5000940F
_SNAP_CREATE_V2 = 0x50009417
_FIRST_INODE = 256


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _arguments(path: Path) -> bytearray:
    """The name, in a buffer that may be longer than 1024 bytes: Python asks for a mutable one then."""
    return bytearray(struct.pack("=q4088s", 0, os.fsencode(path.name)))


def create(path: Path) -> None:
    """Makes an empty subvolume. Raises OSError (ENOTTY where this is not btrfs)."""
    with _opened(path.parent) as parent:
        fcntl.ioctl(parent, _SUBVOL_CREATE, _arguments(path))


def snapshot(source: Path, target: Path) -> None:
    """Makes `target` a writable copy of the subvolume `source`, as it is at one moment."""
    with _opened(source) as origin, _opened(target.parent) as parent:
        packed = struct.pack("=qQQ4Q4040s", origin, 0, 0, 0, 0, 0, 0, os.fsencode(target.name))
        fcntl.ioctl(parent, _SNAP_CREATE_V2, bytearray(packed))


def works(folder: Path) -> bool:
    """Whether subvolumes can be made, snapshotted and removed in `folder`, found out by doing it."""
    first, second = folder / "tmp-probe-1", folder / "tmp-probe-2"
    try:
        create(first)
        snapshot(first, second)
    except OSError:
        return False
    finally:
        for path in (second, first):
            if path.exists():
                remove_tree(path)
    return True


def remove_tree(path: Path) -> None:
    """Removes a directory or a subvolume. Symbolic links inside are removed, not followed."""
    if path.stat(follow_symlinks=False).st_ino == _FIRST_INODE:
        with contextlib.suppress(OSError), _opened(path.parent) as parent:
            fcntl.ioctl(parent, _SNAP_DESTROY, _arguments(path))
            return
    try:
        shutil.rmtree(path)
    except RecursionError:
        # Nested deeper than Python's stack; rm goes down with a stack of its own.
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], check=True)
