"""One pass: observe, decide, one effect, fold, save. A pass may die anywhere; the next one starts by observing."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence

from bridge.decide import action as act
from bridge.decide import snapshot
from bridge.model.failure import BridgeError, Failure, FailureKind, UnavailableError
from bridge.model.keys import Key
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import THROUGH_ORCHESTRATOR_SECONDS, Route
from bridge.model.secret import SecretRef
from bridge.model.snapshot import CutSnapshot, Record, SnapshotRequest, SnapshotStatus, Wish
from bridge.model.volume import Origin
from bridge.ports.clock import Clock
from bridge.ports.plugin import PluginCalls, Plugins
from bridge.service import guarded
from bridge.service.admission import Admission, Hold, Passage
from bridge.service.lane import Lane

MOST_STEPS = 50
"""More steps in one turn than any path has: beyond it the turn ends and the key goes to the queue's end."""


Kept = Callable[[SnapshotRequest, Record], Awaitable[str]]
"""Asked of what is to be deleted: why it must stay; empty when nothing keeps it."""


async def _kept_by_nobody(_request: SnapshotRequest, _record: Record) -> str:
    return ""


async def _pinned_by_nobody(_keys: Sequence[Key]) -> str:
    return ""


Made = Callable[[Origin], Awaitable[None]]
"""Told of each volume that was made from something, before anybody can have it."""


async def remember_nothing(_origin: Origin) -> None:
    """For who keeps no record of it."""


Fold = Callable[[snapshot.Observed, act.Action, Outcome[CutSnapshot | None], float], Record]


Call = act.Create | act.Inspect | act.Delete


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """A call that may go now: the instance, the secrets, and the doorkeeper's leave."""

    plugin: PluginCalls
    values: Mapping[str, str]
    passage: Passage


@dataclasses.dataclass(frozen=True, slots=True)
class Tools:
    """What every pass needs besides its cluster's lane."""

    plugins: Plugins
    clock: Clock
    writer: str
    """This process's incarnation."""
    doubts: set[Key] = dataclasses.field(default_factory=set)
    """Keys with a call whose outcome could not be saved: no later refusal may close their note."""
    busy: Callable[[Key], str] = lambda _key: ""
    """A sentence naming what of our own uses the snapshot now (a restore under way); empty when nothing does."""
    kept: Kept = _kept_by_nobody
    """Pins, and volumes that share its blocks."""
    pinned: Callable[[Sequence[Key]], Awaitable[str]] = _pinned_by_nobody
    """Who pinned one of these, in a sentence; empty when nobody did. A group goes with all its members."""
    made: Made = remember_nothing
    fold: Fold = snapshot.fold
    on_step: Callable[[Key, act.Action], None] = lambda _key, _step: None
    admission: Admission = dataclasses.field(default_factory=Admission)
    started_at: float = 0.0
    """When this process began; 0: nothing of an earlier one can be under way."""


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """How a turn ended: `seconds` until the next look (None: none wanted), and what was told."""

    seconds: float | None
    request: SnapshotRequest | None = None
    status: SnapshotStatus | None = None


async def turn(key: Key, lane: Lane, tools: Tools) -> Turn:
    """Pass after pass until the object comes to rest, then tell its owner once."""
    for _ in range(MOST_STEPS):
        seen = await observe(key, lane, tools)
        if seen is None:
            return Turn(None)
        step = snapshot.decide(seen, tools.clock.now())
        tools.on_step(key, step)
        if isinstance(step, act.Wait | act.Rest):
            status = snapshot.project(seen, step)
            await lane.requests.publish(seen.request, status)
            return Turn(step.seconds if isinstance(step, act.Wait) else None, seen.request, status)
        held = await perform(seen, step, lane, tools)
        if held is not None:
            return await _told_held(held, seen, lane)
    return Turn(0.0)


async def _told_held(held: Hold, seen: snapshot.Observed, lane: Lane) -> Turn:
    """The call has to wait: its owner hears of it where there is something to say."""
    if not held.why:
        return Turn(held.seconds)
    status = snapshot.project(seen, act.Wait(held.seconds, held.reason, held.why))
    await lane.requests.publish(seen.request, status)
    return Turn(held.seconds, seen.request, status)


