"""Snapshots: observed + instant -> action; action + outcome -> record; record -> status.

The table of DESIGN section 4 in code: ordered early returns, first match wins. Three rules carry the safety:
a durable note precedes every create; while a note is open nothing is released, only repeated; nothing is deleted
but a handle that the record holds, after its deletion was decided durably.
"""

from __future__ import annotations

import dataclasses

from bridge.decide import action as act
from bridge.decide import backoff, gate
from bridge.model.failure import Failure, FailureKind
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import Capability, PluginView, Route
from bridge.model.snapshot import (
    CutSnapshot,
    DeletionPolicy,
    HandleSource,
    Note,
    Record,
    SnapshotRequest,
    SnapshotState,
    SnapshotStatus,
    Wish,
)

LIST_LOOKS = 4
"""Of so many looks at a list, one asks the create instead."""
SOURCE_GONE = "SOURCE_GONE"
"""A repeated create was refused because its volume has gone since the cut: the list alone still knows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """All that one pass has seen. `writer` is this process's incarnation, for notes."""

    request: SnapshotRequest
    record: Record | None
    plugin: PluginView
    writer: str


def decide(seen: Observed, now: float) -> act.Action:
    """The one next step. `now` is seconds since the epoch."""
    request, record = seen.request, seen.record
    if record is not None and record.condemned:
        return _finish(seen, record, now)
    match request.wish:
        case Wish.PRESENT:
            return _present(seen, now)
        case Wish.ABSENT:
            return _absent(seen, now)
        case Wish.GONE:
            return act.Rest("gone", "the request is gone; the snapshot is left alone")


def _present(seen: Observed, now: float) -> act.Action:
    request, record = seen.request, seen.record
    begun = record is not None and (record.note_open or bool(record.handle))
    if request.trouble is not None and not begun:
        return act.Wait(backoff.TROUBLE_SECONDS, request.trouble.code, request.trouble.message, request.trouble)
    if record is not None and record.ready:
        return act.Rest("ready", "the snapshot is ready")
    if request.waits_for:
        return act.Rest("group", request.waits_for)
    if not request.held:
        return act.Hold()
    if not begun:
        return _begin(seen, now)
    assert record is not None
    return _through_gate(seen, record, now) or _advance(seen, record)


def _begin(seen: Observed, now: float) -> act.Action:
    """Nothing is recorded on the backend's side yet: note the intent, or adopt."""
    request, record = seen.request, seen.record
    if isinstance(request.source, HandleSource):
        return act.Adopt(request.source.handle)
    gate = _gate_plugin(seen)
    if gate is not None:
        return gate
    if record is not None and _is_early(seen, record, now):
        return _back_off(record, now)
    return act.NoteIntent(
        Note(
            snapshot_name=request.snapshot_name,
            volume_handle=request.source.handle,
            parameters=dict(request.parameters),
            secret=request.secrets.create,
            writer=seen.writer,
            route=seen.plugin.route,
        )
    )


def _advance(seen: Observed, record: Record) -> act.Action:
    """A create is open, or the snapshot is cut and not ready."""
    if not record.handle:
        assert record.note is not None
        return act.Create(record.note)
    return _look(seen.plugin, record)


def _look(plugin: PluginView, record: Record) -> act.Action:
    """How to learn whether a cut snapshot is ready: GetSnapshot, else ListSnapshots by its id, else the create once
    more under its name, else the whole list (all that an orchestrator's API has), else it is taken as ready."""
    lists = plugin.can(Capability.LIST_SNAPSHOTS)
    inspect = act.Inspect(record.handle, record.secrets.inspect)
    if plugin.can(Capability.GET_SNAPSHOT):
        return inspect
    gone = record.failure is not None and record.failure.code == SOURCE_GONE
    prefers_create = not lists or plugin.route is Route.ORCHESTRATOR or _doubts_list(record)
    if record.note is not None and prefers_create and not (lists and gone):
        return act.Create(record.note)
    return inspect if lists else dataclasses.replace(inspect, assume_ready=True)


def _doubts_list(record: Record) -> bool:
    """A list shows no errors (CSI says so), and may be behind: now and then the create is asked instead."""
    missed = record.failure is not None and record.failure.code == "NOT_FOUND"
    return missed or record.polls % LIST_LOOKS == 0


