"""Several volumes cut together by one call each: observed + instant -> action; record -> status.

Everything is made ready first; then one durable act writes all the notes, and all calls leave together. From then on
each member is a snapshot like any other, with its own note and its own repeats, so a crash leaks and doubles nothing.
The group only watches: all cut and close enough is ready; a member that was refused, or too far apart, fails it for
good. A failed group cuts nothing more; what was cut goes or stays by the deletion policy.
"""

from __future__ import annotations

import dataclasses

from bridge.decide import action as act
from bridge.decide import backoff, gate
from bridge.model.failure import Failure, FailureKind
from bridge.model.group import GroupMember, GroupRecord, GroupRequest, GroupStatus, Means, VolumesSource
from bridge.model.keys import Key
from bridge.model.plugin import Capability, PluginView, Route
from bridge.model.snapshot import (
    CutSnapshot,
    DeletionPolicy,
    Note,
    Record,
    SnapshotState,
    VolumeSource,
    Wish,
)

GROUPS = Capability.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
LOOK_SECONDS = 5.0
"""A member's turn wakes its group; this is for one that was missed."""
_NOT_TOGETHER = frozenset({"FAILED_PRECONDITION", "UNIMPLEMENTED", "UNSUPPORTED"})
"""Refusals of a CSI group that say: these volumes not, or not this driver."""


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One member as it is now. `wish` and `state` are None when its entry is gone."""

    wanted: GroupMember
    plugin: PluginView
    wish: Wish | None
    state: SnapshotState | None
    record: Record | None

    @property
    def handle(self) -> str:
        """Its snapshot on the backend; empty before it is cut."""
        return self.record.handle if self.record is not None else ""

    @property
    def settled(self) -> bool:
        """Nothing of it is left, or what is left was retained."""
        return self.state in (None, SnapshotState.GONE, SnapshotState.RETAINED)


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """All that one pass has seen."""

    request: GroupRequest
    record: GroupRecord | None
    members: tuple[Member, ...]
    writer: str


@dataclasses.dataclass(frozen=True, slots=True)
class CutTogether:
    """Write all notes in one act, then make all calls at once."""

    record: GroupRecord
    notes: tuple[tuple[Key, Record], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Keep:
    """Write down what was found out about the group."""

    record: GroupRecord


@dataclasses.dataclass(frozen=True, slots=True)
class WithdrawMembers:
    """Wish the end of these members."""

    keys: tuple[Key, ...]


BarrierAction = CutTogether | Keep | WithdrawMembers | act.Hold | act.Erase | act.Release | act.Wait | act.Rest


def means_of(request: GroupRequest, record: GroupRecord | None, view: PluginView) -> Means:
    """How this group is cut. What has begun goes on as it began. `view` is the first member's plugin."""
    if record is not None and (record.means is Means.BARRIER or record.note_open or record.handle):
        return record.means
    first = request.together[0]
    alike = all((one.driver, one.secret) == (first.driver, first.secret) for one in request.together)
    direct = view.route in (Route.SOCKET, Route.NODE_AGENT)
    refused = record is not None and record.failure is not None and record.failure.code in _NOT_TOGETHER
    return Means.CSI if alike and direct and view.healthy and view.can(GROUPS) and not refused else Means.BARRIER


def decide(seen: Observed, now: float) -> BarrierAction:
    """The one next step. `now` is seconds since the epoch."""
    match seen.request.wish:
        case Wish.PRESENT:
            return _present(seen, now)
        case Wish.ABSENT:
            return _absent(seen)
        case Wish.GONE:
            return act.Rest("gone", "the request is gone; its members are left alone")


def _present(seen: Observed, now: float) -> BarrierAction:
    record = seen.record
    if record is not None and record.failed:
        return _clean_up(seen, record)
    if record is not None and record.ready:
        return act.Rest("ready", "the group is ready")
    if not seen.request.held:
        return act.Hold()
    withdrawn = [one for one in seen.members if one.wish is not Wish.PRESENT]
    if withdrawn:
        return _fail(seen, "MEMBER_GONE", f"the snapshot of volume {withdrawn[0].wanted.volume!r} was deleted")
    if record is None or not record.released_at:
        return _prepare(seen, now)
    return _watch(seen, record, now)


