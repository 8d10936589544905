"""kill -9 of localdisk at every step of every operation: nothing half made, nothing left, nothing doubled.

After each kill the driver is opened again on the same state. Then every record has its bytes and every byte its
record; the operation, repeated, succeeds; and after all is deleted the state directory is empty.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.localdisk import driver, loop, mounts, records
from tests.support import disks, localdisk
from tests.support import localdisk_dying as dying
from tests.support.bed import paths

MODES = [
    pytest.param("rootless", id="rootless"),
    pytest.param("directory", id="directory", marks=pytest.mark.root),
    pytest.param("image", id="image", marks=pytest.mark.root),
    pytest.param("btrfs", id="btrfs", marks=pytest.mark.root),
]
MOST_STEPS = 60


class Bed:
    """One state directory that is made anew for every case."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.rootless = kind == "rootless"
        self.mode = "directory" if self.rootless else kind

    @property
    def state(self) -> Path:
        return self.folder / "case" / "state"

    @contextlib.contextmanager
    def opened(self) -> Iterator[driver.Driver]:
        opened = driver.open_driver(dying.settings(self.state, self.mode, rootless=self.rootless))
        try:
            yield opened
        finally:
            opened.close()

    def prepare(self, operation: str) -> None:
        """What each case begins with: two volumes, one of them published with a file, and a snapshot of it."""
        (self.folder / "case").mkdir()
        with self.opened() as d:
            for name in ("old", "other"):
                d.volumes.create(dying.new_volume(name))
            dying.publish(d, "old")
            (Path(dying.target(d, "old")) / "file").write_text("before")
            d.snapshots.create("old-snapshot", records.volume_id("old"), {})
            if operation in ("group", "delete group") and self.mode != "image":
                dying.withdraw(d, "old")  # only images can be cut together while written to
            if operation == "delete group":
                dying.OPERATIONS["group"](d)

    def case(self, operation: str, die_at: int) -> dying.Case:
        return dying.Case(str(self.state), self.mode, self.rootless, operation, die_at)

    def check_whole(self, d: driver.Driver) -> None:
        """Every record has its bytes, every byte its record; nothing is frozen, nothing dangles."""
        kept: list[records.Volume | records.Snapshot] = [*d.store.live_volumes(), *d.store.live_snapshots()]
        places = {d.layout.data(record) for record in kept}
        assert {*d.layout.volumes.iterdir(), *d.layout.snapshots.iterdir()} == places
        files = sorted(p.name for p in (self.state / "records").rglob("*") if p.is_file())
        assert not [name for name in files if name.startswith("tmp-")]
        used = {u.volume_id for u in d.store.uses.all()}
        homes = {Path(m.path).name for m in mounts.below(d.layout.mounts)}
        assert homes <= used
        devices = {e.backing for e in loop.attached() if self.state in e.backing.parents}
        assert {p.stem for p in devices} <= used
        for volume_id in homes:
            (d.layout.home(volume_id) / "probe").write_text("not frozen")
            (d.layout.home(volume_id) / "probe").unlink()

    def empty(self) -> None:
        """Deletes everything; then nothing may be left."""
        with self.opened() as d:
            for name in ("old", "other", "new"):
                if d.store.volume(records.volume_id(name)) is not None:
                    dying.withdraw(d, name)
                d.volumes.delete(records.volume_id(name))
            for name in ("old-snapshot", "new-snapshot"):
                d.snapshots.delete(records.snapshot_id(name))
            d.groups.delete(records.group_id("g"), dying.group_members("old", "other"))
            assert d.store.live_volumes() == []
            assert d.store.live_snapshots() == []
        left = [p for p in self.state.rglob("*") if p.is_file() and p.name not in ("lock", "localdisk.json")]
        assert left == []
        assert mounts.below(self.folder / "case") == []
        assert not [e for e in loop.attached() if self.state in e.backing.parents]
        shutil.rmtree(self.folder / "case")


@pytest.fixture(scope="module")
def interrupter() -> Iterator[dying.Interrupter]:
    with dying.interrupter() as found:
        yield found


@pytest.fixture
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    kind: str = request.param
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(disks.mounted("btrfs")) if kind == "btrfs" else paths.fresh("killed")
        stack.callback(localdisk.clear, folder)
        yield Bed(folder, kind)


@pytest.mark.parametrize(
    "operation", [name for name in dying.OPERATIONS if name not in ("open", "delete new snapshot")]
)
@pytest.mark.parametrize("bed", MODES, indirect=True)
def test_killed_at_every_step(bed: Bed, operation: str, interrupter: dying.Interrupter) -> None:
    for die_at in range(1, MOST_STEPS):
        bed.prepare(operation)
        result = interrupter.run(bed.case(operation, die_at))
        step = f"killed at step {die_at}, {result.steps[-1:]}"
        with bed.opened() as d:
            bed.check_whole(d)
            before = (len(d.store.live_volumes()), len(d.store.live_snapshots()))
            dying.OPERATIONS[operation](d)
            bed.check_whole(d)
            dying.OPERATIONS[operation](d)
            check_done(d, operation, step)
            assert before in possible(operation), step
        bed.empty()
        if not result.died:
            assert die_at > 1, "there was no step to die at: the test proves nothing"
            return
    raise AssertionError(f"more than {MOST_STEPS} steps")


def possible(operation: str) -> list[tuple[int, int]]:
    """How many volumes and snapshots there may be after a kill: as before the operation, or as after it."""
    match operation:
        case "create" | "create block" | "restore" | "clone":
            return [(2, 1), (3, 1)]
        case "delete":
            return [(2, 1), (1, 1)]
        case "snapshot":
            return [(2, 1), (2, 2)]
        case "delete snapshot":
            return [(2, 1), (2, 0)]
        case "group" | "delete group":
            return [(2, 1), (2, 3)]  # never one member alone
    return [(2, 1)]


def check_done(d: driver.Driver, operation: str, step: str) -> None:
    """The repeated operation has had its effect, once."""
    found = (len(d.store.live_volumes()), len(d.store.live_snapshots()))
    expected = {"create": (3, 1), "delete": (1, 1), "delete snapshot": (2, 0), "snapshot": (2, 2), "group": (2, 3)}
    if operation in expected:
        assert found == expected[operation], step
    match operation:
        case "restore" | "clone":
            dying.publish(d, "new")
            assert (Path(dying.target(d, "new")) / "file").read_text() == "before", step
        case "expand":
            volume = d.store.volume(records.volume_id("old"))
            assert volume is not None
            assert volume.capacity_bytes == 24 * dying.MiB, step
        case "publish":
            (Path(dying.target(d, "other")) / "file").write_text("written")
        case "withdraw":
            assert not Path(dying.target(d, "old")).exists(), step


@pytest.mark.parametrize("operation", ["delete", "delete group", "snapshot", "withdraw"])
@pytest.mark.parametrize("bed", MODES, indirect=True)
def test_killed_again_while_recovering(bed: Bed, operation: str, interrupter: dying.Interrupter) -> None:
    """For each step of the operation, the recovery is killed at its first, second … step as well."""
    recoveries = 0
    for die_at in range(1, MOST_STEPS):
        bed.prepare(operation)
        died = interrupter.run(bed.case(operation, die_at)).died
        for again in range(1, MOST_STEPS):
            if not interrupter.run(bed.case("open", again)).died:
                break
            recoveries += 1
        with bed.opened() as d:
            bed.check_whole(d)
            dying.OPERATIONS[operation](d)
            check_done(d, operation, f"step {die_at}")
        bed.empty()
        if not died:
            assert recoveries or operation == "withdraw"
            return