def _absent(seen: Observed, now: float) -> act.Action:
    request, record = seen.request, seen.record
    if record is None:
        return act.Release() if request.held else act.Rest("released", "nothing is left")
    if request.in_use:
        return act.Wait(backoff.IN_USE_SECONDS, "in use", request.in_use)
    if record.note_open:
        return _settle_note(seen, record, now)
    if not record.handle:
        return act.Erase()
    if request.policy is DeletionPolicy.RETAIN:
        return act.Release() if request.held else act.Rest("retained", "the snapshot is kept on the backend")
    return act.Condemn()


def _finish(seen: Observed, record: Record, now: float) -> act.Action:
    """Its deletion is decided: carry it through, whatever the request says now."""
    if seen.request.in_use and not record.deleted:
        return act.Wait(backoff.IN_USE_SECONDS, "in use", seen.request.in_use)
    if record.note_open:
        return _settle_note(seen, record, now)
    if record.deleted or not record.handle or record.policy is DeletionPolicy.RETAIN:
        return act.Erase()
    if record.group:
        return act.Erase()  # CSI forbids to delete a member: its data goes with its group, and only so.
    return _through_gate(seen, record, now) or act.Delete(record.handle, record.secrets.delete)


def _settle_note(seen: Observed, record: Record, now: float) -> act.Action:
    """A create may have taken effect: learn its handle before letting go, or let the owner say otherwise."""
    assert record.note is not None
    if seen.request.abandon:
        return act.Erase(orphan=f"snapshot {record.note.snapshot_name!r} of volume {record.note.volume_handle!r}")
    return _through_gate(seen, record, now) or act.Create(record.note)


def _through_gate(seen: Observed, record: Record, now: float) -> act.Action | None:
    """What forbids a plugin call now, or None."""
    return _gate_plugin(seen) or (_back_off(record, now) if _is_early(seen, record, now) else None)


def _is_early(seen: Observed, record: Record, now: float) -> bool:
    return gate.is_early(record, seen.plugin, now)


def _gate_plugin(seen: Observed) -> act.Action | None:
    return gate.plugin(seen.plugin, Capability.CREATE_DELETE_SNAPSHOT, "make snapshots")


def _back_off(record: Record, now: float) -> act.Wait:
    return gate.wait(record, "the snapshot", now)


# -- folding ---------------------------------------------------------------------------------------------------


def begin(request: SnapshotRequest, step: act.NoteIntent | act.Adopt, record: Record | None) -> Record:
    """The record that this step writes before anything happens on the backend."""
    fresh = record or Record(
        driver=request.driver,
        source=request.source,
        snapshot_name=request.snapshot_name,
        policy=request.policy,
        secrets=request.secrets,
    )
    match step:
        case act.NoteIntent(note):
            return dataclasses.replace(fresh, note=note, note_open=True, failure=None)
        case act.Adopt(handle):
            return dataclasses.replace(fresh, handle=handle)


def fold(seen: Observed, step: act.Action, outcome: Outcome[CutSnapshot | None], now: float) -> Record:
    """The record after a plugin call. Whoever saves it compares with the old one and skips equal ones."""
    record = seen.record
    assert record is not None
    match outcome:
        case Failed(failure):
            return _fold_failure(seen, record, step, failure, now)
        case Done(None):
            if isinstance(step, act.Delete):
                return dataclasses.replace(record, deleted=True, failure=None, failures=0, retry_at=0.0)
            return dataclasses.replace(record, ready=True, failure=None, failures=0, retry_at=0.0)
        case Done(CutSnapshot() as cut):
            if record.handle and cut.handle != record.handle:
                return _fold_failure(seen, record, step, _another_snapshot(record, cut), now)
            return _fold_cut(seen.plugin, record, cut, now)
    raise AssertionError("an outcome is Done or Failed")


