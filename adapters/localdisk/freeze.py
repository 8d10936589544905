"""Holds mounted images still for the moment of a cut, and makes sure that they move again.

Only mounts below the state directory's `mounts`, of a loop device whose file is one of our images, are ever frozen:
the host's own file systems cannot be. No freeze begins before the thaw guard, another process, has been armed for it.
It must not copy anything: the caller does that inside `frozen`.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from adapters.localdisk import failures, loop, mounts, thawguard
from adapters.localdisk.layout import Layout

_FIFREEZE = 0xC0045877
_ANSWER_SECONDS = 10.0
_log = logging.getLogger(__name__)


def thaw(mount: Path) -> bool:
    """Thaws a mounted file system. False if it was not frozen. Raises OSError."""
    handle = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, thawguard.FITHAW, 0)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    finally:
        os.close(handle)
    return True


class GuardError(RuntimeError):
    """The guard does not answer, so nothing may be frozen."""


class Guard:
    """This end of the guard process, which is started on first use and again if it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0

    @property
    def pid(self) -> int | None:
        """The process id of the guard, once there is one."""
        return None if self._process is None else self._process.pid

    def arm(self, handle: int, deadline_seconds: float) -> int:
        """Hands over a descriptor of the mount. Returns a number for `disarm`. Raises GuardError."""
        with self._lock:
            self._number += 1
            number = self._number
            try:
                self._exchange(f"arm {number} {deadline_seconds}", f"armed {number}", handle)
            except GuardError:
                # It may have died idle, long ago; a second one is as good.
                self._drop()
                self._exchange(f"arm {number} {deadline_seconds}", f"armed {number}", handle)
            return number

    def disarm(self, number: int) -> bool:
        """Says that the freeze is over. True if the deadline had not passed. Raises GuardError."""
        with self._lock:
            if self._channel is None:
                raise GuardError("the thaw guard ended during a freeze")
            return self._exchange(f"disarm {number}", f"kept {number}", None, f"passed {number}") == f"kept {number}"

    def _exchange(self, message: str, expected: str, handle: int | None, other: str = "") -> str:
        channel = self._channel or self._start()
        rights = [] if handle is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]))]
        try:
            channel.sendmsg([message.encode()], rights)
            answer = channel.recv(256).decode()
        except OSError as error:
            raise GuardError(f"the thaw guard does not answer: {error}") from error
        if answer not in (expected, other) or not answer:
            raise GuardError(f"the thaw guard answered {answer!r} to {message!r}")
        return answer

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", thawguard.__file__],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True, cwd="/",
            )  # fmt: skip
        ours.settimeout(_ANSWER_SECONDS)
        self._channel = ours
        return ours

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_ANSWER_SECONDS)

    def close(self) -> None:
        """Ends the guard, which thaws what may still be frozen, and waits for its end."""
        with self._lock:
            self._drop()


class Freezer:
    """Freezes homes of images. One cut at a time per volume; others wait their turn."""

    def __init__(self, layout: Layout, guard: Guard, deadline_seconds: float, steps: Callable[[str], None]) -> None:
        self._layout = layout
        self._guard = guard
        self._deadline_seconds = deadline_seconds
        self._steps = steps
        self._turns: dict[str, threading.Lock] = {}
        self._turns_lock = threading.Lock()

    @contextlib.contextmanager
    def frozen(self, volume_ids: Sequence[str]) -> Iterator[None]:
        """All these mounted volumes stand still inside the block.

        Raises DriverError at the end if one of them did not stand still to the end: the copy is then worthless.
        """
        with contextlib.ExitStack() as stack:
            for volume_id in sorted(volume_ids):
                stack.enter_context(self._turn(volume_id))
            for volume_id in sorted(volume_ids):
                stack.enter_context(self._freeze(volume_id))
            self._steps("frozen")
            yield
            self._steps("copied while frozen")

    def _turn(self, volume_id: str) -> threading.Lock:
        with self._turns_lock:
            return self._turns.setdefault(volume_id, threading.Lock())

    @contextlib.contextmanager
    def _freeze(self, volume_id: str) -> Iterator[None]:
        handle = self._open_ours(volume_id)
        try:
            number = self._guard.arm(handle, self._deadline_seconds)
            self._steps("guard armed")
            try:
                self._begin(handle, volume_id)
                try:
                    yield
                finally:
                    held = self._thaw(handle)
            finally:
                kept = self._guard.disarm(number)
        finally:
            os.close(handle)
        if not held or not kept:
            failures.precondition(
                f"the copy of {volume_id} took longer than {self._deadline_seconds:g} s, so its freeze was ended and "
                f"no snapshot was made: raise --freeze-deadline, or put --state-dir on btrfs or xfs"
            )

    def _begin(self, handle: int, volume_id: str) -> None:
        try:
            fcntl.ioctl(handle, _FIFREEZE, 0)
        except OSError as error:
            if error.errno == errno.EBUSY:
                failures.aborted(f"{volume_id} is frozen by someone else: thaw it (fsfreeze -u), then repeat")
            raise

    def _thaw(self, handle: int) -> bool:
        try:
            return self._end(handle)
        except OSError:
            # Whatever hinders us, the guard tries at once, and again when the driver ends.
            self._guard.close()
            raise

    def _end(self, handle: int) -> bool:
        try:
            fcntl.ioctl(handle, thawguard.FITHAW, 0)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False  # the guard was first
            raise
        return True

    def _open_ours(self, volume_id: str) -> int:
        """A descriptor of the volume's own mount. Refuses whatever is not provably ours to freeze."""
        home = self._layout.home(volume_id)
        image = self._layout.volumes / f"{volume_id}.img"
        mount = mounts.at(home)
        if mount is None or Path(mount.source) not in loop.find(image):
            failures.precondition(f"{home} is not the mount of {image}: it is not frozen")
        handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        device = os.fstat(handle).st_dev
        if device in (os.stat("/").st_dev, os.stat(self._layout.root).st_dev, os.stat(image).st_dev):
            os.close(handle)
            failures.precondition(f"{home} is on a file system of the host: it is not frozen")
        return handle

    def thaw_leftovers(self) -> None:
        """Thaws every image that an earlier run of driver and guard, both killed, may have left frozen."""
        for mount in mounts.below(self._layout.mounts):
            if thaw(Path(mount.path)):
                _log.warning("thawed %s, which an earlier run had left frozen", mount.path)
