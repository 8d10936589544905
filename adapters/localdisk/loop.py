"""Loop devices: a file as a block device. It must not detach a device whose file is not below the state directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_CONTROL = "/dev/loop-control"
_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_CLEAR = 0x4C01
_SET_CAPACITY = 0x4C07
_READ_ONLY, _AUTOCLEAR = 1, 4
_TRIES = 64


@dataclass(frozen=True, slots=True)
class Loop:
    """An attached device."""

    device: Path
    backing: Path
    deleted: bool


def available() -> bool:
    """Whether this host lets us have loop devices."""
    return os.access(_CONTROL, os.R_OK | os.W_OK)


def attach(backing: Path, *, readonly: bool = False, until_closed: bool = False) -> tuple[Path, int]:
    """Attaches a file. Returns the device and an open file descriptor of it, which the caller closes.

    With `until_closed` the kernel detaches it by itself when its last user (a mount, an open file) is gone.
    """
    flags = os.O_RDONLY if readonly else os.O_RDWR
    source = os.open(backing, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = (_READ_ONLY if readonly else 0) | (_AUTOCLEAR if until_closed else 0)
        name = os.fsencode(backing)[-63:]
        info = struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, mode, name, b"", b"", 0, 0)
        config = struct.pack("=2I232s8Q", source, 0, info, *([0] * 8))
        for _ in range(_TRIES):
            device = _free()
            handle = os.open(device, flags | os.O_CLOEXEC)
            try:
                fcntl.ioctl(handle, _CONFIGURE, config)
            except OSError as error:
                os.close(handle)
                if error.errno == errno.EBUSY:
                    continue  # someone was faster
                raise
            return device, handle
    finally:
        os.close(source)
    raise OSError(errno.EBUSY, "no free loop device could be had")


def _free() -> Path:
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        return Path(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}")
    finally:
        os.close(control)


def find(backing: Path) -> list[Path]:
    """The devices that show this file."""
    return [loop.device for loop in attached() if loop.backing == backing]


def attached() -> list[Loop]:
    """Every loop device of the host with its file."""
    found = []
    for entry in Path("/sys/block").glob("loop*"):
        # A device may go away between the listing and the reading.
        with contextlib.suppress(OSError):
            text = (entry / "loop" / "backing_file").read_text().rstrip("\n")
            deleted = text.endswith(" (deleted)")
            path = Path(text.removesuffix(" (deleted)"))
            found.append(Loop(device=Path("/dev") / entry.name, backing=path, deleted=deleted))
    return found


def detach(device: Path) -> None:
    """Lets a device go, at once or when its last user does. A device already free is fine."""
    _on_device(device, _CLEAR, ignore=errno.ENXIO)


def refresh_size(device: Path) -> None:
    """Makes the device as large as its file has become."""
    _on_device(device, _SET_CAPACITY)


def flush(device: Path) -> None:
    """Writes what was written to the device down to its file."""
    handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _on_device(device: Path, request: int, ignore: int = 0) -> None:
    handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, request, 0)
    except OSError as error:
        if error.errno != ignore:
            raise
    finally:
        os.close(handle)
