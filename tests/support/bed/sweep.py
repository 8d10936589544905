"""Clears what a node leaves behind: containers, cgroups, mounts, and then its folders.

As a program it waits until its stdin closes, which happens when the test run ends, however it ends,
and then sweeps. It touches only shims that serve our own containerd socket, and it never removes a
folder with a live mount below it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.bed import paths

_UNMOUNT_TRIES = 200
_TRIES = 60


def clean(socket: Path, state: Path, folders: list[Path]) -> list[str]:
    """End the shims of one containerd and their containers, unmount below the folders, remove these.

    Returns what could not be cleared, in words; an empty list means that nothing is left.
    """
    for _ in range(_TRIES):
        shims = list(_shims(socket))
        for pid in [*_descendants(shims), *shims]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not shims:
            break
        time.sleep(0.3)
    _remove_cgroups(state)
    left = [f"container shim {pid} is still running" for pid in _shims(socket)]
    for folder in folders:
        unmount(folder)
        if trouble := _remove(folder):
            left.append(trouble)
    return left


def _remove(folder: Path) -> str:
    """Why it cannot be removed; what was just killed may still let go of a file."""
    trouble = ""
    for _ in range(_TRIES):
        if not folder.exists():
            return ""
        try:
            paths.remove_tree(folder)
        except OSError as error:
            trouble = str(error)
            time.sleep(0.1)
    return trouble if folder.exists() else ""


def follow(socket: Path, state: Path, folders: list[Path]) -> subprocess.Popen[bytes]:
    """Start the program that sweeps after this process: close its stdin and wait, or just die."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.bed.sweep", *map(str, (socket, state, *folders))],
        cwd=paths.REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def unmount(folder: Path) -> None:
    """Unmount everything at or below the folder, the deepest first; a busy mount is tried again."""
    umount = shutil.which("umount") or "/usr/bin/umount"
    for _ in range(_UNMOUNT_TRIES):
        live = paths.mounts_below(folder)
        if not live:
            return
        for point in live:
            subprocess.run([umount, str(point)], capture_output=True, check=False)
        if paths.mounts_below(folder):
            time.sleep(0.1)


def _shims(socket: Path) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                if Path(words[0]).name.startswith("containerd-shim") and str(socket) in words:
                    yield int(entry.name)


def _descendants(roots: list[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    queue = list(roots)
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _remove_cgroups(state: Path) -> None:
    for container in state.glob("io.containerd.runtime.v2.task/*/*"):
        for cgroup in Path("/sys/fs/cgroup").glob(f"**/{container.parent.name}/{container.name}"):
            with contextlib.suppress(OSError):
                cgroup.rmdir()


def main() -> int:
    socket, state, *folders = map(Path, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdin.buffer.read()
    return 1 if clean(socket, state, folders) else 0


if __name__ == "__main__":
    sys.exit(main())
