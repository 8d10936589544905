"""Content objects and records, in both directions."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from adapters.kubernetes import names, shape
from adapters.kubernetes.facts import Facts
from bridge.model.failure import Failure, FailureKind
from bridge.model.secret import SecretRef, SnapshotSecrets
from bridge.model.snapshot import DeletionPolicy, HandleSource, Note, Record, VolumeSource
from tests.unit.kubernetes import objects as o

NOTE = Note("snapshot-6f1c", "vol-1", {"tier": "gold"}, SecretRef("k8s", "n/s"), "writer-1")
REFUSED = Failure(FailureKind.REFUSED, "INVALID_ARGUMENT", "no such pool")


def facts(content: dict[str, Any] | None = None, **given: Any) -> Facts:
    usual: dict[str, Any] = {
        "uid": o.UID,
        "snapshot": o.snapshot(),
        "content": content,
        "volume": o.volume(),
        "class_name": "plain",
        "klass": o.klass(parameters={"tier": "silver"}),
    }
    return Facts(**{**usual, **given})


def fresh(**changes: Any) -> Record:
    record = Record(
        driver=o.DRIVER,
        source=VolumeSource("vol-1"),
        snapshot_name="snapshot-6f1c",
        policy=DeletionPolicy.DELETE,
        secrets=SnapshotSecrets(SecretRef("k8s", "n/s"), SecretRef("k8s", "n/s"), SecretRef("k8s", "n/list")),
        note=NOTE,
        note_open=True,
    )
    return dataclasses.replace(record, **changes)


def read(content: dict[str, Any], memory: shape.Memory | None = None, **given: Any) -> Record:
    content["metadata"].setdefault("resourceVersion", "20")
    return shape.record_of(facts(content, **given), content, memory)


def test_one_create_carries_everything_and_is_read_back_whole() -> None:
    made = shape.new_content(fresh(), facts())
    assert made["metadata"]["name"] == "snapcontent-6f1c"
    assert made["metadata"]["finalizers"] == [names.CONTENT_FINALIZER]
    notes = made["metadata"]["annotations"]
    assert notes[names.BEING_CREATED] == "yes", "whoever is started in our place must see it"
    assert notes[names.DELETION_SECRET_NAME] == "s"
    assert notes[names.DELETION_SECRET_NAMESPACE] == "n"
    assert made["spec"]["volumeSnapshotRef"]["uid"] == o.UID
    assert made["spec"]["volumeSnapshotClassName"] == "plain"
    assert made["spec"]["sourceVolumeMode"] == "Filesystem"
    assert "resourceVersion" not in made["metadata"]
    assert read(made, klass=None) == fresh(version="20")


def test_the_note_holds_references_and_no_more_than_a_repeat_needs() -> None:
    made = shape.new_content(fresh(), facts())
    assert json.loads(made["metadata"]["annotations"][names.INTENT]) == {
        "name": "snapshot-6f1c",
        "volume": "vol-1",
        "parameters": {"tier": "gold"},
        "secret": "k8s:n/s",
        "inspectSecret": "k8s:n/list",
        "writer": "writer-1",
    }


def test_upstreams_mark_alone_is_an_unsure_note_of_nobody() -> None:
    content = o.content(
        metadata__annotations={
            names.BEING_CREATED: "yes",
            names.DELETION_SECRET_NAME: "s",
            names.DELETION_SECRET_NAMESPACE: "n",
        }
    )
    record = read(content)
    assert record.note_open
    assert record.note == Note(
        "snapshot-6f1c", "vol-1", {"tier": "silver"}, SecretRef("k8s", "n/s"), writer="", unsure=True
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "", "volume": "v"}'])
def test_a_spoilt_note_falls_back_to_upstreams_mark(text: str) -> None:
    record = read(o.content(metadata__annotations={names.BEING_CREATED: "yes", names.INTENT: text}))
    assert record.note_open
    assert record.note is not None
    assert record.note.writer == ""
    assert record.note.unsure


def test_a_content_that_nobody_began_has_no_note() -> None:
    record = read(o.content())
    assert record.note is None
    assert not record.note_open
    assert not record.handle


def test_a_known_handle_settles_the_note_whatever_marks_are_left() -> None:
    content = o.content(
        metadata__annotations={names.BEING_CREATED: "yes"}, status={"snapshotHandle": "s-1", "readyToUse": True}
    )
    record = read(content)
    assert (record.handle, record.ready, record.note_open) == ("s-1", True, False)


def test_ready_without_a_handle_is_not_ready() -> None:
    assert not read(o.content(status={"readyToUse": True})).ready


UNBOUND = {
    "spec__source": {"snapshotHandle": "s-9"},
    "spec__volumeSnapshotRef": {"namespace": "apps", "name": "one"},
}


def test_a_pre_provisioned_content_knows_its_handle() -> None:
    bound = o.content(spec__source={"snapshotHandle": "s-9"})
    assert read(bound).handle == "s-9"
    assert read(bound).source == HandleSource("s-9")
    assert read(o.content(**UNBOUND), snapshot=None).handle == "s-9", "it is to be looked up"


def test_an_unbound_content_that_goes_knows_only_the_handle_that_a_look_has_confirmed() -> None:
    going = {**UNBOUND, "metadata__deletionTimestamp": "t"}
    assert read(o.content(**going), snapshot=None).handle == ""
    confirmed = o.content(**going, status={"snapshotHandle": "s-9", "readyToUse": True})
    assert read(confirmed, snapshot=None).handle == "s-9"


def test_a_handle_that_was_not_found_is_not_told_of_an_unbound_content() -> None:
    content = o.content(**UNBOUND)
    failed = dataclasses.replace(
        read(content, snapshot=None), failure=Failure(FailureKind.REFUSED, "NOT_FOUND", "there is none")
    )
    written = shape.with_status(content, failed, 0.0)
    assert written is not None
    assert "snapshotHandle" not in written["status"]
    assert "there is none" in written["status"]["error"]["message"]


def test_a_content_made_anew_by_handle_does_not_inherit_the_note_of_the_one_that_was_cut() -> None:
    notes = shape.new_content(fresh(), facts())["metadata"]["annotations"]
    assert names.INTENT in notes
    record = read(o.content(**UNBOUND, metadata__annotations=notes), snapshot=None)
    assert record.note is None
    assert not record.note_open
    going = o.content(**UNBOUND, metadata__annotations=notes, metadata__deletionTimestamp="t")
    assert not read(going, snapshot=None).note_open


def test_binding_keeps_what_the_owner_wrote() -> None:
    unbound = o.content(
        metadata__finalizers=["mine/one"],
        spec__source={"snapshotHandle": "s-9"},
        spec__volumeSnapshotRef={"namespace": "apps", "name": "one"},
        spec__volumeSnapshotClassName=None,
    )
    bound = shape.bound_content(unbound, facts())
    assert bound["spec"]["volumeSnapshotRef"]["uid"] == o.UID
    assert bound["spec"]["volumeSnapshotClassName"] == "plain"
    assert bound["metadata"]["finalizers"] == ["mine/one", names.CONTENT_FINALIZER]
    assert unbound["metadata"]["finalizers"] == ["mine/one"]


def test_a_handle_settles_the_note() -> None:
    content = shape.new_content(fresh(), facts())
    assert shape.with_note(content, fresh()) is None
    done = {**content, "status": {"snapshotHandle": "s-1", "readyToUse": True}}
    assert read(content).note_open
    assert not read(done).note_open
    assert read(done).note == NOTE, "a driver that works on the cut is asked again with the same words"


def test_upstreams_mark_goes_with_the_handle_and_takes_the_note_along_once_it_is_ready() -> None:
    content = shape.new_content(fresh(), facts())
    working = shape.with_note(content, fresh(handle="s-1", note_open=False))
    assert working is not None
    assert set(working["metadata"]["annotations"]) & {names.BEING_CREATED, names.INTENT} == {names.INTENT}
    done = shape.with_note(content, fresh(handle="s-1", ready=True, note_open=False))
    assert done is not None
    assert not set(done["metadata"]["annotations"]) & {names.BEING_CREATED, names.INTENT}
    assert shape.with_note(done, fresh(handle="s-1", ready=True, note_open=False)) is None


def test_the_marks_of_a_ready_content_are_taken_off_and_nothing_else() -> None:
    content = shape.new_content(fresh(), facts())
    tidied = shape.tidied(content)
    assert tidied is not None
    gone = set(content["metadata"]["annotations"]) - set(tidied["metadata"]["annotations"])
    assert gone == {names.BEING_CREATED, names.INTENT}
    assert shape.tidied(tidied) is None


def test_a_refused_create_takes_the_note_off_at_once() -> None:
    content = shape.new_content(fresh(), facts())
    closed = shape.with_note(content, fresh(note=None, note_open=False, failure=REFUSED))
    assert closed is not None
    assert names.INTENT not in closed["metadata"]["annotations"]
    assert not read(closed).note_open


@pytest.mark.parametrize(
    ("status", "is_open"),
    [
        (None, True),
        ({"readyToUse": False, "error": {"message": "lost"}}, True),
        ({"snapshotHandle": "s-1", "readyToUse": False}, False),
        ({}, False),
    ],
    ids=["nothing known", "an unsure call", "cut", "deleted and emptied by upstream"],
)
def test_a_note_is_open_until_a_handle_was_known(status: dict[str, Any] | None, is_open: bool) -> None:
    content = shape.new_content(fresh(), facts())
    if status == {}:
        # Upstream's sidecar deletes only what carries its mark no more.
        del content["metadata"]["annotations"][names.BEING_CREATED]
    record = read(content if status is None else {**content, "status": status})
    assert record.note_open is is_open


def test_a_note_that_was_copied_to_a_pre_provisioned_content_says_nothing() -> None:
    made = shape.new_content(fresh(), facts())
    copied = o.content(metadata__annotations=made["metadata"]["annotations"], spec__source={"snapshotHandle": "s-9"})
    assert not shape.may_be_under_way(copied)
    assert not read(copied).note_open


def test_opening_a_note_on_somebody_elses_content_also_holds_it() -> None:
    noted = shape.with_note(o.content(metadata__finalizers=[]), fresh())
    assert noted is not None
    assert noted["metadata"]["finalizers"] == [names.CONTENT_FINALIZER]


def test_the_same_failure_is_written_once_and_goes_with_the_success() -> None:
    content = o.content()
    failed = shape.with_status(content, fresh(failure=REFUSED), 1_000_000_000.0)
    assert failed is not None
    assert failed["status"] == {
        "readyToUse": False,
        "error": {
            "message": "Failed to create snapshot: no such pool (INVALID_ARGUMENT)",
            "time": "2001-09-09T01:46:40Z",
        },
    }
    assert shape.with_status(failed, fresh(failure=REFUSED, failures=2), 1_000_000_009.0) is None
    assert shape.with_status(failed, fresh(), 1_000_000_009.0) is None, "a retry clears nothing"
    done = shape.with_status(
        failed, fresh(handle="s-1", ready=True, note_open=False, size_bytes=10, cut_at_ns=7), 1_000_000_009.0
    )
    assert done is not None
    assert done["status"] == {"snapshotHandle": "s-1", "readyToUse": True, "creationTime": 7, "restoreSize": 10}


def test_a_failure_read_back_is_not_told_twice_over() -> None:
    failed = shape.with_status(o.content(), fresh(failure=REFUSED), 1.0)
    assert failed is not None
    record = read(failed)
    assert record.failure is not None
    assert record.failure.kind is FailureKind.UNSURE
    assert shape.with_status(failed, record, 2.0) is None


def test_memory_keeps_what_no_object_does() -> None:
    record = fresh(failure=REFUSED, failures=3, retry_at=9.0, polls=2, condemned=True)
    memory = shape.remember(dataclasses.replace(record, note=dataclasses.replace(NOTE, unsure=True)))
    back = read(shape.new_content(fresh(), facts()), memory)
    assert (back.failure, back.failures, back.retry_at, back.polls) == (REFUSED, 3, 9.0, 2)
    assert back.condemned
    assert back.note is not None
    assert back.note.unsure


ALONE = [
    ("imported", {}, False),
    ("being deleted, by hand", {"metadata__deletionTimestamp": "t"}, False),
    (
        "being deleted, its snapshot was",
        {"metadata__deletionTimestamp": "t", "metadata__annotations": {names.BEING_DELETED: "yes"}},
        True,
    ),
    ("kept data, being deleted", {"metadata__deletionTimestamp": "t", "spec__deletionPolicy": "Retain"}, True),
    ("marked only", {"metadata__annotations": {names.BEING_DELETED: "yes"}}, False),
    (
        "pre-provisioned, never bound, being deleted",
        {
            "metadata__deletionTimestamp": "t",
            "spec__source": {"snapshotHandle": "s"},
            "spec__volumeSnapshotRef": {"namespace": "apps", "name": "one"},
        },
        True,
    ),
]


@pytest.mark.parametrize(("changes", "result"), [row[1:] for row in ALONE], ids=[row[0] for row in ALONE])
def test_a_content_without_its_snapshot_is_deleted_only_if_it_says_so(changes: dict[str, Any], result: bool) -> None:
    assert shape.may_delete_alone(o.content(**changes)) is result
