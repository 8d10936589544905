"""The deciding table, row by row, in a notation that reads as a sentence.

`seen("present held open")` is a wanted, held request whose record has an open note. The words are below.
"""

from __future__ import annotations

import dataclasses

import pytest

from bridge.decide import action as act
from bridge.decide import snapshot
from bridge.model.failure import Failure, FailureKind
from bridge.model.keys import snapshot_key
from bridge.model.outcome import Done, Failed
from bridge.model.plugin import Capability, PluginView
from bridge.model.snapshot import (
    CutSnapshot,
    DeletionPolicy,
    HandleSource,
    Note,
    Record,
    SnapshotRequest,
    SnapshotState,
    VolumeSource,
    Wish,
)

NOW = 1000.0
NOTE = Note("snapshot-u", "v", {"a": "b"}, writer="me")
REFUSED = Failure(FailureKind.REFUSED, "INVALID_ARGUMENT", "no")
UNSURE = Failure(FailureKind.UNSURE, "INTERNAL", "lost")

REQUEST_WORDS: dict[str, dict[str, object]] = {
    "present": {"wish": Wish.PRESENT},
    "absent": {"wish": Wish.ABSENT},
    "gone": {"wish": Wish.GONE},
    "held": {"held": True},
    "unheld": {"held": False},
    "retain": {"policy": DeletionPolicy.RETAIN},
    "used": {"in_use": "claim web/data restores from it"},
    "troubled": {"trouble": Failure(FailureKind.REFUSED, "GetSnapshotClassFailed", "no such class")},
    "adopting": {"source": HandleSource("h9")},
    "abandoned": {"abandon": True},
}
RECORD_WORDS: dict[str, dict[str, object]] = {
    "blank": {},
    "open": {"note": NOTE, "note_open": True},
    "cut": {"note": NOTE, "handle": "h1"},
    "adopted": {"handle": "h9", "source": HandleSource("h9")},
    "ready": {"note": NOTE, "handle": "h1", "ready": True},
    "condemned": {"condemned": True},
    "kept": {"policy": DeletionPolicy.RETAIN},
    "deleted": {"deleted": True},
    "late": {"retry_at": NOW + 7, "failure": UNSURE, "failures": 3},
}
PLUGIN_WORDS: dict[str, dict[str, object]] = {
    "unknown-plugin": {"known": False},
    "expected-plugin": {"known": False, "healthy": False, "expected": True, "sentence": "on its way"},
    "sick-plugin": {"healthy": False, "sentence": "connection refused"},
    "dumb-plugin": {"capabilities": frozenset()},
    "getting-plugin": {"capabilities": frozenset({Capability.CREATE_DELETE_SNAPSHOT, Capability.GET_SNAPSHOT})},
    "listing-plugin": {"capabilities": frozenset({Capability.CREATE_DELETE_SNAPSHOT, Capability.LIST_SNAPSHOTS})},
}


def seen(words: str) -> snapshot.Observed:
    """The observed state that these words name. A word that is none is a mistake in the test."""
    request = SnapshotRequest(snapshot_key("c", "u"), Wish.PRESENT, "ns", "n", "d", VolumeSource("v"), "snapshot-u")
    record: Record | None = None
    plugin = PluginView("d", True, True, frozenset({Capability.CREATE_DELETE_SNAPSHOT}))
    for word in words.split():
        if word in REQUEST_WORDS:
            request = dataclasses.replace(request, **REQUEST_WORDS[word])  # type: ignore[arg-type]
        elif word in RECORD_WORDS:
            record = record or Record("d", VolumeSource("v"), "snapshot-u", DeletionPolicy.DELETE)
            record = dataclasses.replace(record, **RECORD_WORDS[word])  # type: ignore[arg-type]
        else:
            plugin = dataclasses.replace(plugin, **PLUGIN_WORDS[word])  # type: ignore[arg-type]
    return snapshot.Observed(request, record, plugin, "me")


