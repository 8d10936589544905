"""One pass over a group snapshot: observe, decide, one effect, fold, save. The sibling of `work.py`."""

from __future__ import annotations

import dataclasses

from bridge.decide import action as act
from bridge.decide import barrier as core
from bridge.decide import group
from bridge.decide import group_action as gact
from bridge.model.failure import BridgeError
from bridge.model.group import CutGroup, GroupRecord, GroupRequest, GroupStatus, Means, VolumesSource
from bridge.model.keys import Key
from bridge.model.outcome import Failed, Outcome
from bridge.model.snapshot import Wish
from bridge.ports.group import GroupSide
from bridge.service import barrier, guarded, work
from bridge.service.admission import Hold, Passage
from bridge.service.lane import Lane
from bridge.service.work import Ready, Tools


@dataclasses.dataclass(frozen=True, slots=True)
class GroupTurn:
    """How a turn ended: `seconds` until the next look (None: none wanted), and what was told."""

    seconds: float | None
    request: GroupRequest | None = None
    status: GroupStatus | None = None
    wake: tuple[Key, ...] = ()
    """Members whose own pass has something to do now."""


async def turn(key: Key, lane: Lane, tools: Tools) -> GroupTurn:
    """Pass after pass until the group comes to rest, then tell its owner once."""
    side = _side(lane)
    wake: tuple[Key, ...] = ()
    for _ in range(work.MOST_STEPS):
        seen = await observe(key, lane, side, tools)
        if seen is None:
            return GroupTurn(None)
        if seen.request.together and _by_barrier(seen, lane, tools):
            ended = await barrier.turn(key, lane, side, tools)
            return GroupTurn(ended.seconds, ended.request, ended.status, ended.wake)
        step = group.decide(seen, tools.clock.now())
        if isinstance(step, act.Wait | act.Rest):
            status = group.project(seen, step)
            await side.requests.publish(seen.request, status)
            seconds = step.seconds if isinstance(step, act.Wait) else None
            return GroupTurn(seconds, seen.request, status, wake)
        if isinstance(step, act.Erase):
            tools.on_step(key, step)
        held = await perform(seen, step, lane, tools)
        wake = tuple(one.key for one in seen.request.together)
        if held is not None:
            return await _told_held(held, seen, side)
    return GroupTurn(0.0)


def _by_barrier(seen: group.Observed, lane: Lane, tools: Tools) -> bool:
    """Whether the members are cut one by one. One call for all is better, where the driver and its route have it."""
    view = lane.of(tools.plugins).view(seen.request.together[0].driver)
    return core.means_of(seen.request, seen.record, view) is Means.BARRIER


async def _told_held(held: Hold, seen: group.Observed, side: GroupSide) -> GroupTurn:
    """The call has to wait: its owner hears of it where there is something to say."""
    if not held.why:
        return GroupTurn(held.seconds)
    status = group.project(seen, act.Wait(held.seconds, held.reason, held.why))
    await side.requests.publish(seen.request, status)
    return GroupTurn(held.seconds, seen.request, status)


async def observe(key: Key, lane: Lane, side: GroupSide, tools: Tools) -> group.Observed | None:
    """Read the world anew. None when neither request nor record is known."""
    request = await side.requests.observe(key)
    if request is None:
        return None
    busy = next((found for member in request.members if (found := tools.busy(member))), "")
    if busy:
        request = dataclasses.replace(request, in_use=busy)
    record = await side.ledger.load(key)
    going = request.wish is Wish.ABSENT or (record is not None and record.condemned)
    if going and not request.in_use:
        request = dataclasses.replace(request, in_use=await tools.pinned(request.members))
    driver = record.driver if record is not None else request.driver
    writer = "" if key in tools.doubts else tools.writer
    return group.Observed(request, record, lane.of(tools.plugins).view(driver), writer)


async def perform(seen: group.Observed, step: gact.GroupAction, lane: Lane, tools: Tools) -> Hold | None:
    """Carry out one action: one effect, then the record. A Hold when the call may not be made yet."""
    key, side = seen.request.key, _side(lane)
    match step:
        case act.Hold():
            await side.requests.hold(seen.request)
        case act.Release():
            await side.requests.release(seen.request)
        case gact.NoteGroup() | gact.AdoptGroup():
            await side.ledger.save(key, group.begin(seen.request, step, seen.record))
        case act.Condemn():
            await side.ledger.condemn(key, _record(seen))
        case act.Erase(orphan):
            if seen.record is not None:
                await side.ledger.erase(key, seen.record, orphan=orphan)
        case gact.CreateGroup() | gact.InspectGroup() | gact.DeleteGroup():
            return await _call_and_save(step, seen, lane, tools)
        case act.Wait() | act.Rest():
            raise AssertionError("waiting is not performed")
    return None


