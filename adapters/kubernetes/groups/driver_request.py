"""What a group content asks of its driver, and what it keeps for a record; sibling of decide/driver_half. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes import names as single
from adapters.kubernetes import shape as single_shape
from adapters.kubernetes.facts import is_deleting, path, seconds_of
from adapters.kubernetes.groups import names, shape, translate
from adapters.kubernetes.groups.facts import GroupFacts, group_of_reference
from adapters.kubernetes.translate import policy_of
from bridge.model.failure import Failure, FailureKind
from bridge.model.group import GroupHandleSource, GroupRecord, GroupRequest, GroupStatus
from bridge.model.keys import Key
from bridge.model.snapshot import SnapshotState, Wish

Object = dict[str, Any]


def is_static(content: Object) -> bool:
    """Whether it was made for a group that was there before it."""
    return bool(path(content, "spec", "source", "groupSnapshotHandles"))


def handle_of(content: Object) -> str:
    """The group on the backend, as far as the content names one."""
    source = path(content, "spec", "source", "groupSnapshotHandles", "volumeGroupSnapshotHandle")
    return str(path(content, "status", "volumeGroupSnapshotHandle") or source or "")


def goes(content: Object) -> bool:
    """Whether it is on its way out, so that nobody relies on its data through it."""
    return is_deleting(content) and wish_of(content) is not Wish.PRESENT


def is_held(content: Object) -> bool:
    """Whether it stays until this half lets it go."""
    return names.CONTENT_FINALIZER in (content["metadata"].get("finalizers") or ())


def is_open(content: Object) -> bool:
    """Whether it needs work or may need it."""
    marked = names.BEING_CREATED in (content["metadata"].get("annotations") or {})
    return marked or is_deleting(content) or path(content, "status", "readyToUse") is not True


def wish_of(content: Object) -> Wish:
    """What the content wants of its driver.

    It is to go when its other half says so (being-deleted), or when it was never bound to anything. One that is
    deleted by hand while its group lives goes on being served: it is still that group's.
    """
    if not is_deleting(content):
        return Wish.PRESENT
    if not is_held(content):
        return Wish.GONE
    notes = content["metadata"].get("annotations") or {}
    unbound = is_static(content) and not group_of_reference(content)
    return Wish.ABSENT if names.BEING_DELETED in notes or unbound else Wish.PRESENT


def request(key: Key, facts: GroupFacts) -> GroupRequest:
    """The request that the content of these facts is."""
    content = facts.content
    assert content is not None
    wish = wish_of(content)
    asked = translate.from_content(facts, content)
    trouble = asked.trouble or _no_class(facts, content)
    reference = path(content, "spec", "volumeGroupSnapshotRef") or {}
    return GroupRequest(
        key=key,
        wish=wish,
        namespace=str(reference.get("namespace") or ""),
        name=str(reference.get("name") or content["metadata"]["name"]),
        driver=asked.driver,
        source=asked.source,
        group_name=facts.naming.snapshot_name(facts.uid),
        policy=asked.policy,
        parameters=asked.parameters,
        # The create and the delete use the one that the content itself names, as upstream does.
        secrets=dataclasses.replace(
            translate.annotated_secrets(content), inspect=asked.secrets.inspect or asked.secrets.create
        ),
        held=is_held(content) if is_deleting(content) else True,
        in_use=facts.in_use,
        trouble=trouble if wish is Wish.PRESENT else None,
        created_at=seconds_of(content["metadata"].get("creationTimestamp")),
        abandon=(content["metadata"].get("annotations") or {}).get(single.ABANDON) == "true",
    )


def record(facts: GroupFacts, content: Object, memory: single_shape.Memory | None) -> GroupRecord:
    """The record that the content keeps."""
    kept = shape.record_of(facts, content, memory)
    wish = wish_of(content)
    handle = str(path(content, "status", "volumeGroupSnapshotHandle") or "")
    troubled = wish is Wish.PRESENT and bool(facts.class_name) and facts.klass is None
    if not handle and isinstance(kept.source, GroupHandleSource) and wish is Wish.PRESENT and not troubled:
        handle = kept.source.handle  # Taken over. What goes is only what a look at the backend has confirmed.
    if troubled and kept.note is not None and not kept.note.writer and not handle:
        # Only upstream's mark is there, and without the class the call cannot be repeated as it was made.
        kept = dataclasses.replace(kept, note=None, note_open=False)
    return dataclasses.replace(
        kept,
        policy=policy_of(content["spec"]),
        handle=handle,
        ready=kept.ready and bool(handle),
        note_open=kept.note_open and not handle,
    )


def text_of(content: Object, told: GroupStatus) -> tuple[str, str]:
    """The event's reason and the status's text for a failure; as upstream words them."""
    assert told.failure is not None
    deleting = told.state is SnapshotState.DELETING
    text = shape.failure_text(told.failure, handle=told.handle, deleting=deleting)
    if deleting:
        return "GroupSnapshotDeleteError", text
    cut = told.handle or is_static(content)
    return ("GroupSnapshotContentCheckandUpdateFailed" if cut else "GroupSnapshotCreationFailed"), text


def without_finalizer(content: Object) -> Object:
    """The content, let go by the driver half."""
    left = [name for name in content["metadata"].get("finalizers") or () if name != names.CONTENT_FINALIZER]
    metadata = {field: value for field, value in content["metadata"].items() if field != "managedFields"}
    return {**content, "metadata": {**metadata, "finalizers": left}}


def _no_class(facts: GroupFacts, content: Object) -> Failure | None:
    """Why there can be no call for this content as it stands."""
    if is_static(content):
        return None
    called = content["metadata"]["name"]
    if not facts.class_name:
        what = f"failed to take group snapshot {called} without a group snapshot class"
        return Failure(FailureKind.REFUSED, "NO_CLASS", what, "Delete it; its VolumeGroupSnapshot makes a new one")
    if not path(content, "spec", "source", "volumeHandles") or not facts.uid:
        what = f"the content {called} names no volumes or no VolumeGroupSnapshot's uid"
        hint = "Delete it; its VolumeGroupSnapshot makes a new one"
        return Failure(FailureKind.REFUSED, "BAD_CONTENT", what, hint)
    return None
