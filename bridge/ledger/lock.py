"""One process per ledger file. Two writers on one SQLite file starve each other, and two services act twice."""

from __future__ import annotations

import fcntl
import os

from bridge.model.failure import InvalidError, LockedError


class FileLock:
    """An advisory lock on `PATH.lock`, held until `release` or the end of the process, however it ends."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}.lock"
        self._descriptor = -1

    def acquire(self) -> None:
        """Take it now. LockedError names the process that has it."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidError(
                f"the lock file {self._path} cannot be opened for writing: {error.strerror}",
                hint="Give service.data_dir (or service.ledger) a place that this user may write to.",
                field="service.ledger",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise LockedError(
                f"the ledger {self._path.removesuffix('.lock')} is in use by process {holder or 'unknown'}",
                hint="Stop that process, or give this one a ledger of its own (service.data_dir).",
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise InvalidError(
                f"the lock file {self._path} cannot be locked: {error.strerror}",
                hint="Keep the ledger on a local filesystem.",
                field="service.ledger",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
