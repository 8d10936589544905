"""Freezes in real tasks of the fake agent, with notes in a real ledger: whatever goes wrong, the task is thawed.

A freeze makes a marker file and its thaw removes it, so that what the task is can be seen from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from adapters.nomad.client import Client
from adapters.nomad.freezing import Means
from adapters.nomad.quiesce import Held, Quiescer
from bridge.ledger.opening import open_ledger
from bridge.ledger.store import SqlLedger
from bridge.model.failure import Failure, FailureKind, UnavailableError
from bridge.model.keys import snapshot_key
from bridge.model.operation import Operation, OperationState
from bridge.model.snapshot import DeletionPolicy, SnapshotRequest, VolumeSource, Wish
from bridge.ports.guard import FREEZE, NOT_QUIESCED, QUIESCE_UNAVAILABLE, CutEnd
from bridge.ports.ledger import Entry
from tests.integration.nomad.conftest import job, make_volume, register
from tests.integration.nomad.doubles import running, until
from tests.support.nomad.agent import FakeNomad

MADE, SURE = CutEnd(made=True, sure=True), CutEnd(made=True, sure=False)
LIMIT = 30.0


class WallClock:
    """Real time."""

    def now(self) -> float:
        import time

        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclasses.dataclass
class Place:
    """One job whose task can be frozen."""

    agent: FakeNomad
    client: Client
    ledger: SqlLedger
    folder: pathlib.Path
    request: SnapshotRequest

    @property
    def marker(self) -> pathlib.Path:
        return self.folder / "frozen"

    def guard(self) -> Quiescer:
        """As a process has one: a second one is another process's."""
        return Quiescer(Means("east", self.client, self.ledger, WallClock()))

    async def run(self, **meta: str) -> str:
        """Run the job; returns its allocation."""
        plain = {"snapbridge_quiesce": f"touch {self.marker}", "snapbridge_thaw": f"rm -f {self.marker}"}
        row = job("web", "v1", meta={key: text for key, text in {**plain, **meta}.items() if text})
        row["TaskGroups"][0]["Tasks"][0]["Driver"] = "exec"
        await register(self.client, row)
        rows = await self.agent.job_settled("web")
        return str(rows[0].id)

    async def labels(self) -> dict[str, str]:
        entry = await self.ledger.entry(self.request.key)
        assert entry is not None
        return dict(entry.labels)

    async def notes(self, *, running: bool = True) -> list[Any]:
        return [one for one in await self.ledger.operations(running=running) if one.verb == "freeze"]


@pytest.fixture
async def place(agent: FakeNomad, client: Client, tmp_path: pathlib.Path) -> AsyncIterator[Place]:
    handle = await make_volume(client, "v1")
    request = SnapshotRequest(
        key=snapshot_key("east", "u-1"), wish=Wish.PRESENT, namespace="default", name="s", driver="d",
        source=VolumeSource(handle), snapshot_name="snapshot-u-1", policy=DeletionPolicy.DELETE, volume="v1",
    )  # fmt: skip
    async with open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}", WallClock()) as ledger:
        entry = Entry(
            request.key, "default", "s", "v1", "d", request.source, "snapshot-u-1", request.policy, labels={"a": "b"}
        )
        await ledger.add(entry)
        yield Place(agent, client, ledger, tmp_path, request)


async def held(place: Place, guard: Quiescer) -> Held:
    hold = await guard.before_cut((place.request,))
    assert isinstance(hold, Held), hold
    return hold


async def test_frozen_for_the_cut_and_thawed_after_it(place: Place) -> None:
    await place.run()
    guard = place.guard()
    hold = await held(place, guard)
    assert place.marker.exists()
    assert 0 < hold.seconds_left() <= 28
    (note,) = await place.notes()
    assert (note.arguments["task"], note.target) == ("main", str(place.request.key))
    await guard.after_cut(hold, MADE)
    assert not place.marker.exists()
    assert await place.labels() == {"a": "b", "consistency": "quiesced"}
    assert await place.notes() == []
    (ended,) = await place.notes(running=False)
    assert ended.state is OperationState.DONE
    assert [step.name for step in ended.steps] == ["frozen", "thawed"]


