"""Group content object <-> record. Pure: it builds and reads objects, and writes none.

The content is the record, as for single snapshots: handle, members and readiness in its status, the open note in two
annotations, the policy in its spec.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson

from adapters.kubernetes import names as single
from adapters.kubernetes import shape, templates
from adapters.kubernetes.facts import is_deleting, path, seconds_of
from adapters.kubernetes.groups import names, translate
from adapters.kubernetes.groups.facts import GroupFacts, group_of_reference
from adapters.kubernetes.translate import policy_of
from bridge.model.failure import Failure, FailureKind
from bridge.model.group import GroupHandleSource, GroupNote, GroupRecord, VolumesSource
from bridge.model.secret import NO_SECRET, SecretRef
from bridge.model.snapshot import CutSnapshot, DeletionPolicy

Object = dict[str, Any]
_PREFIXES = (
    "Failed to create group snapshot: ",
    "Failed to check and update group snapshot content: ",
    "Failed to delete group snapshot: ",
)


def remember(record: GroupRecord) -> shape.Memory:
    """The part of a record that no object keeps."""
    return shape.Memory(
        failure=record.failure,
        failures=record.failures,
        retry_at=record.retry_at,
        polls=record.polls,
        unsure=record.note is not None and record.note_open and record.note.unsure,
        condemned=record.condemned,
        deleted=record.deleted,
    )


def failure_text(failure: Failure, *, handle: str, deleting: bool) -> str:
    """What a status says of a failed plugin call; begins as upstream's texts do."""
    prefix = _PREFIXES[2] if deleting else _PREFIXES[1] if handle else _PREFIXES[0]
    return f"{prefix}{failure}"


def new_content(record: GroupRecord, facts: GroupFacts) -> Object:
    """The content of a dynamic group, complete in one write: bound, held, with the note open if there is one."""
    assert facts.group is not None
    assert isinstance(record.source, VolumesSource)
    klass = translate.choose_class(facts)
    assert klass is not None
    notes: dict[str, str] = {}
    if record.secrets.delete:
        namespace, _, name = record.secrets.delete.locator.partition("/")
        notes[names.DELETION_SECRET_NAME] = name
        notes[names.DELETION_SECRET_NAMESPACE] = namespace
    content: Object = {
        "apiVersion": names.API_VERSION,
        "kind": names.CONTENTS.kind,
        "metadata": {
            "name": names.content_name(facts.uid),
            "finalizers": [names.CONTENT_FINALIZER],
            "annotations": notes,
        },
        "spec": {
            "volumeGroupSnapshotRef": reference(facts.group["metadata"]),
            "source": {"volumeHandles": list(record.source.handles)},
            "volumeGroupSnapshotClassName": klass["metadata"]["name"],
            "deletionPolicy": record.policy.value,
            "driver": record.driver,
        },
    }
    return with_note(content, record) or content


def bound_content(content: Object, facts: GroupFacts) -> Object:
    """A pre-provisioned content, bound to its group."""
    assert facts.group is not None
    bound = {**content, "spec": {**content["spec"]}}
    bound["spec"]["volumeGroupSnapshotRef"] = {
        **bound["spec"]["volumeGroupSnapshotRef"],
        **reference(facts.group["metadata"]),
    }
    named = path(facts.group, "spec", "volumeGroupSnapshotClassName")
    if named and not bound["spec"].get("volumeGroupSnapshotClassName"):
        bound["spec"]["volumeGroupSnapshotClassName"] = named
    return with_finalizer(bound)


