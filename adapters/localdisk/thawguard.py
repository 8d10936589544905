"""The process that ends every freeze, whatever becomes of the driver.

A frozen file system stays frozen when the process that froze it dies. So before each freeze the driver hands an
open file descriptor of the mount to this process, which thaws it when its socket closes (the driver is gone, by
whatever signal) or when a deadline passes, and goes on trying until it is told that the freeze is over. It is
started once, in a session of its own, so that a signal to the driver's process group does not reach it.

It must not import anything but the standard library, must not freeze, and must not open any path by itself.

The protocol, over a SOCK_SEQPACKET pair whose end is standard input:
    arm <number> <deadline seconds>   with one descriptor   ->  armed <number>
    disarm <number>                                         ->  kept <number> | passed <number>
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import sys
import time

FITHAW = 0xC0045878
_MESSAGE_BYTES = 256
_RETRY_SECONDS = 0.1


class _Armed:
    """One freeze to be ended."""

    def __init__(self, handle: int, deadline: float) -> None:
        self.handle = handle
        self.deadline = deadline
        self.passed = False

    def thaw(self) -> None:
        """Thaws if frozen. A second thaw is refused by the kernel and means nothing."""
        try:
            fcntl.ioctl(self.handle, FITHAW, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                print(f"thaw guard: thaw failed: {error}", file=sys.stderr, flush=True)  # noqa: T201


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    room = socket.CMSG_SPACE(array.array("i").itemsize)
    message, ancillary, _, _ = channel.recvmsg(_MESSAGE_BYTES, room)
    handles = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            handles.frombytes(data[: len(data) - len(data) % handles.itemsize])
    return message, list(handles)


def _obey(channel: socket.socket, armed: dict[int, _Armed], message: bytes, handles: list[int]) -> None:
    words = message.decode().split()
    number = int(words[1])
    if words[0] == "arm":
        armed[number] = _Armed(handles[0], time.monotonic() + float(words[2]))
        channel.send(f"armed {number}".encode())
        return
    entry = armed.pop(number, None)
    if entry is not None:
        os.close(entry.handle)
    channel.send(f"{'passed' if entry is None or entry.passed else 'kept'} {number}".encode())


def guard(channel: socket.socket) -> None:
    """Serves until the other end is closed; nothing is frozen by the driver when this returns."""
    armed: dict[int, _Armed] = {}
    try:
        while True:
            wait = min((e.deadline - time.monotonic() for e in armed.values()), default=None)
            if wait is not None:
                wait = max(wait, _RETRY_SECONDS if any(e.passed for e in armed.values()) else 0.0)
            ready, _, _ = select.select([channel], [], [], wait)
            if ready:
                message, handles = _receive(channel)
                if not message:
                    return
                _obey(channel, armed, message, handles)
            for entry in armed.values():
                if time.monotonic() >= entry.deadline:
                    entry.passed = True
                    entry.thaw()
    finally:
        for entry in armed.values():
            entry.thaw()


def main() -> None:
    """The process's entry point: standard input is the socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The driver's end closes the socket; nothing else may end a guard that is armed.
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(0)) as channel, contextlib.suppress(ConnectionError):
        guard(channel)


if __name__ == "__main__":
    main()