async def test_by_actions_of_the_task(place: Place) -> None:
    row = job("web", "v1", meta={"snapbridge_quiesce_action": "stop", "snapbridge_thaw_action": "go"})
    row["TaskGroups"][0]["Tasks"][0] |= {
        "Driver": "exec",
        "Actions": [
            {"Name": "stop", "Command": "/bin/sh", "Args": ["-c", f"touch {place.marker}"]},
            {"Name": "go", "Command": "rm", "Args": ["-f", str(place.marker)]},
        ],
    }
    await register(place.client, row)
    await place.agent.job_settled("web")
    guard = place.guard()
    hold = await held(place, guard)
    assert place.marker.exists()
    await guard.after_cut(hold, MADE)
    assert not place.marker.exists()


@pytest.mark.parametrize(
    ("freeze", "says"),
    [
        ("echo the pool is busy >&2; exit 3", "exit code 3: the pool is busy"),
        ("/no/such/program", "exit code 127"),
        ("touch {marker}; exit 1", "exit code 1"),
    ],
)
async def test_a_freeze_that_fails_cuts_nothing_and_thaws(place: Place, freeze: str, says: str) -> None:
    await place.run(snapbridge_quiesce=freeze.replace("{marker}", str(place.marker)))
    refusal = await place.guard().before_cut((place.request,))
    assert isinstance(refusal, Failure)
    assert (refusal.kind, refusal.code) == (FailureKind.REFUSED, NOT_QUIESCED)
    assert says in refusal.message
    assert not place.marker.exists()
    assert await place.notes() == []


async def test_a_freeze_that_failed_is_not_tried_again_at_once(place: Place) -> None:
    await place.run(snapbridge_quiesce=f"echo freeze >> {place.folder}/log; exit 3")
    guard = place.guard()
    for _ in range(3):
        refusal = await guard.before_cut((place.request,))
        assert isinstance(refusal, Failure)
        assert "exit code 3" in refusal.message
    assert "it is tried again in" in refusal.message
    assert (place.folder / "log").read_text().split() == ["freeze"]
    await place.run(snapbridge_quiesce=f"touch {place.marker}")
    hold = await held(place, guard)
    assert place.marker.exists(), "other settings are another freeze"
    await guard.after_cut(hold, MADE)


async def test_a_freeze_that_hangs_is_given_up_and_never_stays(place: Place) -> None:
    await place.run(snapbridge_quiesce=f"sleep 4; touch {place.marker}", snapbridge_quiesce_seconds="2")
    refusal = await place.guard().before_cut((place.request,))
    assert isinstance(refusal, Failure)
    assert "did not end within" in refusal.message
    await until(lambda: not place.agent.commands, "the late freeze has ended", LIMIT)
    await until(lambda: not place.marker.exists(), "and thawed itself", LIMIT)
    assert await place.notes() == []


async def test_a_freeze_that_leaves_no_time_for_the_cut_cuts_nothing(place: Place) -> None:
    """Frozen, and about to be let go: a copy that has to be quiesced could not be one any more."""
    await place.run(snapbridge_quiesce=f"sleep 3.2; touch {place.marker}", snapbridge_quiesce_seconds="4")
    refusal = await place.guard().before_cut((place.request,))
    assert isinstance(refusal, Failure)
    assert refusal.code == NOT_QUIESCED
    await until(lambda: not place.marker.exists(), "thawed", LIMIT)
    await until(lambda: not place.agent.commands, "every command has ended", LIMIT)
    assert await place.notes() == []