def _fold_cut(plugin: PluginView, record: Record, cut: CutSnapshot, now: float) -> Record:
    polls = 0 if cut.ready else record.polls + 1
    delay = backoff.poll_delay(polls, plugin.poll_first_seconds, plugin.poll_most_seconds)
    return dataclasses.replace(
        record,
        handle=cut.handle,
        ready=cut.ready,
        size_bytes=cut.size_bytes if cut.size_bytes is not None else record.size_bytes,
        cut_at_ns=cut.cut_at_ns if cut.cut_at_ns is not None else record.cut_at_ns,
        group=cut.group or record.group,
        note_open=False,
        failure=None,
        failures=0,
        polls=polls,
        retry_at=0.0 if cut.ready else now + delay,
        cut_by=record.cut_by or now,
    )


def _another_snapshot(record: Record, cut: CutSnapshot) -> Failure:
    """A repeated create that answers with another handle: ours is kept, the other one is named for people."""
    message = (
        f"asked again about the snapshot {record.handle!r}, the plugin answered with another one, {cut.handle!r}"
    )
    hint = "Look at both on the backend; the second one is not ours to delete"
    return Failure(FailureKind.UNSURE, "WRONG_SNAPSHOT", message, hint)


def _fold_failure(seen: Observed, record: Record, step: act.Action, failure: Failure, now: float) -> Record:
    failures, polls, plugin = record.failures + 1, record.polls, seen.plugin
    if record.handle and isinstance(step, act.Create) and failure.code == "NOT_FOUND":
        failure = dataclasses.replace(failure, code=SOURCE_GONE)
    delay = backoff.retry_delay(failures, plugin.retry_first_seconds, plugin.retry_most_seconds)
    if record.handle and not isinstance(step, act.Delete) and _is_only_a_look(failure):
        # The snapshot is cut: to look again soon costs little, and a back-off would tell people too late.
        polls += 1
        delay = backoff.poll_delay(polls, plugin.poll_first_seconds, plugin.poll_most_seconds)
    after = dataclasses.replace(record, failure=failure, failures=failures, polls=polls, retry_at=now + delay)
    if not isinstance(step, act.Create) or not record.note_open or record.note is None:
        return after
    ours = bool(seen.writer) and record.note.writer == seen.writer  # a key in doubt has no writer
    if failure.kind is FailureKind.UNSURE or not ours:
        return dataclasses.replace(after, note=dataclasses.replace(record.note, unsure=True))
    if record.note.unsure:
        return after
    # This process wrote the note and every call under it was refused: nothing can be on the backend.
    return dataclasses.replace(after, note=None, note_open=False)


def _is_only_a_look(failure: Failure) -> bool:
    return failure.kind is FailureKind.UNSURE and failure.code not in ("WRONG_SNAPSHOT", "WRONG_SOURCE")


# -- telling ---------------------------------------------------------------------------------------------------


def project(seen: Observed, step: act.Action) -> SnapshotStatus:
    """What is told when the pass comes to rest with `step`."""
    record, request = seen.record, seen.request
    failure = step.failure if isinstance(step, act.Wait | act.Rest) else None
    reason = step.reason if isinstance(step, act.Wait | act.Rest) else ""
    why = step.why if isinstance(step, act.Wait | act.Rest) else ""
    state = _state(request, record, failure)
    if record is None:
        return SnapshotStatus(state=state, failure=failure, reason=reason, message=why)
    return SnapshotStatus(
        state=state,
        ready=record.ready and state is not SnapshotState.DELETING,
        handle="" if record.deleted else record.handle,
        size_bytes=record.size_bytes,
        cut_at_ns=record.cut_at_ns,
        failure=failure or record.failure,
        reason=reason,
        message=why,
        route=record.route,
    )


def _state(request: SnapshotRequest, record: Record | None, failure: Failure | None) -> SnapshotState:
    if request.wish is Wish.ABSENT or (record is not None and record.condemned):
        if record is None:
            return SnapshotState.GONE
        kept = request.policy is DeletionPolicy.RETAIN and not record.note_open and not record.condemned
        return SnapshotState.RETAINED if kept and not request.in_use else SnapshotState.DELETING
    if record is not None and record.ready:
        return SnapshotState.READY
    if failure is not None or (record is not None and record.failure is not None):
        return SnapshotState.FAILING
    if record is None:
        return SnapshotState.PENDING
    return SnapshotState.PROCESSING if record.handle else SnapshotState.CUTTING
