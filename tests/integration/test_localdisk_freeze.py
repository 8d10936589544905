"""A freeze always thaws: whoever is killed, whatever takes too long. And only our own images are ever frozen."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from adapters.localdisk import driver, failures, freeze, layout, loop, records, thawguard
from tests.support import localdisk
from tests.support import localdisk_dying as dying
from tests.support.bed import paths

pytestmark = pytest.mark.root
FIFREEZE = 0xC0045877


@contextlib.contextmanager
def opened(folder: Path, steps: Callable[[str], None], *, deadline_seconds: float = 60.0) -> Iterator[driver.Driver]:
    """A driver in this process with one published volume, "old"."""
    options = dying.settings(folder / "state", "image", rootless=False)
    options = type(options)(
        endpoint=options.endpoint, state_dir=options.state_dir, node_id="n", mode=options.mode, durable=False,
        freeze_deadline_seconds=deadline_seconds,
    )  # fmt: skip
    found = driver.open_driver(options, steps=steps)
    try:
        found.volumes.create(dying.new_volume("old"))
        dying.publish(found, "old")
        yield found
    finally:
        found.close()
        localdisk.clear(folder)


def home(d: driver.Driver) -> Path:
    return d.layout.home(records.volume_id("old"))


def is_frozen(mount: Path) -> bool:
    """Asks by freezing: the kernel says EBUSY if it is frozen already."""
    handle = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(handle, FIFREEZE, 0)
        with contextlib.suppress(OSError):  # the guard may be faster
            fcntl.ioctl(handle, thawguard.FITHAW, 0)
        return False
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True
    finally:
        os.close(handle)


def until_thawed(mount: Path, seconds: float = 30.0) -> None:
    """Waits until the mount takes a write: half as long as an ordinary freeze may last."""
    began = time.monotonic()
    while is_frozen(mount):
        assert time.monotonic() - began < seconds, "still frozen"
        time.sleep(0.005)
    (mount / "written").write_text("yes")


def writes_block(mount: Path) -> bool:
    """Whether a write stands still. The writer ends by itself when the mount thaws."""
    script = f"print(flush=True); open({str(mount / 'blocked')!r}, 'w').close()"
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    with writer.stdout:
        assert writer.stdout.readline() == b"\n"  # it has started: what it does now is the write
    try:
        writer.wait(timeout=0.7)
    except subprocess.TimeoutExpired:
        threading.Thread(target=writer.wait).start()
        return True
    return False


def test_writes_stand_still_during_a_cut_and_go_on_after_it() -> None:
    seen: dict[str, bool] = {}

    def steps(name: str) -> None:
        if name == "copied":
            seen["blocked"] = writes_block(home(d))

    with opened(paths.fresh("freeze"), steps) as d:
        d.snapshots.create("s", records.volume_id("old"), {})
        assert seen == {"blocked": True}
        until_thawed(home(d))


def test_the_driver_killed_in_the_middle_of_a_cut_leaves_nothing_frozen() -> None:
    """In a process of its own, killed with SIGKILL while frozen; nobody opens the state again before we look."""
    folder = paths.fresh("freeze")
    try:
        with opened(folder, lambda _: None) as d:
            mount = home(d)
        case = dying.Case(str(folder / "state"), "image", False, "snapshot", 0)
        with dying.interrupter() as interrupter:
            steps = interrupter.run(case).steps  # to its end, for the names of the steps
            interrupter.run(dying.Case(str(folder / "state"), "image", False, "delete new snapshot", 0))
            for name in ("guard armed", "frozen", "copied", "copied while frozen"):
                at = steps.index(name) + 1
                result = interrupter.run(dying.Case(str(folder / "state"), "image", False, "snapshot", at))
                assert result.died
                assert result.steps[-1] == name
                until_thawed(mount)
    finally:
        localdisk.clear(folder)


def guard_of(pid: int) -> int:
    """The process id of a driver's thaw guard."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and any(word.endswith(b"thawguard.py") for word in command):
                return int(entry.name)
    raise AssertionError(f"no thaw guard of {pid}")