async def test_where_it_is_not_required_the_cut_is_made_and_the_record_says_why(place: Place) -> None:
    await place.run(snapbridge_quiesce="exit 3", snapbridge_quiesce_required="false")
    guard = place.guard()
    hold = await held(place, guard)
    assert hold.seconds_left() == 0
    await guard.after_cut(hold, MADE)
    labels = await place.labels()
    assert labels["consistency"] == "crash-consistent"
    assert "exit code 3" in labels["consistency_why"]


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        ({"snapbridge_quiesce": "", "snapbridge_thaw": ""}, "no quiesce is set for job 'web', group 'g'"),
        ({"snapbridge_thaw": "", "snapbridge_quiesce_required": "false"}, "is set without snapbridge_thaw"),
    ],
)
async def test_nothing_to_freeze_is_said_too(place: Place, meta: dict[str, str], why: str) -> None:
    await place.run(**meta)
    guard = place.guard()
    await guard.after_cut(await held(place, guard), MADE)
    labels = await place.labels()
    assert labels["consistency"] == "crash-consistent"
    assert why in labels["consistency_why"]


async def test_a_volume_that_nobody_uses(place: Place) -> None:
    guard = place.guard()
    await guard.after_cut(await held(place, guard), MADE)
    assert (await place.labels())["consistency_why"] == "nobody uses the volume"


async def test_a_volume_that_nomad_cannot_be_asked_about(place: Place) -> None:
    await place.run()
    guard = place.guard()
    hold = await guard.before_cut((dataclasses.replace(place.request, volume="a/b"),))
    assert isinstance(hold, Held)
    await guard.after_cut(hold, MADE)
    assert "its id holds a slash" in (await place.labels())["consistency_why"]


async def test_settings_that_are_not_understood_cut_nothing(place: Place) -> None:
    await place.run(snapbridge_thaw="")
    refusal = await place.guard().before_cut((place.request,))
    assert isinstance(refusal, Failure)
    assert "snapbridge_quiesce is set without snapbridge_thaw" in refusal.message


async def test_an_earlier_call_takes_the_claim_away(place: Place) -> None:
    await place.run()
    guard = place.guard()
    await guard.after_cut(await held(place, guard), SURE)
    labels = await place.labels()
    assert labels["consistency"] == "crash-consistent"
    assert "an earlier call" in labels["consistency_why"]


async def test_the_bound_thaws_although_the_cut_goes_on(place: Place) -> None:
    await place.run(snapbridge_quiesce_seconds="6")
    guard = place.guard()
    for _ in range(6):  # where this machine stands still for a moment, the task's own switch is the first to thaw
        hold = await held(place, guard)
        assert place.marker.exists()
        await until(lambda: not place.marker.exists(), "the bound has thawed it", LIMIT)
        assert hold.seconds_left() == 0
        await guard.after_cut(hold, MADE)
        why = (await place.labels())["consistency_why"]
        assert await place.notes() == []
        if "thawed by something else" not in why:
            break
    assert "the time of the freeze was up" in why


async def test_a_cancelled_freeze_thaws_before_it_gives_way(place: Place) -> None:
    await place.run(snapbridge_quiesce=f"touch {place.marker}; sleep 3")
    guard = place.guard()
    asking = asyncio.create_task(guard.before_cut((place.request,)))
    await until(place.marker.exists, "the freeze has begun", LIMIT)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: not place.marker.exists(), "thawed", LIMIT)
    await until(lambda: not guard.problems(), "nothing is owed", LIMIT)
    await until(lambda: not place.agent.commands, "the freeze has ended", LIMIT)
    assert not place.marker.exists()
    assert await place.notes() == []


async def test_the_next_process_thaws_what_the_last_one_left(place: Place) -> None:
    await place.run()
    crashed = place.guard()
    hold = await held(place, crashed)
    assert hold.watch is not None
    hold.watch.cancel()  # as a process ends: nothing of it runs any more
    assert place.marker.exists()
    guard = place.guard()
    async with running(guard.run()):
        await until(lambda: not place.marker.exists(), "thawed by the next process", LIMIT)
        for _ in range(600):
            if not await place.notes():
                break
            await asyncio.sleep(0.05)
        assert await place.notes() == []


