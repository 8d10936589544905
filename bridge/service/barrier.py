"""One turn of a group that is cut by a barrier: observe its members, decide, one effect. The sibling of `groups.py`.

The members' calls go out together, each under its own note, and each outcome is saved in its member's own record.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence

from bridge.decide import action as act
from bridge.decide import backoff, barrier, snapshot
from bridge.model.failure import Failure
from bridge.model.group import GroupRecord, GroupRequest, GroupStatus
from bridge.model.keys import Key
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.snapshot import CutSnapshot, Record, SnapshotRequest
from bridge.ports.group import Barrier, GroupSide
from bridge.ports.guard import CutEnd
from bridge.service import work
from bridge.service.admission import Hold
from bridge.service.lane import Lane
from bridge.service.work import Ready, Tools


@dataclasses.dataclass(frozen=True, slots=True)
class BarrierTurn:
    """How a turn ended: `seconds` until the next look (None: none wanted), what was told, whom to wake."""

    seconds: float | None
    request: GroupRequest | None = None
    status: GroupStatus | None = None
    wake: tuple[Key, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Scene:
    """What one pass works with."""

    seen: barrier.Observed
    lane: Lane
    side: GroupSide
    tools: Tools


@dataclasses.dataclass(slots=True)
class _Call:
    """One member's call, ready to leave. Its place is taken until `leave` is closed."""

    request: SnapshotRequest
    step: act.Create
    ready: Ready
    told: Callable[[object], None]
    leave: contextlib.ExitStack


Decide = Callable[[barrier.Observed, float], barrier.BarrierAction]


async def turn(
    key: Key, lane: Lane, side: GroupSide, tools: Tools, *, decide: Decide = barrier.decide
) -> BarrierTurn:
    """Pass after pass until the group comes to rest, then tell its owner once."""
    wake: dict[Key, None] = {}
    for _ in range(work.MOST_STEPS):
        seen = await observe(key, lane, side, tools)
        if seen is None:
            return BarrierTurn(None)
        step = decide(seen, tools.clock.now())
        if isinstance(step, act.Wait | act.Rest):
            status = barrier.project(seen, step)
            await side.requests.publish(seen.request, status)
            seconds = step.seconds if isinstance(step, act.Wait) else None
            return BarrierTurn(seconds, seen.request, status, tuple(wake))
        held = await perform(seen, step, lane, side, tools)
        # Only what was done is news to the members: they wake the group in turn, and that must come to an end.
        if held is None and isinstance(step, barrier.CutTogether | barrier.WithdrawMembers | barrier.Keep):
            wake.update(dict.fromkeys(one.wanted.key for one in seen.members))
        if held is not None and held.why:
            status = barrier.project(seen, act.Wait(held.seconds, held.reason, held.why))
            await side.requests.publish(seen.request, status)
            return BarrierTurn(held.seconds, seen.request, status, tuple(wake))
        if held is not None:
            return BarrierTurn(held.seconds, wake=tuple(wake))
    return BarrierTurn(0.0, wake=tuple(wake))


async def observe(key: Key, lane: Lane, side: GroupSide, tools: Tools) -> barrier.Observed | None:
    """Read the world anew. None when neither request nor record is known."""
    request = await side.requests.observe(key)
    if request is None:
        return None
    record = await side.ledger.load(key)
    members: list[barrier.Member] = []
    for wanted in request.together:
        asked = await lane.requests.observe(wanted.key)
        kept = await lane.ledger.load(wanted.key)
        state = await _barrier(side).member_state(wanted.key) if asked is not None else None
        view = lane.of(tools.plugins).view(wanted.driver)
        members.append(barrier.Member(wanted, view, asked.wish if asked is not None else None, state, kept))
    writer = "" if key in tools.doubts else tools.writer
    return barrier.Observed(request, record, tuple(members), writer)


async def perform(
    seen: barrier.Observed, step: barrier.BarrierAction, lane: Lane, side: GroupSide, tools: Tools
) -> Hold | None:
    """Carry out one action. A Hold when the calls may not be made yet."""
    key = seen.request.key
    match step:
        case act.Hold():
            await side.requests.hold(seen.request)
        case act.Release():
            await side.requests.release(seen.request)
        case act.Erase(orphan):
            if seen.record is not None:
                await side.ledger.erase(key, seen.record, orphan=orphan)
        case barrier.Keep(record):
            await side.ledger.save(key, record)
        case barrier.WithdrawMembers(keys):
            await _barrier(side).withdraw(keys)
        case barrier.CutTogether():
            return await _cut(_Scene(seen, lane, side, tools), step)
        case act.Wait() | act.Rest():
            raise AssertionError("waiting is not performed")
    return None