ROWS: list[tuple[str, type, str]] = [
    ("present troubled unheld", act.Wait, "GetSnapshotClassFailed"),
    ("present troubled open", act.Create, ""),
    ("present troubled ready", act.Rest, "ready"),
    ("present ready", act.Rest, "ready"),
    ("present ready unheld", act.Rest, "ready"),
    ("present unheld", act.Hold, ""),
    ("present unheld open", act.Hold, ""),
    ("present adopting", act.Adopt, ""),
    ("present", act.NoteIntent, ""),
    ("present blank late", act.Wait, "INTERNAL"),
    ("present unknown-plugin", act.Wait, "UNKNOWN_DRIVER"),
    ("present expected-plugin", act.Wait, "PLUGIN_UNHEALTHY"),
    ("present sick-plugin", act.Wait, "PLUGIN_UNHEALTHY"),
    ("present dumb-plugin", act.Rest, "UNSUPPORTED"),
    ("present open", act.Create, ""),
    ("present open late", act.Wait, "INTERNAL"),
    ("present open sick-plugin", act.Wait, "PLUGIN_UNHEALTHY"),
    ("present cut", act.Create, ""),
    ("present cut listing-plugin", act.Create, ""),
    ("present cut getting-plugin", act.Inspect, ""),
    ("present adopted", act.Inspect, ""),
    ("present adopted listing-plugin", act.Inspect, ""),
    ("absent", act.Release, ""),
    ("absent unheld", act.Rest, "released"),
    ("absent used ready", act.Wait, "in use"),
    ("absent used open", act.Wait, "in use"),
    ("absent open", act.Create, ""),
    ("absent open retain", act.Create, ""),
    ("absent open abandoned", act.Erase, ""),
    ("absent open late", act.Wait, "INTERNAL"),
    ("absent blank", act.Erase, ""),
    ("absent blank retain", act.Erase, ""),
    ("absent ready retain", act.Release, ""),
    ("absent ready retain unheld", act.Rest, "retained"),
    ("absent ready", act.Condemn, ""),
    ("absent cut", act.Condemn, ""),
    ("absent ready condemned", act.Delete, ""),
    ("absent ready condemned late", act.Wait, "INTERNAL"),
    ("absent ready condemned kept", act.Erase, ""),
    ("absent ready condemned deleted", act.Erase, ""),
    ("absent used ready condemned", act.Wait, "in use"),
    ("absent used ready condemned deleted", act.Erase, ""),
    ("absent open condemned", act.Create, ""),
    ("gone", act.Rest, "gone"),
    ("gone ready", act.Rest, "gone"),
    ("gone open", act.Rest, "gone"),
    ("gone ready condemned", act.Delete, ""),
    ("gone ready condemned kept", act.Erase, ""),
    ("present ready condemned", act.Delete, ""),
]


@pytest.mark.parametrize(("words", "action", "reason"), ROWS, ids=[row[0].replace(" ", "-") for row in ROWS])
def test_row(words: str, action: type, reason: str) -> None:
    step = snapshot.decide(seen(words), NOW)
    assert type(step) is action, step
    assert getattr(step, "reason", "") == reason


def test_a_plugin_that_can_neither_get_nor_list_is_believed() -> None:
    step = snapshot.decide(seen("present adopted"), NOW)
    assert isinstance(step, act.Inspect)
    assert step.assume_ready
    step = snapshot.decide(seen("present adopted listing-plugin"), NOW)
    assert isinstance(step, act.Inspect)
    assert not step.assume_ready


def test_an_abandoned_note_names_what_may_be_left() -> None:
    step = snapshot.decide(seen("absent open abandoned"), NOW)
    assert isinstance(step, act.Erase)
    assert "snapshot-u" in step.orphan
    assert "'v'" in step.orphan


def test_the_wait_of_a_back_off_is_what_is_left_of_it() -> None:
    step = snapshot.decide(seen("present open late"), NOW)
    assert isinstance(step, act.Wait)
    assert step.seconds == 7.0


@pytest.mark.parametrize("words", ["present open late", "absent ready condemned late"])
def test_a_clock_that_was_set_back_holds_nothing_up(words: str) -> None:
    state = seen(words)
    assert state.record is not None
    far = dataclasses.replace(state, record=dataclasses.replace(state.record, retry_at=NOW + 301.0))
    assert isinstance(snapshot.decide(far, NOW), act.Create | act.Delete)
    near = dataclasses.replace(state, record=dataclasses.replace(state.record, retry_at=NOW + 300.0))
    assert isinstance(snapshot.decide(near, NOW), act.Wait)


FOLDS = [
    ("open, refused, our own note", "open", "me", REFUSED, False, False),
    ("open, unsure", "open", "me", UNSURE, True, True),
    ("open, refused, another's note", "open", "other", REFUSED, True, True),
    ("open, refused after unsure", "unsure", "me", REFUSED, True, True),
]