async def test_the_next_freeze_comes_after_the_thaw_that_is_owed(place: Place) -> None:
    """The switch of the crashed process's freeze must not thaw in the middle of the next one."""
    await place.run()
    crashed = place.guard()
    hold = await held(place, crashed)
    assert hold.watch is not None
    hold.watch.cancel()
    guard = place.guard()
    again = await held(place, guard)
    assert place.marker.exists()
    files = list(place.folder.rglob(".snapbridge-freeze-*")) + list(
        (place.agent.data_dir / "alloc").rglob(".snapbridge-freeze-*")
    )
    assert len(files) == 1, files
    await guard.after_cut(again, MADE)
    assert not place.marker.exists()


async def test_a_thaw_that_fails_is_owed_until_it_works(place: Place) -> None:
    gate = place.folder / "gate"
    thaw = f"test -e {gate} && rm -f {place.marker}"
    await place.run(snapbridge_thaw=thaw, snapbridge_quiesce_seconds="300")
    guard = place.guard()
    await guard.after_cut(await held(place, guard), MADE)
    assert place.marker.exists()
    assert "not thawed yet: task 'main' of job 'web'" in guard.problems()[0]
    refusal = await guard.before_cut((place.request,))
    assert isinstance(refusal, Failure)
    assert "still has to be thawed from an earlier freeze" in refusal.message
    gate.touch()
    async with running(guard.run()):
        await until(lambda: not guard.problems(), "paid", LIMIT)
    assert not place.marker.exists()
    assert await place.notes() == []


async def test_a_task_that_has_gone_owes_nothing(place: Place) -> None:
    await place.run(snapbridge_thaw="exit 1", snapbridge_quiesce_seconds="300")
    guard = place.guard()
    await guard.after_cut(await held(place, guard), MADE)
    assert guard.problems()
    await place.client.call("DELETE", "/v1/job/web", {"purge": "true"})
    async with running(guard.run()):
        await until(lambda: not guard.problems(), "let go", LIMIT)
    assert await place.notes() == []


async def test_a_task_that_ended_under_the_cut_was_not_held_still(place: Place) -> None:
    """Another instance may have taken its place, and written."""
    await place.run()
    guard = place.guard()
    hold = await held(place, guard)
    (allocation,) = place.agent.state.job_allocations("default", "web")
    await place.client.call("DELETE", "/v1/job/web")
    await until(lambda: allocation.client == "complete", "the task has ended", LIMIT)
    await guard.after_cut(hold, MADE)
    labels = await place.labels()
    assert labels["consistency"] == "crash-consistent"
    assert "ended while it was frozen" in labels["consistency_why"]


async def test_a_freeze_that_its_own_switch_has_ended_is_no_quiesced_cut(place: Place) -> None:
    await place.run()
    guard = place.guard()
    hold = await held(place, guard)
    for path in (place.agent.data_dir / "alloc").rglob(".snapbridge-freeze-*"):
        path.unlink()  # as the switch does after its thaw; its clock may run faster than ours
    await guard.after_cut(hold, MADE)
    assert "was thawed by something else" in (await place.labels())["consistency_why"]
    assert await place.notes() == []


async def test_a_client_that_is_not_heard_of_still_owes_its_thaw(place: Place) -> None:
    """Nomad calls the allocation `unknown`; its task runs on, frozen."""
    await place.run(snapbridge_thaw="exit 1", snapbridge_quiesce_seconds="300")
    guard = place.guard()
    hold = await held(place, guard)
    (allocation,) = place.agent.state.job_allocations("default", "web")
    allocation.client = "unknown"
    await guard.after_cut(hold, MADE)
    assert guard.problems()
    assert len(await place.notes()) == 1


async def test_a_writer_on_a_client_that_is_not_heard_of_is_a_writer(place: Place) -> None:
    await place.run(snapbridge_quiesce="exit 1")
    (allocation,) = place.agent.state.job_allocations("default", "web")
    allocation.client = "unknown"
    refusal = await place.guard().before_cut((place.request,))
    assert isinstance(refusal, Failure)
    assert refusal.code == NOT_QUIESCED