def reference(metadata: Object) -> Object:
    """A reference to a VolumeGroupSnapshot."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.GROUPS.kind,
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def with_note(content: Object, record: GroupRecord) -> Object | None:
    """The content with its marks as the record wants them; None when they are so already."""
    notes = dict(content["metadata"].get("annotations") or {})
    before = dict(notes)
    if record.note_open and record.note is not None:
        if names.BEING_CREATED not in notes or single.INTENT not in notes:
            notes[names.BEING_CREATED] = "yes"
            notes[single.INTENT] = _intent_text(record.note, record.secrets.inspect)
    else:
        notes.pop(names.BEING_CREATED, None)
        if record.ready or record.note is None:
            notes.pop(single.INTENT, None)
    held = content if is_deleting(content) or not record.note_open else with_finalizer(content)
    if notes == before and held is content:
        return None
    return {**held, "metadata": {**held["metadata"], "annotations": notes}}


def may_be_under_way(content: Object) -> bool:
    """Whether a create may have been sent for it and its outcome is not known: its note is open.

    Upstream's sidecar takes its mark off after errors that it counts as final; our note stands. A status that says
    nothing at all is what a sidecar leaves when it has deleted the group.
    """
    status = content.get("status")
    if path(status, "volumeGroupSnapshotHandle"):
        return False
    if names.BEING_CREATED in (content["metadata"].get("annotations") or {}):
        return True
    emptied = status is not None and not path(status, "error") and path(status, "readyToUse") is None
    return not emptied and _intent(content) is not None


def with_status(content: Object, record: GroupRecord, now: float) -> Object | None:
    """The content with its status as the record wants it; None when nothing changes."""
    if record.deleted:
        return None
    before = content.get("status") or {}
    status = dict(before)
    if record.handle:
        status["volumeGroupSnapshotHandle"] = record.handle
        status["readyToUse"] = record.ready
        if record.failure is None:
            status.pop("error", None)
    if record.cut_at_ns is not None:
        status["creationTime"] = shape.rfc3339(record.cut_at_ns / 1e9)
    if record.members and isinstance(record.source, VolumesSource):
        # Of a pre-provisioned group people made the members: a list here would have upstream make them again.
        status["volumeSnapshotInfoList"] = [_info(member) for member in record.members]
    if record.failure is not None:
        text = failure_text(record.failure, handle=record.handle, deleting=is_deleting(content))
        status["readyToUse"] = record.ready
        if path(before, "error", "message") != text:
            status["error"] = {"message": text, "time": shape.rfc3339(now)}
    return None if status == before else {**content, "status": status}


def record_of(facts: GroupFacts, content: Object, memory: shape.Memory | None) -> GroupRecord:
    """The record that a content keeps."""
    spec, status = content["spec"], content.get("status") or {}
    source = translate.content_source(content)
    handle = str(status.get("volumeGroupSnapshotHandle") or "")
    if not handle and group_of_reference(content) and isinstance(source, GroupHandleSource):
        handle = source.handle
    note = _note_of(facts, content)
    own = memory or shape.Memory(failure=_failure_of(status))
    if note is not None and own.unsure:
        note = dataclasses.replace(note, unsure=True)
    cut_at = seconds_of(status.get("creationTime"))
    members = members_of(content)
    return GroupRecord(
        driver=spec["driver"],
        source=source,
        group_name=note.group_name if note else facts.naming.snapshot_name(facts.uid),
        policy=policy_of(spec),
        secrets=dataclasses.replace(translate.annotated_secrets(content), inspect=_inspect_secret(facts, content)),
        note=note,
        note_open=may_be_under_way(content) and note is not None and not handle,
        handle=handle,
        members=members,
        ready=bool(status.get("readyToUse")) and bool(handle),
        cut_at_ns=int(cut_at * 1e9) if cut_at else None,
        failure=own.failure,
        failures=own.failures,
        retry_at=own.retry_at,
        polls=own.polls,
        condemned=own.condemned,
        deleted=own.deleted,
        version=content["metadata"]["resourceVersion"],
    )


def members_of(content: Object) -> tuple[CutSnapshot, ...]:
    """The members as the content's status lists them."""
    status = content.get("status") or {}
    group = str(status.get("volumeGroupSnapshotHandle") or "")
    return tuple(
        CutSnapshot(
            handle=str(info.get("snapshotHandle") or ""),
            source_handle=str(info.get("volumeHandle") or ""),
            ready=info.get("readyToUse") is True,
            size_bytes=info.get("restoreSize"),
            cut_at_ns=info.get("creationTime"),
            group=group,
        )
        for info in status.get("volumeSnapshotInfoList") or ()
        if info.get("snapshotHandle")
    )


