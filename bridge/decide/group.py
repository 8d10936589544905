"""Group snapshots: observed + instant -> action; action + outcome -> record; record -> status.

The rules are those of `snapshot.py`: a durable note precedes every create; while a note is open nothing is released,
only repeated; nothing is deleted but a handle that the record holds, after its deletion was decided durably. Members
are never deleted one by one: CSI deletes a group as a whole, and only by the full list of its members.
"""

from __future__ import annotations

import dataclasses

from bridge.decide import action as act
from bridge.decide import backoff, gate
from bridge.decide import group_action as gact
from bridge.model.failure import Failure, FailureKind
from bridge.model.group import CutGroup, GroupHandleSource, GroupNote, GroupRecord, GroupRequest, GroupStatus
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import Capability, PluginView
from bridge.model.snapshot import CutSnapshot, DeletionPolicy, SnapshotState, Wish

NEEDED = Capability.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """All that one pass has seen. `writer` is this process's incarnation, for notes."""

    request: GroupRequest
    record: GroupRecord | None
    plugin: PluginView
    writer: str


def decide(seen: Observed, now: float) -> gact.GroupAction:
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
            return act.Rest("gone", "the request is gone; the group is left alone")


def _present(seen: Observed, now: float) -> gact.GroupAction:
    request, record = seen.request, seen.record
    begun = record is not None and (record.note_open or bool(record.handle))
    if request.trouble is not None and not begun:
        return act.Wait(backoff.TROUBLE_SECONDS, request.trouble.code, request.trouble.message, request.trouble)
    if record is not None and record.ready:
        return act.Rest("ready", "the group is ready")
    if not request.held:
        return act.Hold()
    if not begun:
        return _begin(seen, now)
    assert record is not None
    return _through_gate(seen, record, now) or _advance(record)


def _begin(seen: Observed, now: float) -> gact.GroupAction:
    """Nothing is recorded on the backend's side yet: note the intent, or adopt."""
    request, record = seen.request, seen.record
    if isinstance(request.source, GroupHandleSource):
        return gact.AdoptGroup(request.source.handle)
    shut = gate.plugin(seen.plugin, NEEDED, "make group snapshots")
    if shut is not None:
        return _only_waiting(shut)
    if record is not None and gate.is_early(record, seen.plugin, now):
        return gate.wait(record, "the group", now)
    return gact.NoteGroup(
        GroupNote(
            group_name=request.group_name,
            volume_handles=request.source.handles,
            parameters=dict(request.parameters),
            secret=request.secrets.create,
            writer=seen.writer,
        )
    )


def _advance(record: GroupRecord) -> gact.GroupAction:
    """A create is open, or the group is cut and not ready."""
    if not record.handle:
        assert record.note is not None
        return gact.CreateGroup(record.note)
    return _learn_members(record) or gact.InspectGroup(record.handle, record.member_handles, record.secrets.inspect)


def _absent(seen: Observed, now: float) -> gact.GroupAction:
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
        return act.Release() if request.held else act.Rest("retained", "the group is kept on the backend")
    return act.Condemn()


def _finish(seen: Observed, record: GroupRecord, now: float) -> gact.GroupAction:
    """Its deletion is decided: carry it through, whatever the request says now."""
    if seen.request.in_use and not record.deleted:
        return act.Wait(backoff.IN_USE_SECONDS, "in use", seen.request.in_use)
    if record.note_open:
        return _settle_note(seen, record, now)
    if record.deleted or not record.handle or record.policy is DeletionPolicy.RETAIN:
        return act.Erase()
    return (
        _through_gate(seen, record, now)
        or _learn_members(record)
        or gact.DeleteGroup(record.handle, record.member_handles, record.secrets.delete)
    )


def _settle_note(seen: Observed, record: GroupRecord, now: float) -> gact.GroupAction:
    """A create may have taken effect: learn its handle before letting go, or let the owner say otherwise."""
    assert record.note is not None
    if seen.request.abandon:
        volumes = ", ".join(repr(handle) for handle in record.note.volume_handles)
        return act.Erase(orphan=f"group snapshot {record.note.group_name!r} of volumes {volumes}")
    return _through_gate(seen, record, now) or gact.CreateGroup(record.note)


def _learn_members(record: GroupRecord) -> gact.GroupAction | None:
    """A group whose members nobody wrote down can be neither inspected nor deleted: its create tells them again."""
    if record.member_handles:
        return None
    if record.note is not None:
        return gact.CreateGroup(record.note)
    why = f"the members of the group {record.handle!r} are not known, and CSI deletes a group only by all of them"
    hint = "Put the members' handles back into the record"
    failure = Failure(FailureKind.REFUSED, "MEMBERS_UNKNOWN", why, hint)
    return act.Wait(backoff.RETRY_MOST_SECONDS, "MEMBERS_UNKNOWN", why, failure)


def _through_gate(seen: Observed, record: GroupRecord, now: float) -> gact.GroupAction | None:
    """What forbids a plugin call now, or None."""
    shut = gate.plugin(seen.plugin, NEEDED, "make group snapshots")
    if shut is not None:
        return _only_waiting(shut)
    return gate.wait(record, "the group", now) if gate.is_early(record, seen.plugin, now) else None


def _only_waiting(shut: act.Action) -> act.Wait | act.Rest:
    assert isinstance(shut, act.Wait | act.Rest)
    return shut


# -- folding ---------------------------------------------------------------------------------------------------