class SlowAnswers:
    """A book whose answer to one write is lost; the write is done all the same."""

    def __init__(self, book: SqlLedger) -> None:
        self._book = book
        self.lose = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._book, name)

    async def put_operation(self, operation: Any) -> Any:
        stored = await self._book.put_operation(operation)
        if self.lose:
            self.lose = False
            raise UnavailableError("the answer was lost")
        return stored


async def test_an_end_of_a_note_whose_answer_is_lost_is_an_end(place: Place) -> None:
    await place.run()
    book = SlowAnswers(place.ledger)
    guard = Quiescer(Means("east", place.client, book, WallClock()))  # type: ignore[arg-type]
    hold = await held(place, guard)
    book.lose = True
    await guard.after_cut(hold, MADE)
    async with running(guard.run()):
        await until(lambda: not guard.problems(), "nothing is owed", LIMIT)
    assert await place.notes() == []


async def test_a_freeze_broken_off_by_a_bug_is_thawed(place: Place) -> None:
    await place.run()

    class Broken(SlowAnswers):
        async def put_operation(self, operation: Any) -> Any:
            if self.lose:
                self.lose = False
                raise RuntimeError("a bug")
            return await self._book.put_operation(operation)

    book = Broken(place.ledger)
    guard = Quiescer(Means("east", place.client, book, WallClock()))  # type: ignore[arg-type]
    hold = await held(place, guard)
    book.lose = True
    with contextlib.suppress(ExceptionGroup):
        await guard.after_cut(hold, MADE)
    async with running(guard.run()):
        await until(lambda: not guard.problems(), "nothing is owed", LIMIT)
    assert not place.marker.exists()
    assert await place.notes() == []


async def test_a_thaw_that_hangs_keeps_no_other_task_waiting(place: Place) -> None:
    await place.run()
    other = job("idle")
    other["TaskGroups"][0]["Volumes"] = None
    other["TaskGroups"][0]["Tasks"][0] |= {"Driver": "exec", "VolumeMounts": None}
    await register(place.client, other)
    (idle,) = await place.agent.job_settled("idle")
    (web,) = await place.agent.job_settled("web")
    place.marker.touch()
    gate = place.folder / "gate"
    hangs = f"while ! test -e {gate}; do sleep 0.05; done"
    for at, allocation, thaw in ((1.0, web.id, f"rm -f {place.marker}"), (2.0, idle.id, hangs)):
        given = {"job": "x", "allocation": str(allocation), "task": "main", "thaw": thaw, "seconds": "300"}
        note = Operation(f"freeze-{at}", FREEZE, "east", "default", "x", OperationState.RUNNING, at, at, "", given)
        await place.ledger.put_operation(note)
    guard = place.guard()
    async with running(guard.run()):
        await until(lambda: not place.marker.exists(), "the other one is thawed", LIMIT)
        gate.touch()
        await until(lambda: not guard.problems(), "and the first one too", LIMIT)


async def test_two_cuts_of_one_task_freeze_one_after_the_other(place: Place) -> None:
    await place.run()
    guard = place.guard()
    first = await held(place, guard)
    second = asyncio.create_task(guard.before_cut((place.request,)))
    done, _ = await asyncio.wait({second}, timeout=0.3)
    assert not done
    await guard.after_cut(first, MADE)
    hold = await second
    assert isinstance(hold, Held)
    assert place.marker.exists()
    await guard.after_cut(hold, MADE)
    assert not place.marker.exists()


async def test_an_agent_that_cannot_be_asked_is_waited_for(place: Place) -> None:
    await place.run()
    await place.agent.stop()
    refusal = await place.guard().before_cut((place.request,))
    assert isinstance(refusal, Failure)
    assert (refusal.kind, refusal.code) == (FailureKind.REFUSED, QUIESCE_UNAVAILABLE)