async def _call_and_save(step: gact.Call, seen: group.Observed, lane: Lane, tools: Tools) -> Hold | None:
    """Between the call and the save, what the call did is known to nobody: the key is in doubt."""
    ready = await _prepare(step, seen, lane, tools)
    if isinstance(ready, Hold):
        return ready
    key = seen.request.key
    tools.doubts.add(key)
    outcome: Outcome[CutGroup | None]
    if isinstance(ready, Ready):
        with tools.admission.inside(ready.passage, tools.clock.now) as told:
            outcome = await _make(step, ready, seen, lane, tools)
            told(outcome)
    else:
        outcome = ready
    folded = group.fold(seen, step, outcome, tools.clock.now())
    if isinstance(ready, Ready) and folded.handle and not _record(seen).handle:
        folded = dataclasses.replace(folded, route=ready.passage.route)
    if folded != seen.record:
        await _side(lane).ledger.save(key, folded)
    tools.doubts.discard(key)
    return None


async def _prepare(step: gact.Call, seen: group.Observed, lane: Lane, tools: Tools) -> Ready | Failed | Hold:
    """All that the call needs, up to the doorkeeper's word. What never leaves this process is refused, not unsure."""
    ref = step.note.secret if isinstance(step, gact.CreateGroup) else step.secret
    try:
        values = await lane.secrets.resolve(ref)
    except BridgeError as error:
        return work.secret_failure(ref, error)
    # Chosen last: while a secret was looked up, another route may have taken over.
    plugin = lane.calls(tools.plugins, seen.plugin.driver)
    if plugin is None:
        return work.refused("PLUGIN_UNHEALTHY", f"no plugin of driver {seen.plugin.driver!r} serves")
    view = lane.of(tools.plugins).view(seen.plugin.driver)
    passage = Passage(seen.request.key, view, plugin.route, _subjects(seen), view.group_settle_seconds)
    held = tools.admission.hold(passage, tools.clock.now())
    return held if held is not None else Ready(plugin, values, passage)


def _subjects(seen: group.Observed) -> tuple[str, ...]:
    source = seen.record.source if seen.record is not None else seen.request.source
    return source.handles if isinstance(source, VolumesSource) else (source.handle,)


async def _make(
    step: gact.Call, ready: Ready, seen: group.Observed, lane: Lane, tools: Tools
) -> Outcome[CutGroup | None]:
    """The plugin call; with the writers of all members held still around it where it may cut. See `work._make`."""
    record = _record(seen)
    may_cut = not record.handle and not record.condemned and seen.request.wish is Wish.PRESENT
    if lane.guard is None or not isinstance(step, gact.CreateGroup) or not may_cut or not seen.request.together:
        return await _send(step, ready)
    found = [await lane.requests.observe(member.key) for member in seen.request.together]

    async def send() -> Outcome[CutGroup | None]:
        plugin = lane.calls(tools.plugins, seen.plugin.driver)
        if plugin is None or plugin.route is not ready.passage.route:
            return work.refused("PLUGIN_UNHEALTHY", f"no plugin of driver {seen.plugin.driver!r} serves any more")
        return await _send(step, dataclasses.replace(ready, plugin=plugin))

    first = bool(seen.writer) and step.note.writer == seen.writer and not step.note.unsure
    requests = [one for one in found if one is not None]
    return await guarded.cut(lane.guard, requests, send, first=first, clock=tools.clock)


async def _send(step: gact.Call, ready: Ready) -> Outcome[CutGroup | None]:
    match step:
        case gact.CreateGroup(note):
            return await ready.plugin.create_group(
                name=note.group_name,
                volume_handles=note.volume_handles,
                parameters=note.parameters,
                secrets=ready.values,
            )
        case gact.InspectGroup(handle, members):
            return await ready.plugin.inspect_group(handle=handle, member_handles=members, secrets=ready.values)
        case gact.DeleteGroup(handle, members):
            return await ready.plugin.delete_group(handle=handle, member_handles=members, secrets=ready.values)


def _record(seen: group.Observed) -> GroupRecord:
    if seen.record is None:
        raise AssertionError("this action needs a record")
    return seen.record


def _side(lane: Lane) -> GroupSide:
    if lane.groups is None:
        raise AssertionError("a group's key came from a cluster without groups")
    return lane.groups