def _prepare(seen: Observed, now: float) -> BarrierAction:
    """Nothing was called yet: every plugin must be able to begin at this very moment."""
    for one in seen.members:
        shut = gate.plugin(one.plugin, Capability.CREATE_DELETE_SNAPSHOT, "make snapshots")
        if isinstance(shut, act.Rest):
            return _fail(seen, shut.reason, f"volume {one.wanted.volume!r}: {shut.why}")
        if isinstance(shut, act.Wait):
            return dataclasses.replace(shut, why=f"volume {one.wanted.volume!r}: {shut.why}")
    record = seen.record
    put_off = record is not None and record.means is Means.BARRIER  # a refused CSI group's pause is not ours
    if record is not None and put_off and gate.is_early(record, seen.members[0].plugin, now):
        return gate.wait(record, "the group", now)
    begun = dataclasses.replace(begin(seen), released_at=now, failure=None, failures=0, retry_at=0.0)
    notes = tuple((one.wanted.key, _noted(seen, one)) for one in seen.members)
    return CutTogether(begun, notes)


def begin(seen: Observed) -> GroupRecord:
    """The group's record before its first call. What a refused CSI group left behind is turned into a barrier's."""
    return dataclasses.replace(seen.record or _fresh(seen.request), means=Means.BARRIER, note=None, note_open=False)


def _noted(seen: Observed, one: Member) -> Record:
    """The member's record with an open note: what its own first pass would have written."""
    wanted, request = one.wanted, seen.request
    fresh = one.record or Record(
        wanted.driver, VolumeSource(wanted.handle), wanted.snapshot_name, request.policy, request.secrets
    )
    note = Note(
        snapshot_name=wanted.snapshot_name,
        volume_handle=wanted.handle,
        parameters=dict(wanted.parameters),
        secret=wanted.secret,
        writer=seen.writer,
        route=one.plugin.route,
    )
    return dataclasses.replace(fresh, note=note, note_open=True, failure=None)


def _watch(seen: Observed, record: GroupRecord, now: float) -> BarrierAction:
    """The calls are out, or were: the members' own records say what became of them."""
    limit = seen.request.max_skew_seconds
    for one in seen.members:
        if one.handle or (one.record is not None and one.record.note_open):
            continue
        why = str(one.record.failure) if one.record is not None and one.record.failure else "its record is gone"
        return _fail(seen, "MEMBER_REFUSED", f"volume {one.wanted.volume!r} was not cut: {why}")
    uncut = [one for one in seen.members if not one.handle]
    if uncut:
        left = LOOK_SECONDS if limit is None else record.released_at + limit - now
        if left <= 0:
            return _fail(seen, "SKEW", f"volume {uncut[0].wanted.volume!r} was not cut within {limit:g} s")
        failure = uncut[0].record.failure if uncut[0].record is not None else None
        why = f"volume {uncut[0].wanted.volume!r} is not cut yet"
        return act.Wait(min(left, LOOK_SECONDS), "cutting", why, failure)
    skew, exact = skew_of(seen.members, record.released_at)
    measured = dataclasses.replace(record, skew_seconds=skew, skew_exact=exact, cut_at_ns=_first_cut(seen.members))
    if limit is not None and skew > limit:
        how = "were" if exact else "may have been"
        why = f"the volumes {how} cut {skew:.3f} s apart, allowed are {limit:g} s"
        return _fail(dataclasses.replace(seen, record=measured), "SKEW", why)
    if all(one.record is not None and one.record.ready for one in seen.members):
        return Keep(dataclasses.replace(measured, ready=True, failure=None))
    if measured != record:
        return Keep(measured)
    failure = next((one.record.failure for one in seen.members if one.record and one.record.failure), None)
    return act.Wait(LOOK_SECONDS, "not ready yet", "the backend still works on the group", failure)


def skew_of(members: tuple[Member, ...], released_at: float) -> tuple[float, bool]:
    """How far apart the members were cut, in seconds, and whether that is exact.

    Exact where one driver's own clock told every time to better than a second; else the longest that it can have
    been: from the moment before the first call left to the last answer.
    """
    told = [one.record.cut_at_ns for one in members if one.record is not None and one.record.cut_at_ns is not None]
    one_clock = len({one.wanted.driver for one in members}) == 1
    if one_clock and len(told) == len(members) and all(at % 1_000_000_000 for at in told):
        return (max(told) - min(told)) / 1e9, True
    last = max((one.record.cut_by for one in members if one.record is not None), default=released_at)
    return max(last - released_at, 0.0), False