def may_delete_alone(content: Object) -> bool:
    """Whether a content without its group is to be deleted: only when it says so itself."""
    if not is_deleting(content):
        return False
    if not group_of_reference(content) and path(content, "spec", "source", "groupSnapshotHandles"):
        return True
    if policy_of(content["spec"]) is DeletionPolicy.RETAIN:
        return True  # Only the object goes.
    return names.BEING_DELETED in (content["metadata"].get("annotations") or {})


def with_finalizer(content: Object) -> Object:
    """The content with our hold on it."""
    finalizers = list(content["metadata"].get("finalizers") or ())
    if names.CONTENT_FINALIZER in finalizers:
        return content
    return {**content, "metadata": {**content["metadata"], "finalizers": [*finalizers, names.CONTENT_FINALIZER]}}


def _info(member: CutSnapshot) -> Object:
    info: Object = {
        "volumeHandle": member.source_handle,
        "snapshotHandle": member.handle,
        "readyToUse": member.ready,
    }
    if member.cut_at_ns is not None:
        info["creationTime"] = member.cut_at_ns
    if member.size_bytes is not None and member.size_bytes > 0:
        info["restoreSize"] = member.size_bytes
    return info


def _intent_text(note: GroupNote, inspect: SecretRef) -> str:
    value = {
        "name": note.group_name,
        "volumes": list(note.volume_handles),
        "parameters": dict(note.parameters),
        "secret": str(note.secret),
        "inspectSecret": str(inspect),
        "writer": note.writer,
    }
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _intent(content: Object) -> Object | None:
    text = (content["metadata"].get("annotations") or {}).get(single.INTENT)
    if not text or not path(content, "spec", "source", "volumeHandles"):
        # One that was made anew by handle (as backup tools do) may carry the notes of the one that was cut.
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and value.get("name") and value.get("volumes") else None


def _note_of(facts: GroupFacts, content: Object) -> GroupNote | None:
    """The note as it was written; from upstream's mark alone, as upstream would repeat the call."""
    intent = _intent(content)
    if intent is not None:
        try:
            secret = SecretRef.parse(str(intent.get("secret") or ""))
        except ValueError:
            secret = NO_SECRET
        return GroupNote(
            group_name=str(intent["name"]),
            volume_handles=tuple(str(handle) for handle in intent["volumes"]),
            parameters={str(key): str(value) for key, value in (intent.get("parameters") or {}).items()},
            secret=secret,
            writer=str(intent.get("writer") or ""),
        )
    volumes = path(content, "spec", "source", "volumeHandles")
    if not volumes or names.BEING_CREATED not in (content["metadata"].get("annotations") or {}):
        return None
    try:
        bound_to = path(content, "spec", "volumeGroupSnapshotRef") or {}
        place = str(bound_to.get("namespace") or ""), str(bound_to.get("name") or "")
        parameters = templates.driver_parameters((facts.klass or {}).get("parameters") or {})
        parameters |= names.metadata(facts.naming, *place, content["metadata"]["name"])
    except templates.TemplateError:
        parameters = {}
    return GroupNote(
        group_name=facts.naming.snapshot_name(facts.uid),
        volume_handles=tuple(volumes),
        parameters=parameters,
        secret=translate.annotated_secrets(content).create,
        unsure=True,
    )


def _inspect_secret(facts: GroupFacts, content: Object) -> SecretRef:
    """The get secret: from our note while there is one, else from the class, else the content's own."""
    own = translate.annotated_secrets(content).inspect
    intent = _intent(content)
    try:
        if intent is not None:
            return SecretRef.parse(str(intent.get("inspectSecret") or "")) or own
        given = (facts.klass or {}).get("parameters") or {}
        return templates.group_secrets(given, translate.template_names(content)).inspect or own
    except (templates.TemplateError, ValueError):
        return own


def _failure_of(status: Object) -> Failure | None:
    text = str(path(status, "error", "message") or "")
    if not text:
        return None
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return Failure(FailureKind.UNSURE, "", text)
