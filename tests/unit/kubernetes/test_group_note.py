"""The note of a group's create: it is open until the backend's answer is known, whoever took which mark off."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names as single
from adapters.kubernetes.groups import names, shape
from adapters.kubernetes.groups.facts import GroupFacts
from bridge.model.group import GroupNote, GroupRecord, VolumesSource
from bridge.model.secret import NO_SECRET
from bridge.model.snapshot import DeletionPolicy

Object = dict[str, Any]
NOTE = GroupNote("groupsnapshot-u1", ("v1", "v2"), {"colour": "blue"}, NO_SECRET, "writer-1")
ERROR = {"error": {"message": "INTERNAL"}, "readyToUse": False}


def content(*, without: tuple[str, ...] = (), by_handle: bool = False, **status: Any) -> Object:
    """A dynamic group's content with the note open, without some of its marks."""
    source = VolumesSource(("v1", "v2"))
    record = GroupRecord("d", source, "groupsnapshot-u1", DeletionPolicy.DELETE, note=NOTE, note_open=True)
    handles = {"volumeGroupSnapshotHandle": "g-1", "volumeSnapshotHandles": ["s-1"]}
    bare: Object = {
        "metadata": {"name": "groupsnapcontent-u1", "uid": "c1", "resourceVersion": "1"},
        "spec": {
            "driver": "d",
            "deletionPolicy": "Delete",
            "source": {"groupSnapshotHandles": handles} if by_handle else {"volumeHandles": ["v1", "v2"]},
            "volumeGroupSnapshotRef": {"namespace": "apps", "name": "one", "uid": "u1"},
        },
        **({"status": status} if status else {}),
    }
    noted = shape.with_note(bare, record)
    assert noted is not None
    for mark in without:
        del noted["metadata"]["annotations"][mark]
    return noted


def record(item: Object) -> GroupRecord:
    return shape.record_of(GroupFacts(uid="u1", content=item), item, None)


@pytest.mark.parametrize(
    ("item", "is_open"),
    [
        (content(), True),
        (content(without=(names.BEING_CREATED,)), True),
        (content(without=(names.BEING_CREATED,), **ERROR), True),
        (content(without=(single.INTENT,)), True),
        (content(without=(names.BEING_CREATED, single.INTENT), **ERROR), False),
        (content(without=(names.BEING_CREATED,), volumeGroupSnapshotHandle="g-1", readyToUse=False), False),
        (content(without=(names.BEING_CREATED,), by_handle=True, readyToUse=False), False),
    ],
    ids=[
        "both marks", "upstream took its mark off", "and told an error", "upstream's mark alone", "neither",
        "the handle settles it", "made anew by handle",
    ],
)  # fmt: skip
def test_when_a_note_is_open(item: Object, is_open: bool) -> None:
    found = record(item)
    assert found.note_open is is_open
    if is_open:
        assert found.note is not None
        assert (found.note.group_name, found.note.volume_handles) == (NOTE.group_name, NOTE.volume_handles)


def test_what_a_sidecar_has_deleted_is_not_made_again() -> None:
    item = content(without=(names.BEING_CREATED,))
    assert not record({**item, "status": {}}).note_open