def _first_cut(members: tuple[Member, ...]) -> int | None:
    return min(
        (one.record.cut_at_ns for one in members if one.record and one.record.cut_at_ns is not None), default=None
    )


def _fail(seen: Observed, code: str, why: str) -> Keep:
    """For good: a member that is cut later would not belong to the others."""
    hint = "what was cut of it stays, as its policy says; ask for a new group"
    if seen.request.policy is DeletionPolicy.DELETE:
        hint = "what was cut of it is deleted, as its policy says; ask for a new group"
    failure = Failure(FailureKind.REFUSED, code, why, hint)
    record = dataclasses.replace(seen.record or _fresh(seen.request), means=Means.BARRIER)
    return Keep(dataclasses.replace(record, failed=True, failure=failure, retry_at=0.0))


def _clean_up(seen: Observed, record: GroupRecord) -> BarrierAction:
    """Policy Retain keeps what was cut. What was not cut is withdrawn, so that no late cut is made of it."""
    keep = seen.request.policy is DeletionPolicy.RETAIN
    going = tuple(
        one.wanted.key for one in seen.members if one.wish is Wish.PRESENT and not (keep and bool(one.handle))
    )
    if going and seen.request.in_use:
        return act.Wait(backoff.IN_USE_SECONDS, "in use", seen.request.in_use, record.failure)
    if going:
        return WithdrawMembers(going)
    assert record.failure is not None
    return act.Rest("failed", record.failure.message, record.failure)


def _absent(seen: Observed) -> BarrierAction:
    request, record = seen.request, seen.record
    going = tuple(one.wanted.key for one in seen.members if one.wish is Wish.PRESENT)
    if going and request.in_use:
        return act.Wait(backoff.IN_USE_SECONDS, "in use", request.in_use)
    if going:
        return WithdrawMembers(going)
    left = [one for one in seen.members if not one.settled]
    if left:
        failure = next((one.record.failure for one in left if one.record and one.record.failure), None)
        return act.Wait(LOOK_SECONDS, "members", f"{len(left)} of its snapshots are not gone yet", failure)
    if record is not None and request.policy is DeletionPolicy.DELETE:
        return act.Erase()
    if request.held:
        return act.Release()
    kept = record is not None
    return (
        act.Rest("retained", "its snapshots are kept on the backend")
        if kept
        else act.Rest("released", "nothing is left")
    )


def _fresh(request: GroupRequest) -> GroupRecord:
    return GroupRecord(
        driver=request.driver,
        source=VolumesSource(tuple(one.handle for one in request.together)),
        group_name=request.group_name,
        policy=request.policy,
        secrets=request.secrets,
        means=Means.BARRIER,
    )


# -- telling ---------------------------------------------------------------------------------------------------


def project(seen: Observed, step: act.Wait | act.Rest) -> GroupStatus:
    """What is told when the pass comes to rest with `step`."""
    record = seen.record
    cut = tuple(_cut(one) for one in seen.members if one.handle and not one.settled)
    known = record or _fresh(seen.request)
    return GroupStatus(
        state=_state(seen, step.failure),
        ready=known.ready and seen.request.wish is Wish.PRESENT,
        members=cut,
        cut_at_ns=known.cut_at_ns,
        failure=step.failure or known.failure,
        reason=step.reason,
        message=step.why,
        means=Means.BARRIER if known.released_at else None,
        skew_seconds=known.skew_seconds,
        skew_exact=known.skew_exact,
        failed=known.failed,
        route=next((one.record.route for one in seen.members if one.record is not None and one.record.route), None),
    )


def _cut(one: Member) -> CutSnapshot:
    assert one.record is not None
    record = one.record
    return CutSnapshot(record.handle, one.wanted.handle, record.ready, record.size_bytes, record.cut_at_ns)


def _state(seen: Observed, failure: Failure | None) -> SnapshotState:
    request, record = seen.request, seen.record
    if request.wish is Wish.ABSENT:
        if any(not one.settled for one in seen.members):
            return SnapshotState.DELETING
        kept = record is not None and request.policy is DeletionPolicy.RETAIN
        return SnapshotState.RETAINED if kept else SnapshotState.GONE
    if record is not None and record.ready:
        return SnapshotState.READY
    if failure is not None or (record is not None and record.failure is not None):
        return SnapshotState.FAILING
    if record is None or not record.released_at:
        return SnapshotState.PENDING
    return SnapshotState.PROCESSING if all(one.handle for one in seen.members) else SnapshotState.CUTTING
