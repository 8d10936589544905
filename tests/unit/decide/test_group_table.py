"""The deciding table of groups, row by row, in the notation of `test_snapshot_table.py`."""

from __future__ import annotations

import dataclasses

import pytest

from bridge.decide import action as act
from bridge.decide import group, snapshot
from bridge.decide import group_action as gact
from bridge.model.failure import Failure, FailureKind
from bridge.model.group import CutGroup, GroupHandleSource, GroupNote, GroupRecord, GroupRequest, VolumesSource
from bridge.model.keys import group_key, snapshot_key
from bridge.model.outcome import Done, Failed
from bridge.model.plugin import Capability, PluginView
from bridge.model.snapshot import (
    CutSnapshot,
    DeletionPolicy,
    Record,
    SnapshotRequest,
    SnapshotState,
    VolumeSource,
    Wish,
)

NOW = 1000.0
NOTE = GroupNote("groupsnapshot-u", ("v1", "v2"), {"a": "b"}, writer="me")
MEMBERS = (CutSnapshot("s1", "v1", True, 5, 9, "g1"), CutSnapshot("s2", "v2", True, 6, 9, "g1"))
REFUSED = Failure(FailureKind.REFUSED, "INVALID_ARGUMENT", "no")
UNSURE = Failure(FailureKind.UNSURE, "INTERNAL", "lost")
ABLE = frozenset({Capability.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT})

REQUEST_WORDS: dict[str, dict[str, object]] = {
    "present": {"wish": Wish.PRESENT},
    "absent": {"wish": Wish.ABSENT},
    "gone": {"wish": Wish.GONE},
    "unheld": {"held": False},
    "retain": {"policy": DeletionPolicy.RETAIN},
    "used": {"in_use": "claim web/data restores from a member"},
    "troubled": {"trouble": Failure(FailureKind.REFUSED, "SetDefaultGroupSnapshotClassFailed", "no class")},
    "adopting": {"source": GroupHandleSource("g9", ("s8", "s9"))},
    "abandoned": {"abandon": True},
}
RECORD_WORDS: dict[str, dict[str, object]] = {
    "blank": {},
    "open": {"note": NOTE, "note_open": True},
    "cut": {"note": NOTE, "handle": "g1", "members": MEMBERS},
    "memberless": {"handle": "g1"},
    "noted-memberless": {"note": NOTE, "handle": "g1"},
    "adopted": {"handle": "g9", "source": GroupHandleSource("g9", ("s8", "s9"))},
    "ready": {"note": NOTE, "handle": "g1", "ready": True, "members": MEMBERS},
    "condemned": {"condemned": True},
    "kept": {"policy": DeletionPolicy.RETAIN},
    "deleted": {"deleted": True},
    "late": {"retry_at": NOW + 7, "failure": UNSURE, "failures": 3},
}
PLUGIN_WORDS: dict[str, dict[str, object]] = {
    "unknown-plugin": {"known": False},
    "sick-plugin": {"healthy": False, "sentence": "connection refused"},
    "single-plugin": {"capabilities": frozenset({Capability.CREATE_DELETE_SNAPSHOT})},
}


def seen(words: str) -> group.Observed:
    """The observed state that these words name. A word that is none is a mistake in the test."""
    source = VolumesSource(("v1", "v2"))
    request = GroupRequest(group_key("c", "u"), Wish.PRESENT, "ns", "n", "d", source, "groupsnapshot-u")
    record: GroupRecord | None = None
    plugin = PluginView("d", True, True, ABLE)
    for word in words.split():
        if word in REQUEST_WORDS:
            request = dataclasses.replace(request, **REQUEST_WORDS[word])  # type: ignore[arg-type]
        elif word in RECORD_WORDS:
            record = record or GroupRecord("d", source, "groupsnapshot-u", DeletionPolicy.DELETE)
            record = dataclasses.replace(record, **RECORD_WORDS[word])  # type: ignore[arg-type]
        else:
            plugin = dataclasses.replace(plugin, **PLUGIN_WORDS[word])  # type: ignore[arg-type]
    return group.Observed(request, record, plugin, "me")


