"""Image files: made sparse, formatted, and their file systems grown while mounted.

It must not mount anything. Programs of e2fsprogs or xfsprogs do the formatting; their output goes into the error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SMALLEST_BYTES = {"ext4": 8 << 20, "xfs": 300 << 20}
SECTOR_BYTES = 4096
_TOOL_SECONDS = 120
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ToolError(OSError):
    """A program that formats or grows a file system failed. The text holds its last line."""


def available(fs_type: str) -> bool:
    """Whether the program that formats this file system is installed."""
    return shutil.which(f"mkfs.{fs_type}", path=_PATH) is not None


def create(path: Path, size_bytes: int) -> None:
    """Makes a sparse file of zeros. Raises FileExistsError."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(handle, size_bytes)
    finally:
        os.close(handle)


def resize(path: Path, size_bytes: int, *, durable: bool) -> None:
    """Makes an image larger; never smaller."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(handle).st_size < size_bytes:
            os.ftruncate(handle, size_bytes)
            if durable:
                os.fsync(handle)
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Makes an image's bytes durable."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def format_image(path: Path, fs_type: str) -> None:
    """Writes an empty file system into a fresh image; blocks that hold nothing stay holes."""
    if fs_type == "xfs":
        _run("mkfs.xfs", "-q", "-K", str(path))
        return
    quick = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    try:
        # The image is all zeros, so inode tables need no clearing, now or later (e2fsprogs 1.47).
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", f"{quick},assume_storage_prezeroed=1", str(path))
    except ToolError:
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", quick, str(path))


def mount_options(fs_type: str) -> str:
    """Deleted blocks become holes again; a restored xfs has its source's identity, and may be mounted beside it."""
    return "discard,nouuid" if fs_type == "xfs" else "discard"


def grow_offline(image: Path) -> None:
    """Grows an ext4 that is not mounted to its image's size. Needs no privilege beyond the file."""
    # 1: errors were corrected, such as a journal replayed after a crash; resize2fs insists on the check.
    _run("e2fsck", "-f", "-p", str(image), fine=(0, 1))
    _run("resize2fs", str(image))


def grow(fs_type: str, device: Path, home: Path) -> None:
    """Grows a mounted file system to its device's size."""
    if fs_type == "xfs":
        _run("xfs_growfs", str(home))
    else:
        try:
            _run("resize2fs", str(device))
        except ToolError as error:
            raise ToolError(f"{error}; the volume grows by itself when it is staged the next time") from error


def _run(program: str, *arguments: str, fine: tuple[int, ...] = (0,)) -> None:
    found = shutil.which(program, path=_PATH)
    if found is None:
        raise ToolError(f"{program} is not installed: install e2fsprogs (ext4) or xfsprogs (xfs)")
    result = subprocess.run(
        [found, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TOOL_SECONDS,
        check=False,
    )
    if result.returncode not in fine:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no output"]
        raise ToolError(f"{program} failed ({result.returncode}): {lines[-1]}")