async def _cut(scene: _Scene, step: barrier.CutTogether) -> Hold | None:
    """Secrets, plugins and places first; then all notes in one act; then every call at once."""
    seen, tools = scene.seen, scene.tools
    requests = [await scene.lane.requests.observe(key) for key, _ in step.notes]
    asked = [request for request in requests if request is not None]
    if len(asked) < len(step.notes):
        return Hold(backoff.UNKNOWN_PLUGIN_SECONDS, "gone")
    prepared = await asyncio.gather(
        *(_ready(scene, request, note) for request, (_, note) in zip(asked, step.notes, strict=True))
    )
    for one in prepared:
        if isinstance(one, Failed):
            await scene.side.ledger.save(seen.request.key, _put_off(seen, one.failure, tools))
            return None
    readies = [one for one in prepared if isinstance(one, Ready)]
    held = tools.admission.hold_together(seen.request.key, [one.passage for one in readies], tools.clock.now())
    if held is not None:
        return held
    # From here on nobody else may call for these members: their places are taken before their notes can be seen.
    calls = [
        _enter(request, note, ready, tools)
        for request, (_, note), ready in zip(asked, step.notes, readies, strict=True)
    ]
    tools.admission.reserved(seen.request.key)
    try:
        await _under_hold(scene, step, calls)
    finally:
        for call in calls:
            call.leave.close()
    return None


async def _ready(scene: _Scene, request: SnapshotRequest, note: Record) -> Ready | Failed:
    """The member's secrets and the instance to call."""
    assert note.note is not None
    view = scene.lane.of(scene.tools.plugins).view(request.driver)
    mine = snapshot.Observed(request, note, view, scene.tools.writer)
    ready = await work.prepare(act.Create(note.note), mine, scene.lane, scene.tools, alone=False)
    assert isinstance(ready, Ready | Failed)
    return ready


def _enter(request: SnapshotRequest, note: Record, ready: Ready, tools: Tools) -> _Call:
    assert note.note is not None
    leave = contextlib.ExitStack()
    told = leave.enter_context(tools.admission.inside(ready.passage, tools.clock.now))
    return _Call(request, act.Create(note.note), ready, told, leave)


async def _under_hold(scene: _Scene, step: barrier.CutTogether, calls: Sequence[_Call]) -> None:
    """Hold the writers of all volumes still, where the orchestrator can; then the notes, then the calls."""
    guard = scene.lane.guard
    if guard is None:
        await _note_and_send(scene, step, calls)
        return
    hold = await guard.before_cut([call.request for call in calls])
    if isinstance(hold, Failure):
        _tell_unsent(calls)
        await scene.side.ledger.save(scene.seen.request.key, _put_off(scene.seen, hold, scene.tools))
        return
    made = False
    try:
        made = await _note_and_send(scene, step, calls)
    finally:
        await guard.after_cut(hold, CutEnd(made, sure=bool(scene.seen.writer)))


async def _note_and_send(scene: _Scene, step: barrier.CutTogether, calls: Sequence[_Call]) -> bool:
    """Returns whether every member was cut."""
    record = dataclasses.replace(step.record, released_at=scene.tools.clock.now())
    try:
        saved = await _barrier(scene.side).open(scene.seen.request.key, record, step.notes)
    except BaseException:
        _tell_unsent(calls)
        raise
    return await _send_all(scene, calls, saved)


def _tell_unsent(calls: Sequence[_Call]) -> None:
    for call in calls:
        call.told(work.refused("NOT_SENT", "the call was not made"))


async def _send_all(scene: _Scene, calls: Sequence[_Call], saved: Sequence[Record]) -> bool:
    """All calls, each to its end: one that fails cuts no other off. Returns whether every member was cut."""
    tasks = [
        asyncio.create_task(_send(scene, call, record), name=f"cut {call.request.key}")
        for call, record in zip(calls, saved, strict=True)
    ]
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    for one in ended:
        if isinstance(one, BaseException):
            raise one
    return all(isinstance(one, Done) for one in ended)


async def _send(scene: _Scene, call: _Call, record: Record) -> Outcome[CutSnapshot | None]:
    with call.leave:
        mine = snapshot.Observed(call.request, record, call.ready.passage.view, scene.seen.writer)
        return await work.send_and_save(call.step, call.ready, mine, scene.lane, scene.tools, call.told, held=True)


def _put_off(seen: barrier.Observed, failure: Failure, tools: Tools) -> GroupRecord:
    """Nothing was called: all of it is tried again later."""
    begun = barrier.begin(seen)
    view, failures = seen.members[0].plugin, begun.failures + 1
    delay = backoff.retry_delay(failures, view.retry_first_seconds, view.retry_most_seconds)
    return dataclasses.replace(
        begun, failure=failure, failures=failures, retry_at=tools.clock.now() + delay, released_at=0.0
    )


def _barrier(side: GroupSide) -> Barrier:
    if side.barrier is None:
        raise AssertionError("a group with members of its own came from a cluster without a barrier")
    return side.barrier
