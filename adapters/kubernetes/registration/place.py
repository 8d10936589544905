"""The place of a registration socket: its path, who holds it, and how it is taken without hurting anybody.

A socket that answers is never unlinked. A new one is bound under a hidden name, which a kubelet ignores, and
then linked to its own: a link never replaces a file, and the name appears only when the server answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from bridge.model.failure import BridgeError, ConflictError, InvalidError, UnavailableError

MOST_PATH_BYTES = 100
"""gRPC binds a few more; a kubelet's own limits and those of our hidden names leave this much."""
_DRIVER = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")

Identity = tuple[int, int]


def socket_path(folder: Path, driver: str) -> Path:
    """Where this driver is registered. InvalidError for a name or a path that a kubelet would refuse."""
    if not _DRIVER.fullmatch(driver):
        raise InvalidError(
            f"the driver name {driver[:80]!r} cannot be registered",
            field="driver",
            hint="A kubelet takes lower-case letters, digits, '-' and '.', up to 63 characters",
        )
    path = folder / f"{driver}-reg.sock"
    if len(os.fsencode(path)) > MOST_PATH_BYTES:
        raise InvalidError(
            f"{path} is longer than {MOST_PATH_BYTES} bytes", field="registry", hint="Use a shorter directory"
        )
    return path


def check_endpoint(endpoint: str) -> None:
    """InvalidError for anything but an absolute path: a kubelet dials the text literally."""
    if not endpoint.startswith("/"):
        raise InvalidError(
            f"the endpoint {endpoint!r} is not an absolute path",
            field="endpoint",
            hint="Give the path of the CSI socket on the host, without 'unix://'",
        )


def hidden_path(folder: Path) -> Path:
    """A name in the same directory that a kubelet ignores."""
    return folder / f".{secrets.token_hex(4)}"


async def take(hidden: Path, path: Path, *, dial_timeout_seconds: float) -> Identity:
    """Give the socket at `hidden` its real name. ConflictError when somebody who answers has it.

    Cancelled in the middle it leaves no name behind: the thread that links it cannot be stopped, so it is waited for.
    """
    taking = asyncio.ensure_future(asyncio.to_thread(_take, hidden, path, dial_timeout_seconds))
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        with contextlib.suppress(BridgeError, OSError):
            await leave(path, await taking)
        raise


async def leave(path: Path, identity: Identity) -> None:
    """Remove the socket's name if it is still ours."""
    await asyncio.to_thread(_leave, path, identity)


def identity_of(path: Path) -> Identity | None:
    """Which file is there; None when there is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _leave(path: Path, identity: Identity) -> None:
    with contextlib.suppress(FileNotFoundError, UnavailableError), _only_one(path.parent):
        if identity_of(path) == identity:
            os.unlink(path)


def _take(hidden: Path, path: Path, dial_timeout_seconds: float) -> Identity:
    os.chmod(hidden, 0o600)
    with _only_one(path.parent):
        found = os.lstat(hidden)  # the link is the same file; its own name may be taken away at once
        try:
            os.link(hidden, path)
        except FileExistsError:
            _clear(path, dial_timeout_seconds)
            os.link(hidden, path)
        os.unlink(hidden)
        return found.st_dev, found.st_ino


def _clear(path: Path, dial_timeout_seconds: float) -> None:
    """Remove what a dead process left behind. ConflictError for anything else."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ConflictError(f"{path} is not a socket", hint="Remove it, if nobody needs it")
    if _answers(path, dial_timeout_seconds):
        raise ConflictError(
            f"another process answers on {path}",
            hint="Stop the other registrar of this driver, or do not announce the driver here",
        )
    os.unlink(path)


def _answers(path: Path, timeout_seconds: float) -> bool:
    """Whether anybody listens. Only a refused connection proves that nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dial:
        dial.settimeout(timeout_seconds)
        try:
            dial.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """One process at a time looks and acts in this directory (all of ours take this lock)."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UnavailableError(
            f"the registration directory {folder} cannot be opened: {error.strerror}",
            hint="It is made by the kubelet; check its --root-dir and that it runs",
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