@pytest.mark.parametrize(("title", "note", "writer", "failure", "stays", "unsure"), FOLDS, ids=[f[0] for f in FOLDS])
def test_a_refusal_closes_only_a_note_that_is_wholly_ours(
    title: str, note: str, writer: str, failure: Failure, stays: bool, unsure: bool
) -> None:
    state = seen("present open")
    assert state.record is not None
    marked = dataclasses.replace(NOTE, writer=writer, unsure=note == "unsure")
    state = dataclasses.replace(state, record=dataclasses.replace(state.record, note=marked))
    record = snapshot.fold(state, act.Create(marked), Failed(failure), NOW)
    assert record.note_open is stays
    assert (record.note is not None and record.note.unsure) is unsure
    assert record.failures == 1
    assert record.retry_at == NOW + 1


def test_the_pauses_after_failures_are_the_plugins() -> None:
    state = seen("present open")
    assert state.record is not None
    plugin = dataclasses.replace(state.plugin, retry_first_seconds=0.5, retry_most_seconds=1.5)
    pauses = []
    for failures in range(4):
        failed = dataclasses.replace(state.record, failures=failures)
        record = snapshot.fold(
            dataclasses.replace(state, record=failed, plugin=plugin), act.Create(NOTE), Failed(UNSURE), NOW
        )
        pauses.append(record.retry_at - NOW)
    assert pauses == [0.5, 1.0, 1.5, 1.5]
    longer = dataclasses.replace(state.record, retry_at=NOW + 400.0)
    patient = dataclasses.replace(plugin, retry_most_seconds=900.0)
    assert isinstance(snapshot.decide(dataclasses.replace(state, record=longer, plugin=patient), NOW), act.Wait)


def test_a_note_that_was_written_in_doubt_is_closed_by_no_refusal() -> None:
    state = dataclasses.replace(seen("present open"), writer="")
    assert state.record is not None
    nobodys = dataclasses.replace(NOTE, writer="")
    state = dataclasses.replace(state, record=dataclasses.replace(state.record, note=nobodys))
    record = snapshot.fold(state, act.Create(nobodys), Failed(REFUSED), NOW)
    assert record.note_open
    assert record.note is not None
    assert record.note.unsure


def test_a_poll_keeps_what_an_answer_leaves_out() -> None:
    state = seen("present cut")
    assert state.record is not None
    known = dataclasses.replace(state, record=dataclasses.replace(state.record, size_bytes=5, cut_at_ns=9))
    record = snapshot.fold(known, act.Create(NOTE), Done(CutSnapshot("h1", "v", False)), NOW)
    assert (record.size_bytes, record.cut_at_ns, record.ready, record.polls) == (5, 9, False, 1)
    assert record.retry_at == pytest.approx(NOW + 0.25)


@pytest.mark.parametrize("ready", [False, True])
def test_a_repeated_create_that_answers_with_another_handle_does_not_replace_ours(ready: bool) -> None:
    """Else the first one would be forgotten, and never deleted."""
    record = snapshot.fold(seen("present cut"), act.Create(NOTE), Done(CutSnapshot("h2", "v", ready)), NOW)
    assert (record.handle, record.ready) == ("h1", False)
    assert record.failure is not None
    assert record.failure.code == "WRONG_SNAPSHOT"
    assert "'h1'" in record.failure.message
    assert "'h2'" in record.failure.message


STATES = [
    ("present unheld", SnapshotState.PENDING),
    ("present troubled", SnapshotState.FAILING),
    ("present open", SnapshotState.CUTTING),
    ("present open late", SnapshotState.FAILING),
    ("present cut", SnapshotState.PROCESSING),
    ("present ready", SnapshotState.READY),
    ("absent ready", SnapshotState.DELETING),
    ("absent ready retain", SnapshotState.RETAINED),
    ("absent unheld", SnapshotState.GONE),
    ("absent used ready", SnapshotState.DELETING),
    ("absent open retain", SnapshotState.DELETING),
]


@pytest.mark.parametrize(("words", "state"), STATES, ids=[row[0].replace(" ", "-") for row in STATES])
def test_the_word_that_is_told(words: str, state: SnapshotState) -> None:
    now = seen(words)
    status = snapshot.project(now, snapshot.decide(now, NOW) if "troubled" in words else act.Rest("", ""))
    assert status.state is state
    assert status.ready is (state in (SnapshotState.READY, SnapshotState.RETAINED))
