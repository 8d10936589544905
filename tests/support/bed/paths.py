"""Where the test bed keeps things: the cache of built servers, and one short-lived folder per run.

It creates folders; it removes only folders of this run, and of runs whose process is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import itertools
import os
import shutil
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
_PREFIX = "sb-"
_OWNER = "owner.lock"
_numbers = itertools.count(1)


def cache() -> Path:
    """The folder for built servers: $SNAPBRIDGE_CACHE, else snapbridge in the user's cache folder."""
    chosen = os.environ.get("SNAPBRIDGE_CACHE")
    if chosen:
        path = Path(chosen).expanduser().resolve()
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snapbridge"
    path.mkdir(parents=True, exist_ok=True)
    return path


@functools.cache
def run_folder() -> Path:
    """The folder of this process's servers, removed at exit unless a mount is still live below it.

    Its name is short, because a unix socket's path may have 107 bytes only and kubelet nests deeply.
    """
    _remove_abandoned()
    path = Path(tempfile.mkdtemp(prefix=_PREFIX))
    _hold(path / _OWNER)
    atexit.register(_remove, path, os.getpid())
    return path


def _hold(file: Path) -> None:
    """Lock the file for as long as this process lives: the kernel frees it even after a SIGKILL.

    It gets its name when it is locked: another run that begins now must not find it free.
    """
    unnamed = file.with_suffix(".new")
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.rename(unnamed, file)


def _remove_abandoned() -> None:
    """Remove the folders of runs that were killed: those whose owner file nobody holds any more."""
    for owner in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_OWNER}"):
        with contextlib.suppress(OSError), owner.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(owner.parent)


def run_folder_exists() -> bool:
    """Whether this process has started to use its run folder."""
    return run_folder.cache_info().currsize > 0


def fresh(name: str) -> Path:
    """A new empty folder for one server inside the run's folder."""
    path = run_folder() / f"{name}-{next(_numbers)}"
    path.mkdir()
    return path


def mounts_below(folder: Path) -> list[Path]:
    """Mount points at or below a folder, deepest first."""
    prefix = str(folder.resolve())
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        point = line.split(" ")[4].encode().decode("unicode_escape")
        if point == prefix or point.startswith(prefix + "/"):
            found.append(Path(point))
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder that the bed made.

    Raises OSError, and removes nothing, when a mount is live at or below it: rm would reach through
    the mount into data that is not ours.
    """
    live = mounts_below(folder)
    if live:
        names = ", ".join(str(point) for point in live)
        raise OSError(f"not removing {folder}: still mounted: {names}; unmount them, then remove the folder")
    shutil.rmtree(folder)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner and folder.exists():
        remove_tree(folder)
