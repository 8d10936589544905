"""Runs operations of localdisk in processes that kill themselves at a chosen step.

The steps are the driver's own port: production passes one that does nothing; this passes one that counts and, at the
chosen number, sends SIGKILL to itself. A small server process forks one child per case, so that a case is cheap.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.localdisk import capacity, driver, records, volumes
from adapters.localdisk.settings import Mode, Settings
from adapters.localdisk.uses import NewUse
from tests.support.bed import paths

MiB = 1 << 20


def settings(state_dir: Path, mode: str, *, rootless: bool) -> Settings:
    return Settings(
        endpoint="unix:///unused.sock", state_dir=state_dir, node_id="n", mode=Mode(mode), durable=False,
        rootless=rootless,
    )  # fmt: skip


def new_volume(name: str, *, snapshot: str = "", volume: str = "", block: bool = False) -> volumes.NewVolume:
    return volumes.NewVolume(
        name=name,
        wanted=capacity.Wanted(16 * MiB),
        block=block,
        source_snapshot_id=records.snapshot_id(snapshot) if snapshot else "",
        source_volume_id=records.volume_id(volume) if volume else "",
    )


def target(opened: driver.Driver, name: str) -> str:
    return str(opened.layout.root.parent / f"target-{name}")


def group_members(*names: str) -> tuple[str, ...]:
    return tuple(records.member_id("g", records.volume_id(name)) for name in names)


def publish(opened: driver.Driver, name: str, *, block: bool = False) -> None:
    key = records.volume_id(name)
    staging = opened.layout.root.parent / f"staging-{name}"
    staging.mkdir(exist_ok=True)
    opened.uses.stage(NewUse(volume_id=key, path=str(staging), block=block))
    opened.uses.publish(NewUse(volume_id=key, path=target(opened, name), block=block))


def withdraw(opened: driver.Driver, name: str) -> None:
    key = records.volume_id(name)
    opened.uses.withdraw(key, target(opened, name))
    opened.uses.withdraw(key, str(opened.layout.root.parent / f"staging-{name}"))


# The operations that are interrupted. Each may be repeated after any interruption.
OPERATIONS: dict[str, Callable[[driver.Driver], object]] = {
    "create": lambda d: d.volumes.create(new_volume("new")),
    "create block": lambda d: d.volumes.create(new_volume("new", block=True)),
    "restore": lambda d: d.volumes.create(new_volume("new", snapshot="old-snapshot")),
    "clone": lambda d: d.volumes.create(new_volume("new", volume="old")),
    "delete": lambda d: d.volumes.delete(records.volume_id("other")),
    "expand": lambda d: d.volumes.expand(records.volume_id("old"), capacity.Wanted(24 * MiB)),
    "snapshot": lambda d: d.snapshots.create("new-snapshot", records.volume_id("old"), {}),
    "delete snapshot": lambda d: d.snapshots.delete(records.snapshot_id("old-snapshot")),
    "delete new snapshot": lambda d: d.snapshots.delete(records.snapshot_id("new-snapshot")),
    "group": lambda d: d.groups.create("g", (records.volume_id("old"), records.volume_id("other")), {}),
    "delete group": lambda d: d.groups.delete(records.group_id("g"), group_members("old", "other")),
    "publish": lambda d: publish(d, "other"),
    "withdraw": lambda d: withdraw(d, "old"),
    "open": lambda d: None,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One interrupted run. Steps count from 1; while opening too if the operation is "open"."""

    state_dir: str
    mode: str
    rootless: bool
    operation: str
    die_at: int


@dataclass(frozen=True, slots=True)
class Result:
    """`died`: it killed itself at that step; otherwise it came to its end. `steps` are those it passed."""

    died: bool
    steps: tuple[str, ...]


class _Steps:
    def __init__(self, die_at: int, report: int) -> None:
        self.counting = False
        self._left = die_at
        self._report = report

    def __call__(self, name: str) -> None:
        if not self.counting:
            return
        os.write(self._report, f"{name}\n".encode())
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _child(case: Case, report: int) -> None:
    steps = _Steps(case.die_at, report)
    steps.counting = case.operation == "open"
    opened = driver.open_driver(settings(Path(case.state_dir), case.mode, rootless=case.rootless), steps=steps)
    steps.counting = True
    OPERATIONS[case.operation](opened)
    steps.counting = False
    opened.close()


def _serve() -> None:
    for line in sys.stdin:
        case = Case(**json.loads(line))
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(reader)
                _child(case, writer)
                status = 0
            except BaseException as error:  # noqa: BLE001 - a child must not return into the loop
                sys.stderr.write(f"{case}: {error!r}\n")
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader) as file:
            steps = file.read().splitlines()
        _, status = os.waitpid(pid, 0)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        answer: dict[str, Any] = {"died": died, "steps": steps, "failed": not died and status != 0}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Interrupter:
    """Runs cases, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, case: Case) -> Result:
        """Raises AssertionError if the operation failed instead of dying or ending."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = {name: getattr(case, name) for name in Case.__dataclass_fields__}
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert not answer["failed"], f"{case} failed; see standard error"
        return Result(answer["died"], tuple(answer["steps"]))


@contextmanager
def interrupter() -> Iterator[Interrupter]:
    """The server process, for as long as the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.localdisk_dying"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=paths.REPOSITORY,
    )  # fmt: skip
    try:
        yield Interrupter(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)
        assert process.stdout is not None
        process.stdout.close()


if __name__ == "__main__":
    _serve()