def begin(request: GroupRequest, step: gact.NoteGroup | gact.AdoptGroup, record: GroupRecord | None) -> GroupRecord:
    """The record that this step writes before anything happens on the backend."""
    fresh = record or GroupRecord(
        driver=request.driver,
        source=request.source,
        group_name=request.group_name,
        policy=request.policy,
        secrets=request.secrets,
    )
    match step:
        case gact.NoteGroup(note):
            return dataclasses.replace(fresh, note=note, note_open=True, failure=None)
        case gact.AdoptGroup(handle):
            return dataclasses.replace(fresh, handle=handle)


def fold(seen: Observed, step: gact.Call, outcome: Outcome[CutGroup | None], now: float) -> GroupRecord:
    """The record after a plugin call. Whoever saves it compares with the old one and skips equal ones."""
    record = seen.record
    assert record is not None
    match outcome:
        case Failed(failure):
            return _fold_failure(seen, record, step, failure, now)
        case Done(None):
            return dataclasses.replace(record, deleted=True, failure=None, failures=0, retry_at=0.0)
        case Done(CutGroup() as cut):
            wrong = _another_group(record, cut)
            if wrong is not None:
                return _fold_failure(seen, record, step, wrong, now)
            return _fold_cut(seen.plugin, record, cut, now)
    raise AssertionError("an outcome is Done or Failed")


def _fold_cut(plugin: PluginView, record: GroupRecord, cut: CutGroup, now: float) -> GroupRecord:
    ready = cut.ready and all(member.ready for member in cut.members)
    polls = 0 if ready else record.polls + 1
    delay = backoff.poll_delay(polls, plugin.poll_first_seconds, plugin.poll_most_seconds)
    return dataclasses.replace(
        record,
        handle=cut.handle,
        members=_merged(record.members, cut.members),
        ready=ready,
        cut_at_ns=cut.cut_at_ns if cut.cut_at_ns is not None else record.cut_at_ns,
        note_open=False,
        failure=None,
        failures=0,
        polls=polls,
        retry_at=0.0 if ready else now + delay,
    )


def _merged(known: tuple[CutSnapshot, ...], told: tuple[CutSnapshot, ...]) -> tuple[CutSnapshot, ...]:
    """The members in an order of their own that no answer changes, with what an answer leaves out kept."""
    before = {member.handle: member for member in known}
    return tuple(
        _with_known(member, before.get(member.handle))
        for member in sorted(told, key=lambda one: (one.source_handle, one.handle))
    )


def _with_known(member: CutSnapshot, before: CutSnapshot | None) -> CutSnapshot:
    if before is None:
        return member
    return dataclasses.replace(
        member,
        size_bytes=member.size_bytes if member.size_bytes is not None else before.size_bytes,
        cut_at_ns=member.cut_at_ns if member.cut_at_ns is not None else before.cut_at_ns,
    )


def _another_group(record: GroupRecord, cut: CutGroup) -> Failure | None:
    """A repeat that answers with another group or other members: ours is kept, the other is named for people."""
    if not record.handle:
        return None
    hint = "Look at both on the backend; the second one is not ours to delete"
    if cut.handle != record.handle:
        message = f"asked again about the group {record.handle!r}, the plugin answered with {cut.handle!r}"
        return Failure(FailureKind.UNSURE, "WRONG_SNAPSHOT", message, hint)
    ours, theirs = set(record.member_handles), {member.handle for member in cut.members}
    if ours and ours != theirs:
        message = f"the members of the group {record.handle!r} were {sorted(ours)} and are now {sorted(theirs)}"
        return Failure(FailureKind.UNSURE, "WRONG_MEMBERS", message, hint)
    return None


def _fold_failure(seen: Observed, record: GroupRecord, step: gact.Call, failure: Failure, now: float) -> GroupRecord:
    failures = record.failures + 1
    delay = backoff.retry_delay(failures, seen.plugin.retry_first_seconds, seen.plugin.retry_most_seconds)
    after = dataclasses.replace(record, failure=failure, failures=failures, retry_at=now + delay)
    if not isinstance(step, gact.CreateGroup) or not record.note_open or record.note is None:
        return after
    ours = bool(seen.writer) and record.note.writer == seen.writer  # a key in doubt has no writer
    if failure.kind is FailureKind.UNSURE or not ours:
        return dataclasses.replace(after, note=dataclasses.replace(record.note, unsure=True))
    if record.note.unsure:
        return after
    # This process wrote the note and every call under it was refused: nothing can be on the backend.
    return dataclasses.replace(after, note=None, note_open=False)


# -- telling ---------------------------------------------------------------------------------------------------


def project(seen: Observed, step: act.Wait | act.Rest) -> GroupStatus:
    """What is told when the pass comes to rest with `step`."""
    record, request = seen.record, seen.request
    state = _state(request, record, step.failure)
    if record is None:
        return GroupStatus(state=state, failure=step.failure, reason=step.reason, message=step.why)
    return GroupStatus(
        state=state,
        ready=record.ready and state is not SnapshotState.DELETING,
        handle="" if record.deleted else record.handle,
        members=() if record.deleted else record.members,
        cut_at_ns=record.cut_at_ns,
        failure=step.failure or record.failure,
        reason=step.reason,
        message=step.why,
        means=record.means,
        skew_seconds=0.0 if record.handle and not record.deleted else None,
        skew_exact=True,
        route=record.route,
    )


def _state(request: GroupRequest, record: GroupRecord | None, failure: Failure | None) -> SnapshotState:
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