ROWS: list[tuple[str, type, str]] = [
    ("present troubled unheld", act.Wait, "SetDefaultGroupSnapshotClassFailed"),
    ("present troubled open", gact.CreateGroup, ""),
    ("present troubled ready", act.Rest, "ready"),
    ("present ready unheld", act.Rest, "ready"),
    ("present unheld", act.Hold, ""),
    ("present unheld open", act.Hold, ""),
    ("present adopting", gact.AdoptGroup, ""),
    ("present", gact.NoteGroup, ""),
    ("present blank late", act.Wait, "INTERNAL"),
    ("present unknown-plugin", act.Wait, "UNKNOWN_DRIVER"),
    ("present sick-plugin", act.Wait, "PLUGIN_UNHEALTHY"),
    ("present single-plugin", act.Rest, "UNSUPPORTED"),
    ("present open", gact.CreateGroup, ""),
    ("present open late", act.Wait, "INTERNAL"),
    ("present open sick-plugin", act.Wait, "PLUGIN_UNHEALTHY"),
    ("present cut", gact.InspectGroup, ""),
    ("present adopted", gact.InspectGroup, ""),
    ("present noted-memberless", gact.CreateGroup, ""),
    ("present memberless", act.Wait, "MEMBERS_UNKNOWN"),
    ("absent", act.Release, ""),
    ("absent unheld", act.Rest, "released"),
    ("absent used ready", act.Wait, "in use"),
    ("absent used open", act.Wait, "in use"),
    ("absent open", gact.CreateGroup, ""),
    ("absent open retain", gact.CreateGroup, ""),
    ("absent open abandoned", act.Erase, ""),
    ("absent open late", act.Wait, "INTERNAL"),
    ("absent blank", act.Erase, ""),
    ("absent ready retain", act.Release, ""),
    ("absent ready retain unheld", act.Rest, "retained"),
    ("absent ready", act.Condemn, ""),
    ("absent cut", act.Condemn, ""),
    ("absent ready condemned", gact.DeleteGroup, ""),
    ("absent ready condemned late", act.Wait, "INTERNAL"),
    ("absent ready condemned kept", act.Erase, ""),
    ("absent ready condemned deleted", act.Erase, ""),
    ("absent used ready condemned", act.Wait, "in use"),
    ("absent used ready condemned deleted", act.Erase, ""),
    ("absent open condemned", gact.CreateGroup, ""),
    ("absent noted-memberless condemned", gact.CreateGroup, ""),
    ("absent memberless condemned", act.Wait, "MEMBERS_UNKNOWN"),
    ("absent adopted condemned", gact.DeleteGroup, ""),
    ("gone", act.Rest, "gone"),
    ("gone ready", act.Rest, "gone"),
    ("gone open", act.Rest, "gone"),
    ("gone ready condemned", gact.DeleteGroup, ""),
    ("gone ready condemned kept", act.Erase, ""),
    ("present ready condemned", gact.DeleteGroup, ""),
]


@pytest.mark.parametrize(("words", "action", "reason"), ROWS, ids=[row[0].replace(" ", "-") for row in ROWS])
def test_row(words: str, action: type, reason: str) -> None:
    step = group.decide(seen(words), NOW)
    assert type(step) is action, step
    assert getattr(step, "reason", "") == reason


def test_a_delete_names_every_member_that_was_written_down() -> None:
    step = group.decide(seen("absent ready condemned"), NOW)
    assert isinstance(step, gact.DeleteGroup)
    assert step.members == ("s1", "s2")
    step = group.decide(seen("absent adopted condemned"), NOW)
    assert isinstance(step, gact.DeleteGroup)
    assert (step.handle, step.members) == ("g9", ("s8", "s9"))


def test_an_abandoned_note_names_what_may_be_left() -> None:
    step = group.decide(seen("absent open abandoned"), NOW)
    assert isinstance(step, act.Erase)
    assert "groupsnapshot-u" in step.orphan
    assert "'v1', 'v2'" in step.orphan


