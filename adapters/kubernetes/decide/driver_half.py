"""What a VolumeSnapshotContent asks of its driver, and what it keeps for a record. Pure.

The other half is somebody's snapshot-controller: it makes contents, binds them and lets them go. The two halves
speak through the content only, so nothing here may need a VolumeSnapshot.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes import member, names, shape, templates, translate
from adapters.kubernetes.facts import Facts, is_deleting, path, seconds_of, snapshot_of_reference
from bridge.model.failure import Failure, FailureKind
from bridge.model.keys import snapshot_key
from bridge.model.secret import SnapshotSecrets
from bridge.model.snapshot import (
    DeletionPolicy,
    HandleSource,
    Record,
    SnapshotRequest,
    SnapshotState,
    SnapshotStatus,
    Source,
    VolumeSource,
    Wish,
)

Object = dict[str, Any]

GATE_CODES = frozenset({"UNKNOWN_DRIVER", "PLUGIN_UNHEALTHY"})
"""A plugin that restarts is no fault of a snapshot: told on /readyz, not on every content."""


def handle_of(content: Object) -> str:
    """The snapshot on the backend, as far as the content names one."""
    return str(path(content, "status", "snapshotHandle") or path(content, "spec", "source", "snapshotHandle") or "")


def is_static(content: Object) -> bool:
    """Whether it was made for a snapshot that was there before it."""
    return bool(path(content, "spec", "source", "snapshotHandle"))


def is_held(content: Object) -> bool:
    """Whether it stays until this half lets it go."""
    return names.CONTENT_FINALIZER in (content["metadata"].get("finalizers") or ())


def is_open(content: Object) -> bool:
    """Whether it needs work or may need it."""
    marked = names.BEING_CREATED in (content["metadata"].get("annotations") or {})
    return marked or is_deleting(content) or path(content, "status", "readyToUse") is not True


def wish_of(content: Object) -> Wish:
    """What the content wants of its driver.

    A content is to go when its other half says so (being-deleted), or when it was never bound to anything. One that
    is deleted by hand while its VolumeSnapshot lives goes on being served: it is still that snapshot's.
    """
    if is_deleting(content):
        if not is_held(content):
            return Wish.GONE
        notes = content["metadata"].get("annotations") or {}
        if names.BEING_DELETED in notes or (is_static(content) and not snapshot_of_reference(content)):
            return Wish.ABSENT
    if member.group_handle(content) and not handle_of(content):
        return Wish.GONE  # Its group brings the handle.
    return Wish.PRESENT


def request(cluster: str, facts: Facts) -> SnapshotRequest:
    """The request that the content of these facts is."""
    content = facts.content
    assert content is not None
    metadata, spec = content["metadata"], content["spec"]
    wish = wish_of(content)
    parameters, trouble = _parameters(facts, content)
    reference = path(content, "spec", "volumeSnapshotRef") or {}
    return SnapshotRequest(
        key=snapshot_key(cluster, metadata["uid"]),
        wish=wish,
        namespace=str(reference.get("namespace") or ""),
        name=str(reference.get("name") or metadata["name"]),
        driver=str(spec.get("driver") or ""),
        source=_source(content),
        snapshot_name=facts.naming.snapshot_name(facts.uid),
        policy=policy_of(content),
        parameters=parameters,
        secrets=_secrets(facts, content),
        held=is_held(content) if is_deleting(content) else True,
        trouble=trouble if wish is Wish.PRESENT else None,
        created_at=seconds_of(metadata.get("creationTimestamp")),
        abandon=(metadata.get("annotations") or {}).get(names.ABANDON) == "true",
    )


def record(facts: Facts, content: Object, memory: shape.Memory | None) -> Record:
    """The record that the content keeps."""
    kept = shape.record_of(facts, content, memory)
    wish = wish_of(content)
    handle = str(path(content, "status", "snapshotHandle") or "")
    troubled = wish is Wish.PRESENT and _parameters(facts, content)[1] is not None
    if not handle and isinstance(kept.source, HandleSource) and wish is Wish.PRESENT and not troubled:
        handle = kept.source.handle  # Taken over. What goes is only what a look at the backend has confirmed.
    foreign = kept.note is not None and not kept.note.writer
    if troubled and foreign and not handle:
        # Only upstream's mark is there, and without the class the call cannot be repeated as it was made.
        kept = dataclasses.replace(kept, note=None, note_open=False)
    return dataclasses.replace(
        kept,
        source=_source(content),
        policy=policy_of(content),
        handle=handle,
        ready=kept.ready and bool(handle),
        note=None if member.group_handle(content) else kept.note,
        note_open=kept.note_open and not handle and not member.group_handle(content),
    )


def text_of(content: Object, told: SnapshotStatus) -> tuple[str, str]:
    """The event's reason and the status's text for a failure; as upstream words them."""
    assert told.failure is not None
    deleting = told.state is SnapshotState.DELETING
    handle = told.handle or handle_of(content)
    text = shape.failure_text(told.failure, handle=handle, deleting=deleting)
    if deleting:
        return "SnapshotDeleteError", text
    return ("SnapshotContentCheckandUpdateFailed" if handle else "SnapshotCreationFailed"), text


def goes(content: Object) -> bool:
    """Whether it is on its way out, so that nobody relies on its data through it."""
    return is_deleting(content) and wish_of(content) is not Wish.PRESENT


def _source(content: Object) -> Source:
    handle = handle_of(content) if member.group_handle(content) else path(content, "spec", "source", "snapshotHandle")
    return HandleSource(handle) if handle else VolumeSource(path(content, "spec", "source", "volumeHandle") or "")


def policy_of(content: Object) -> DeletionPolicy:
    """A member is deleted with its group and never alone."""
    return DeletionPolicy.RETAIN if member.group_handle(content) else translate.policy_of(content["spec"])


def _parameters(facts: Facts, content: Object) -> tuple[dict[str, str], Failure | None]:
    """The parameters of a create, and why there can be no call for this content as it stands."""
    named = path(content, "spec", "volumeSnapshotClassName")
    called = content["metadata"]["name"]
    if named and facts.klass is None:
        what = f'no input parameters for content {called}: volumesnapshotclass "{named}" not found'
        if facts.class_trouble:
            what = f'no input parameters for content {called}: "{named}" is malformed: {facts.class_trouble}'
        return {}, Failure(FailureKind.REFUSED, "CLASS_NOT_FOUND", what, "Create the class again")
    if is_static(content):
        return {}, None
    if not path(content, "spec", "source", "volumeHandle") or not facts.uid:
        what = "the content names no volume handle" if facts.uid else "the content names no VolumeSnapshot's uid"
        return {}, Failure(FailureKind.REFUSED, "BAD_CONTENT", what, "Delete it; its VolumeSnapshot makes a new one")
    try:
        given = templates.driver_parameters((facts.klass or {}).get("parameters") or {})
    except templates.TemplateError as error:
        what = f"no input parameters for content {called}: {error}"
        return {}, Failure(FailureKind.REFUSED, "BAD_PARAMETERS", what, "Mend the class's parameters")
    return given | translate.metadata_parameters(facts, called), None


def _secrets(facts: Facts, content: Object) -> SnapshotSecrets:
    """The create and the delete use the one that the content itself names, as upstream does."""
    own = translate.annotated_secrets(content)
    try:
        given = (facts.klass or {}).get("parameters") or {}
        listing = templates.listing_secret(given, content["metadata"]["name"])
    except templates.TemplateError:
        return own
    return dataclasses.replace(own, inspect=listing or own.inspect)
