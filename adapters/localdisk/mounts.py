"""mount(2), umount(2) and what is mounted now. It must not decide what ought to be mounted."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_OCTAL = re.compile(r"\\([0-7]{3})")

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_RELATIME = 1024, 2048, 4096, 1 << 21
FLAGS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
}


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: where, what and how."""

    path: str
    device: str
    root: str
    fs_type: str
    source: str
    readonly: bool


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda m: chr(int(m[1], 8)), text)


def table() -> list[Mount]:
    """Everything mounted in this mount namespace, oldest first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.rstrip("\n").partition(" - ")
            fields, rest = left.split(" "), right.split(" ")
            found.append(
                Mount(
                    path=_unescape(fields[4]),
                    device=fields[2],
                    root=_unescape(fields[3]),
                    fs_type=rest[0],
                    source=_unescape(rest[1]),
                    readonly="ro" in fields[5].split(","),
                )
            )
    return found


def at(path: Path) -> Mount | None:
    """The topmost mount at exactly this path."""
    return next((m for m in reversed(table()) if m.path == str(path)), None)


def below(folder: Path) -> list[Mount]:
    """Mounts at or under a folder, newest first: the order to unmount in."""
    prefix = f"{folder}/"
    return [m for m in reversed(table()) if m.path.startswith(prefix)]


def mount(source: str, target: Path, fs_type: str, flags: int = 0, options: str = "") -> None:
    """Mounts a device. Raises OSError."""
    _mount(source, str(target), fs_type, flags, options)


def bind(source: Path, target: Path, flags: int = 0) -> None:
    """Shows `source` at `target` too, with the given restrictions (MS_RDONLY, MS_NODEV …)."""
    _mount(str(source), str(target), "", MS_BIND, "")
    if flags:
        try:
            _mount("none", str(target), "", MS_BIND | MS_REMOUNT | flags, "")
        except OSError:
            unmount(target)
            raise


def _mount(source: str, target: str, fs_type: str, flags: int, options: str) -> None:
    result = _LIBC.mount(
        os.fsencode(source), os.fsencode(target), os.fsencode(fs_type), ctypes.c_ulong(flags), os.fsencode(options)
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount of {source} at {target}: {os.strerror(number)}")


def unmount(target: Path) -> None:
    """Unmounts the topmost mount at a path. Raises OSError; EBUSY while something there is open."""
    if _LIBC.umount2(os.fsencode(target), 8) != 0:  # UMOUNT_NOFOLLOW
        number = ctypes.get_errno()
        raise OSError(number, f"unmount of {target}: {os.strerror(number)}")


def sync_file_system(handle: int) -> None:
    """Writes down all that the file system of an open file still holds in memory."""
    if _LIBC.syncfs(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"sync: {os.strerror(number)}")


def flags_of(names: Iterable[str]) -> int:
    """The flag word for mount options by name. Raises KeyError with the first unknown one."""
    word = 0
    for name in names:
        if name not in ("", "rw", "defaults"):
            word |= FLAGS[name]
    return word