@pytest.mark.parametrize(
    ("writer", "unsure", "failure", "stays"),
    [("me", False, REFUSED, False), ("me", False, UNSURE, True), ("other", False, REFUSED, True),
     ("me", True, REFUSED, True)],
)  # fmt: skip
def test_a_refusal_closes_only_a_note_that_is_wholly_ours(
    writer: str, unsure: bool, failure: Failure, stays: bool
) -> None:
    state = seen("present open")
    assert state.record is not None
    note = dataclasses.replace(NOTE, writer=writer, unsure=unsure)
    state = dataclasses.replace(state, record=dataclasses.replace(state.record, note=note))
    record = group.fold(state, gact.CreateGroup(note), Failed(failure), NOW)
    assert record.note_open is stays
    assert record.retry_at == NOW + 1


def test_a_group_is_ready_only_when_each_member_is() -> None:
    lagging = (MEMBERS[0], dataclasses.replace(MEMBERS[1], ready=False))
    record = group.fold(seen("present open"), gact.CreateGroup(NOTE), Done(CutGroup("g1", lagging, True, 9)), NOW)
    assert (record.handle, record.ready, record.note_open) == ("g1", False, False)
    assert [member.ready for member in record.members] == [True, False]
    state = dataclasses.replace(seen("present"), record=record)
    record = group.fold(state, gact.InspectGroup("g1", (), NOTE.secret), Done(CutGroup("g1", MEMBERS, True)), NOW)
    assert record.ready
    assert all(member.ready for member in record.members)
    assert record.cut_at_ns == 9


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (CutGroup("g2", MEMBERS, True), "WRONG_SNAPSHOT"),
        (CutGroup("g1", MEMBERS[:1], True), "WRONG_MEMBERS"),
        (CutGroup("g1", (*MEMBERS, CutSnapshot("s3", "v3", True, group="g1")), True), "WRONG_MEMBERS"),
    ],
)
def test_an_answer_about_another_group_or_other_members_replaces_nothing(answer: CutGroup, code: str) -> None:
    """Else what was forgotten would never be deleted."""
    record = group.fold(seen("present cut"), gact.InspectGroup("g1", (), NOTE.secret), Done(answer), NOW)
    assert (record.handle, record.members, record.ready) == ("g1", MEMBERS, False)
    assert record.failure is not None
    assert record.failure.code == code


STATES = [
    ("present unheld", SnapshotState.PENDING),
    ("present troubled", SnapshotState.FAILING),
    ("present open", SnapshotState.CUTTING),
    ("present cut", SnapshotState.PROCESSING),
    ("present ready", SnapshotState.READY),
    ("absent ready", SnapshotState.DELETING),
    ("absent ready retain", SnapshotState.RETAINED),
    ("absent unheld", SnapshotState.GONE),
]


@pytest.mark.parametrize(("words", "state"), STATES, ids=[row[0].replace(" ", "-") for row in STATES])
def test_the_word_that_is_told(words: str, state: SnapshotState) -> None:
    now = seen(words)
    step = group.decide(now, NOW) if "troubled" in words else act.Rest("", "")
    assert isinstance(step, act.Wait | act.Rest)
    assert group.project(now, step).state is state


def test_a_member_is_never_deleted_by_itself() -> None:
    """CSI: DeleteSnapshot must not be called for a snapshot that has a group. Its record goes, its data stays."""
    request = SnapshotRequest(snapshot_key("c", "m"), Wish.ABSENT, "ns", "n", "d", VolumeSource("v"), "snapshot-m")
    record = Record("d", VolumeSource("v"), "snapshot-m", DeletionPolicy.DELETE, handle="s1", group="g1")
    plugin = PluginView("d", True, True, frozenset({Capability.CREATE_DELETE_SNAPSHOT}))
    steps = []
    for condemned in (False, True):
        observed = snapshot.Observed(request, dataclasses.replace(record, condemned=condemned), plugin, "me")
        steps.append(type(snapshot.decide(observed, NOW)))
    assert steps == [act.Condemn, act.Erase]


def test_impossible_records_are_refused() -> None:
    with pytest.raises(ValueError, match="open note"):
        GroupRecord("d", VolumesSource(()), "n", DeletionPolicy.DELETE, note_open=True)
    with pytest.raises(ValueError, match="handle"):
        GroupRecord("d", VolumesSource(()), "n", DeletionPolicy.DELETE, ready=True)