async def observe(key: Key, lane: Lane, tools: Tools) -> snapshot.Observed | None:
    """Read the world anew. None when neither request nor record is known."""
    request = await lane.requests.observe(key)
    if request is None:
        return None
    busy = tools.busy(key)
    if busy:
        request = dataclasses.replace(request, in_use=busy)
    record = await lane.ledger.load(key)
    if record is not None and not request.in_use and (record.condemned or request.wish is Wish.ABSENT):
        request = dataclasses.replace(request, in_use=await tools.kept(request, record))
    driver = record.driver if record is not None else request.driver
    writer = "" if key in tools.doubts else tools.writer
    return snapshot.Observed(request, record, lane.of(tools.plugins).view(driver), writer)


async def perform(seen: snapshot.Observed, step: act.Action, lane: Lane, tools: Tools) -> Hold | None:
    """Carry out one action: one effect, then the record. A Hold when the call may not be made yet."""
    key = seen.request.key
    match step:
        case act.Hold():
            await lane.requests.hold(seen.request)
        case act.Release():
            await lane.requests.release(seen.request)
        case act.NoteIntent() | act.Adopt():
            await lane.ledger.save(key, snapshot.begin(seen.request, step, seen.record))
        case act.Condemn():
            await lane.ledger.condemn(key, _record(seen))
        case act.Erase(orphan):
            if seen.record is not None:
                await lane.ledger.erase(key, seen.record, orphan=orphan)
        case act.Create() | act.Inspect() | act.Delete():
            return await _call_and_save(step, seen, lane, tools)
        case act.Wait() | act.Rest():
            raise AssertionError("waiting is not performed")
    return None


async def _call_and_save(step: Call, seen: snapshot.Observed, lane: Lane, tools: Tools) -> Hold | None:
    """Between the call and the save, what the call did is known to nobody: the key is in doubt."""
    ready = await prepare(step, seen, lane, tools)
    if isinstance(ready, Hold):
        return ready
    if isinstance(ready, Ready) and isinstance(step, act.Create) and _takes_another_route(step, ready):
        # Which way a call went is known after a crash only if it was written down before.
        note = dataclasses.replace(step.note, route=ready.passage.route)
        await lane.ledger.save(seen.request.key, dataclasses.replace(_record(seen), note=note))
        return None
    await call_and_save(step, ready, seen, lane, tools)
    return None


async def call_and_save(
    step: Call, ready: Ready | Outcome[None], seen: snapshot.Observed, lane: Lane, tools: Tools
) -> None:
    """Make the prepared call, or take what came instead of one, and write down what came of it."""
    if isinstance(ready, Ready):
        with tools.admission.inside(ready.passage, tools.clock.now) as told:
            await send_and_save(step, ready, seen, lane, tools, told)
        return
    tools.doubts.add(seen.request.key)
    await _save(tools.fold(seen, step, ready, tools.clock.now()), seen, lane, tools)


async def send_and_save(  # noqa: PLR0913 -- a call, its leave, and where its outcome goes
    step: Call,
    ready: Ready,
    seen: snapshot.Observed,
    lane: Lane,
    tools: Tools,
    told: Callable[[object], None],
    *,
    held: bool = False,
) -> Outcome[CutSnapshot | None]:
    """Make the call that the doorkeeper let in, tell it the outcome, and write that down.

    `held`: the caller holds the volume's writers still itself.
    """
    tools.doubts.add(seen.request.key)
    outcome = await (_send(step, ready.plugin, ready.values) if held else _make(step, ready, seen, lane, tools))
    told(outcome)
    folded = tools.fold(seen, step, outcome, tools.clock.now())
    if folded.handle and not _record(seen).handle:
        folded = dataclasses.replace(folded, route=ready.passage.route)
    await _save(folded, seen, lane, tools)
    return outcome


async def _save(folded: Record, seen: snapshot.Observed, lane: Lane, tools: Tools) -> None:
    if folded != seen.record:
        await lane.ledger.save(seen.request.key, folded)
    tools.doubts.discard(seen.request.key)


def _record(seen: snapshot.Observed) -> Record:
    if seen.record is None:
        raise AssertionError("this action needs a record")
    return seen.record