def until_dead(pid: int, seconds: float = 30.0) -> None:
    """Waits until a process has ended, reaped or not."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(FileNotFoundError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline, f"{pid} goes on living"
            time.sleep(0.01)


def test_the_guard_is_a_process_in_a_session_of_its_own() -> None:
    with localdisk.start_localdisk(mode="image") as running:
        volume = running.volume("v").volume_id
        running.publish(volume)
        running.snapshot("s", volume)
        guard = guard_of(running.process.pid)
        assert os.getsid(guard) == guard
        assert os.getsid(guard) != os.getsid(running.process.pid)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(guard, number)
        running.snapshot("s2", volume)
        assert guard_of(running.process.pid) == guard
        running.kill()
        until_dead(guard)


def test_a_dead_guard_is_replaced_before_the_next_freeze() -> None:
    with localdisk.start_localdisk(mode="image") as running:
        volume = running.volume("v").volume_id
        running.publish(volume)
        running.snapshot("s", volume)
        first = guard_of(running.process.pid)
        os.kill(first, signal.SIGKILL)
        until_dead(first)
        assert running.snapshot("s2", volume).ready_to_use
        assert guard_of(running.process.pid) != first


def test_a_guard_killed_during_a_freeze_spoils_the_cut_and_leaves_nothing_frozen() -> None:
    def steps(name: str) -> None:
        if name == "frozen" and d.guard.pid is not None:
            os.kill(d.guard.pid, signal.SIGKILL)

    with opened(paths.fresh("freeze"), steps) as d:
        with pytest.raises(freeze.GuardError):
            d.snapshots.create("s", records.volume_id("old"), {})
        until_thawed(home(d))
        assert d.store.live_snapshots() == []
        assert list(d.layout.snapshots.iterdir()) == []


def test_a_cut_that_takes_too_long_is_given_up() -> None:
    def steps(name: str) -> None:
        if name == "copied":
            until_thawed(home(d))

    with opened(paths.fresh("freeze"), steps, deadline_seconds=0.2) as d:
        with pytest.raises(failures.DriverError, match="raise --freeze-deadline") as caught:
            d.snapshots.create("s", records.volume_id("old"), {})
        assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
        until_thawed(home(d))
        assert d.store.live_snapshots() == []
        assert list(d.layout.snapshots.iterdir()) == []


def test_the_guard_thaws_while_the_cut_still_runs() -> None:
    seen: list[str] = []

    def steps(name: str) -> None:
        if name == "copied":
            until_thawed(home(d))  # the driver itself is held up right here
            seen.append(name)

    with opened(paths.fresh("freeze"), steps, deadline_seconds=0.3) as d, pytest.raises(failures.DriverError):
        d.snapshots.create("s", records.volume_id("old"), {})
    assert seen == ["copied"]


def test_a_mount_frozen_by_someone_else_is_left_to_them() -> None:
    with opened(paths.fresh("freeze"), lambda _: None) as d:
        handle = os.open(home(d), os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, FIFREEZE, 0)
            try:
                # The cut itself would stand still at its first sync: ask the freezer alone.
                freezer = freeze.Freezer(d.layout, d.guard, 60.0, lambda _: None)
                with pytest.raises(failures.DriverError, match="frozen by someone else") as caught:  # noqa: SIM117
                    with freezer.frozen([records.volume_id("old")]):
                        raise AssertionError("not reached")
                assert caught.value.code is grpc.StatusCode.ABORTED
                assert is_frozen(home(d))
            finally:
                fcntl.ioctl(handle, thawguard.FITHAW, 0)
        finally:
            os.close(handle)


def test_what_driver_and_guard_left_frozen_is_thawed_at_the_start() -> None:
    folder = paths.fresh("freeze")
    options = dying.settings(folder / "state", "image", rootless=False)
    with contextlib.ExitStack() as stack:
        stack.callback(localdisk.clear, folder)
        first = driver.open_driver(options)
        first.volumes.create(dying.new_volume("old"))
        dying.publish(first, "old")
        first.close()
        handle = os.open(home(first), os.O_RDONLY | os.O_DIRECTORY)
        fcntl.ioctl(handle, FIFREEZE, 0)
        os.close(handle)
        second = driver.open_driver(options)
        stack.callback(second.close)
        assert not is_frozen(home(second))
        until_thawed(home(second))


def test_a_volume_frozen_by_someone_else_can_be_taken_down_for_good() -> None:
    with opened(paths.fresh("freeze"), lambda _: None) as d:
        handle = os.open(home(d), os.O_RDONLY | os.O_DIRECTORY)
        fcntl.ioctl(handle, FIFREEZE, 0)
        os.close(handle)
        dying.withdraw(d, "old")
        d.volumes.delete(records.volume_id("old"))
        deadline = time.monotonic() + 30
        while [e for e in loop.attached() if d.layout.root in e.backing.parents]:
            assert time.monotonic() < deadline, "the device of the frozen image is held for ever"
            time.sleep(0.02)


@pytest.mark.parametrize("kind", ["directory of the host", "bind mount of the host", "unknown volume"])
def test_a_file_system_of_the_host_is_never_frozen(kind: str) -> None:
    """Even if something of the host stands where an image's mount should be, the freezer refuses it."""
    folder = paths.fresh("freeze")
    place, lock = layout.claim(folder / "state", "d")
    volume = records.volume_id("host")
    guard = freeze.Guard()
    freezer = freeze.Freezer(place, guard, 60.0, lambda _: None)
    try:
        if kind != "unknown volume":
            place.home(volume).mkdir()
            (place.volumes / f"{volume}.img").touch()
        if kind == "bind mount of the host":
            subprocess.run(["mount", "--bind", str(folder), str(place.home(volume))], check=True)
        with pytest.raises(failures.DriverError, match="is not frozen"):  # noqa: SIM117
            with freezer.frozen([volume]):
                raise AssertionError("not reached")
        assert guard.pid is None, "the guard was armed for something that is not ours"
        (folder / "alive").write_text("the host's file system takes writes")
    finally:
        guard.close()
        os.close(lock)
        localdisk.clear(folder)
