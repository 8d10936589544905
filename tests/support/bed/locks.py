"""Locks between test runs on one machine: two runs never build or install the same thing at once."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from tests.support.bed import paths


@contextlib.contextmanager
def held(name: str) -> Iterator[None]:
    """Hold the named lock; the kernel frees it when this process ends. Says so when it must wait."""
    folder = paths.cache() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"bed: waiting for another run that holds the lock {name!r}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