async def prepare(
    step: Call, seen: snapshot.Observed, lane: Lane, tools: Tools, *, alone: bool = True
) -> Ready | Outcome[None] | Hold:
    """All that a call needs, up to the doorkeeper's word. What never leaves this process is refused, not unsure.

    Not `alone`: the caller asks the doorkeeper itself, for several calls at once.
    """
    if isinstance(step, act.Inspect) and step.assume_ready:
        return Done(None)
    ref = step.note.secret if isinstance(step, act.Create) else step.secret
    try:
        values = await lane.secrets.resolve(ref)
    except BridgeError as error:
        return secret_failure(ref, error)
    # Chosen last: while a secret was looked up, another route may have taken over.
    plugin = lane.calls(tools.plugins, seen.plugin.driver)
    if plugin is None:
        return refused("PLUGIN_UNHEALTHY", f"no plugin of driver {seen.plugin.driver!r} serves")
    view = lane.of(tools.plugins).view(seen.plugin.driver)
    passage = Passage(seen.request.key, view, plugin.route, (_subject(seen),), view.settle_seconds)
    note = step.note if isinstance(step, act.Create) else None
    if note is not None and note.route is not None and note.writer != tools.writer:
        remind(tools, passage, note.route)
    held = tools.admission.hold(passage, tools.clock.now()) if alone else None
    return held if held is not None else Ready(plugin, values, passage)


def remind(tools: Tools, passage: Passage, route: Route) -> None:
    """The same call of an earlier process may still be under way by this route: the doorkeeper has to know of it."""
    least = THROUGH_ORCHESTRATOR_SECONDS if route is Route.ORCHESTRATOR else 0.0
    left = tools.started_at + max(passage.settle_seconds, least) - tools.clock.now()
    if left > 0:
        tools.admission.unsettled(passage, route, tools.clock.now(), left)


def _takes_another_route(step: act.Create, ready: Ready) -> bool:
    return step.note.route is not None and step.note.route is not ready.passage.route


def _subject(seen: snapshot.Observed) -> str:
    """The volume that a call works on; the snapshot itself where it was taken over."""
    return (seen.record.source if seen.record is not None else seen.request.source).handle


async def _make(
    step: Call, ready: Ready, seen: snapshot.Observed, lane: Lane, tools: Tools
) -> Outcome[CutSnapshot | None]:
    """The plugin call; with the writers held still around it where it may cut."""
    if lane.guard is None or not isinstance(step, act.Create) or not _may_cut(seen):
        return await _send(step, ready.plugin, ready.values)

    async def send() -> Outcome[CutSnapshot | None]:
        # Holding writers still takes its time: another route, or another process, may have taken over.
        plugin = lane.calls(tools.plugins, seen.plugin.driver)
        if plugin is None or plugin.route is not ready.passage.route:
            return refused("PLUGIN_UNHEALTHY", f"no plugin of driver {seen.plugin.driver!r} serves any more")
        return await _send(step, plugin, ready.values)

    first = bool(seen.writer) and step.note.writer == seen.writer and not step.note.unsure
    return await guarded.cut(lane.guard, (seen.request,), send, first=first, clock=tools.clock)


def _may_cut(seen: snapshot.Observed) -> bool:
    """Whether this create makes a copy that somebody wants, and does not only ask about one again."""
    record = _record(seen)
    return not record.handle and not record.condemned and seen.request.wish is Wish.PRESENT


async def _send(step: Call, plugin: PluginCalls, values: Mapping[str, str]) -> Outcome[CutSnapshot | None]:
    match step:
        case act.Create(note):
            return await plugin.create_snapshot(
                name=note.snapshot_name,
                volume_handle=note.volume_handle,
                parameters=note.parameters,
                secrets=values,
            )
        case act.Inspect(handle):
            return await plugin.inspect_snapshot(handle=handle, secrets=values)
        case act.Delete(handle):
            return await plugin.delete_snapshot(handle=handle, secrets=values)


def secret_failure(ref: SecretRef, error: BridgeError) -> Failed:
    """A secret that cannot be had: the call was not made."""
    code = "SECRET_UNAVAILABLE" if isinstance(error, UnavailableError) else "SECRET_" + error.code
    return refused(code, f"the secret {ref} cannot be used: {error.message}", error.hint)


def refused(code: str, message: str, hint: str = "") -> Failed:
    """A call that never left this process."""
    return Failed(Failure(FailureKind.REFUSED, code, message, hint))
