"""Content object <-> record. Pure: it builds and reads objects, and writes none.

The content is the record: handle and readiness in its status, the open note in two annotations (upstream's mark, and
ours with all that an identical repeat needs), the policy in its spec. A handle in the status settles the note.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import orjson

from adapters.kubernetes import member, names, templates, translate
from adapters.kubernetes.facts import Facts, is_deleting, path, snapshot_of_reference
from bridge.model.failure import Failure, FailureKind
from bridge.model.secret import NO_SECRET, SecretRef
from bridge.model.snapshot import DeletionPolicy, HandleSource, Note, Record, VolumeSource

Object = dict[str, Any]

_PREFIXES = (
    "Failed to create snapshot: ",
    "Failed to check and update snapshot content: ",
    "Failed to delete snapshot: ",
)


_EARLIEST_SECONDS = -62135596800
_LATEST_SECONDS = 253402300799
WITHOUT_SECRET = (
    f"Create it; or take the annotations {names.DELETION_SECRET_NAME} and {names.DELETION_SECRET_NAMESPACE} off the "
    "VolumeSnapshotContent to delete without a secret, if the driver can"
)
"""Not done by itself: a driver without its key may take a snapshot that it cannot see for one that is gone."""


@dataclasses.dataclass(slots=True)
class Memory:
    """What of a record lives in this process only: it may be lost, at the price of one early retry."""

    failure: Failure | None = None
    failures: int = 0
    retry_at: float = 0.0
    polls: int = 0
    unsure: bool = False
    condemned: bool = False
    deleted: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing is lost by forgetting it."""
        return self == Memory()


def remember(record: Record) -> Memory:
    """The part of a record that no object keeps."""
    return Memory(
        failure=record.failure,
        failures=record.failures,
        retry_at=record.retry_at,
        polls=record.polls,
        unsure=record.note is not None and record.note_open and record.note.unsure,
        condemned=record.condemned,
        deleted=record.deleted,
    )


def rfc3339(seconds: float) -> str:
    """An instant as the API server writes it: UTC, whole seconds. What it cannot write becomes the nearest it can."""
    seconds = min(max(seconds, _EARLIEST_SECONDS), _LATEST_SECONDS)
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def failure_text(failure: Failure, *, handle: str, deleting: bool) -> str:
    """What a status says of a failed plugin call; begins as upstream's texts do."""
    if deleting and failure.code == "SECRET_NOT_FOUND":
        failure = dataclasses.replace(failure, hint=WITHOUT_SECRET)
    prefix = _PREFIXES[2] if deleting else _PREFIXES[1] if handle else _PREFIXES[0]
    return f"{prefix}{failure}"


def new_content(record: Record, facts: Facts) -> Object:
    """The content of a dynamic snapshot, complete in one write: bound, held, with the note open."""
    snapshot = facts.snapshot
    assert snapshot is not None
    assert isinstance(record.source, VolumeSource)
    metadata = snapshot["metadata"]
    notes: dict[str, str] = {}
    if record.secrets.delete:
        namespace, _, name = record.secrets.delete.locator.partition("/")
        notes[names.DELETION_SECRET_NAME] = name
        notes[names.DELETION_SECRET_NAMESPACE] = namespace
    spec: Object = {
        "volumeSnapshotRef": {**reference(metadata), "resourceVersion": metadata["resourceVersion"]},
        "source": {"volumeHandle": record.source.handle},
        "volumeSnapshotClassName": class_name(facts),
        "deletionPolicy": record.policy.value,
        "driver": record.driver,
    }
    mode = path(facts.volume, "spec", "volumeMode")
    if mode:
        spec["sourceVolumeMode"] = mode
    content: Object = {
        "apiVersion": names.API_VERSION,
        "kind": names.CONTENTS.kind,
        "metadata": {
            "name": names.content_name(facts.uid),
            "finalizers": [names.CONTENT_FINALIZER],
            "annotations": notes,
        },
        "spec": spec,
    }
    return with_note(content, record) or content


def bound_content(content: Object, facts: Facts) -> Object:
    """A pre-provisioned content, bound to its VolumeSnapshot."""
    snapshot = facts.snapshot
    assert snapshot is not None
    bound = {**content, "spec": {**content["spec"]}}
    bound["spec"]["volumeSnapshotRef"] = {
        **bound["spec"]["volumeSnapshotRef"],
        "uid": snapshot["metadata"]["uid"],
    }
    named = path(snapshot, "spec", "volumeSnapshotClassName")
    if named:
        bound["spec"]["volumeSnapshotClassName"] = named
    return _with_finalizer(bound)


def held_snapshot(facts: Facts) -> Object | None:
    """The snapshot with our finalizers, and with its class where a default was chosen; None when it has them."""
    snapshot = facts.snapshot
    assert snapshot is not None
    metadata = snapshot["metadata"]
    finalizers = list(metadata.get("finalizers") or ())
    try:
        klass = translate.choose_class(facts)
    except translate.Trouble:
        klass = None
    named = bool(facts.class_name) or klass is None
    if names.SOURCE_FINALIZER in finalizers and named:
        return None
    if names.SOURCE_FINALIZER not in finalizers:
        finalizers.append(names.SOURCE_FINALIZER)
    deletes = path(facts.content, "spec", "deletionPolicy") or (klass or {}).get("deletionPolicy")
    if deletes == "Delete" and names.BOUND_FINALIZER not in finalizers:
        finalizers.append(names.BOUND_FINALIZER)
    held = {**snapshot, "metadata": {**metadata, "finalizers": finalizers}}
    if klass is not None and not named:
        held["spec"] = {**snapshot["spec"], "volumeSnapshotClassName": klass["metadata"]["name"]}
    return held


def reference(metadata: Object) -> Object:
    """A reference to a VolumeSnapshot."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.SNAPSHOTS.kind,
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def class_name(facts: Facts) -> str:
    """The class that the content is to name. Raises translate.Trouble as `choose_class` does."""
    klass = translate.choose_class(facts)
    assert klass is not None
    return str(klass["metadata"]["name"])


def with_note(content: Object, record: Record) -> Object | None:
    """The content with its marks as the record wants them; None when they are so already.

    Upstream's mark stands beside our note from its first instant: whoever is started in our place must not take the
    content for one without a snapshot (docs/decisions/0008-marks.md).
    """
    notes = dict(content["metadata"].get("annotations") or {})
    before = dict(notes)
    if record.note_open and record.note is not None:
        if names.BEING_CREATED not in notes and _intent(content) is None:
            notes[names.INTENT] = _intent_text(record.note, record.secrets.inspect)
        notes[names.BEING_CREATED] = "yes"
    elif names.BEING_CREATED in notes or not record.handle:
        notes.pop(names.BEING_CREATED, None)
        if record.ready or record.note is None:
            notes.pop(names.INTENT, None)
    held = content if is_deleting(content) or not record.note_open else _with_finalizer(content)
    if notes == before and held is content:
        return None
    return {**held, "metadata": {**held["metadata"], "annotations": notes}}


def tidied(content: Object) -> Object | None:
    """A ready content without its marks: upstream would not let it go with its own. None when it has none."""
    notes = content["metadata"].get("annotations") or {}
    left = {name: text for name, text in notes.items() if name not in (names.BEING_CREATED, names.INTENT)}
    if len(left) == len(notes):
        return None
    return {**content, "metadata": {**content["metadata"], "annotations": left}}


def may_be_under_way(content: Object) -> bool:
    """Whether a create may have been sent for it and its outcome is not known: its note is open.

    A status that says nothing at all is what upstream's sidecar leaves when it has deleted the snapshot.
    """
    status = content.get("status")
    if not path(content, "spec", "source", "volumeHandle") or path(status, "snapshotHandle"):
        return False
    if is_marked(content):
        return True
    emptied = status is not None and not path(status, "error") and path(status, "readyToUse") is None
    return not emptied and _intent(content) is not None


def is_marked(content: Object) -> bool:
    """Whether upstream's mark of a create under way is on it."""
    return names.BEING_CREATED in (content["metadata"].get("annotations") or {})


def with_status(content: Object, record: Record, now: float) -> Object | None:
    """The content with its status as the record wants it; None when nothing changes.

    An error stays until there is a success to report: a retry does not clear what its failure would write again.
    """
    if record.deleted:
        return None
    before = content.get("status") or {}
    status = dict(before)
    confirmed = record.failure is None or bool(snapshot_of_reference(content))
    if record.handle and confirmed:
        status["snapshotHandle"] = record.handle
        status["readyToUse"] = record.ready
        if record.failure is None:
            status.pop("error", None)
    if record.cut_at_ns is not None:
        status["creationTime"] = record.cut_at_ns
    elif record.handle and record.failure is None and "creationTime" not in status:
        status["creationTime"] = int(now * 1e9)  # The plugin does not say when; it is there now.
    if record.size_bytes and record.size_bytes > 0:
        status["restoreSize"] = record.size_bytes
    if record.group:
        status["volumeGroupSnapshotHandle"] = record.group
    if record.failure is not None:
        text = failure_text(record.failure, handle=record.handle, deleting=is_deleting(content))
        status["readyToUse"] = record.ready
        if path(before, "error", "message") != text:
            status["error"] = {"message": text, "time": rfc3339(now)}
    return None if status == before else {**content, "status": status}


def record_of(facts: Facts, content: Object, memory: Memory | None) -> Record:
    """The record that a content keeps."""
    spec, status = content["spec"], content.get("status") or {}
    source = translate.content_source(content)
    bound = bool(snapshot_of_reference(content))
    handle = str(status.get("snapshotHandle") or "")
    if not handle and isinstance(source, HandleSource) and (bound or not is_deleting(content)):
        # Never bound and being deleted: only what a look at the backend has confirmed may go from there.
        handle = source.handle
    note = _note_of(facts, content)
    own = memory or Memory(failure=_failure_of(status))
    if note is not None and own.unsure:
        note = dataclasses.replace(note, unsure=True)
    secrets = translate.annotated_secrets(content)
    inspect = _inspect_secret(facts, content)
    return Record(
        driver=spec["driver"],
        source=source,
        snapshot_name=note.snapshot_name if note else facts.naming.snapshot_name(facts.uid),
        policy=translate.policy_of(spec),
        secrets=dataclasses.replace(secrets, inspect=inspect or secrets.inspect),
        note=note,
        note_open=may_be_under_way(content) and note is not None and not handle,
        handle=handle,
        ready=bool(status.get("readyToUse")) and bool(handle),
        size_bytes=status.get("restoreSize"),
        cut_at_ns=status.get("creationTime"),
        group=member.group_handle(content),
        failure=own.failure,
        failures=own.failures,
        retry_at=own.retry_at,
        polls=own.polls,
        condemned=own.condemned,
        deleted=own.deleted,
        version=content["metadata"]["resourceVersion"],
    )


def may_delete_alone(content: Object) -> bool:
    """Whether a content without its VolumeSnapshot is to be deleted: only when it says so itself."""
    if not is_deleting(content):
        return False
    if not snapshot_of_reference(content) and path(content, "spec", "source", "snapshotHandle"):
        return True
    if translate.policy_of(content["spec"]) is DeletionPolicy.RETAIN:
        return True  # Only the object goes.
    return names.BEING_DELETED in (content["metadata"].get("annotations") or {})


def _with_finalizer(content: Object) -> Object:
    finalizers = list(content["metadata"].get("finalizers") or ())
    if names.CONTENT_FINALIZER in finalizers:
        return content
    return {**content, "metadata": {**content["metadata"], "finalizers": [*finalizers, names.CONTENT_FINALIZER]}}


def _intent_text(note: Note, inspect: SecretRef) -> str:
    value = {
        "name": note.snapshot_name,
        "volume": note.volume_handle,
        "parameters": dict(note.parameters),
        "secret": str(note.secret),
        "inspectSecret": str(inspect),
        "writer": note.writer,
    }
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _intent(content: Object) -> Object | None:
    text = (content["metadata"].get("annotations") or {}).get(names.INTENT)
    if not text or not path(content, "spec", "source", "volumeHandle"):
        # One that was made anew by handle (as backup tools do) may carry the notes of the one that was cut.
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and value.get("name") and value.get("volume") else None


def _note_of(facts: Facts, content: Object) -> Note | None:
    """The note as it was written; from upstream's mark alone, as upstream would repeat the call."""
    volume = path(content, "spec", "source", "volumeHandle")
    intent = _intent(content)
    if intent is not None:
        try:
            secret = SecretRef.parse(str(intent.get("secret") or ""))
        except ValueError:
            secret = NO_SECRET
        return Note(
            snapshot_name=str(intent["name"]),
            volume_handle=str(intent["volume"]),
            parameters={str(key): str(value) for key, value in (intent.get("parameters") or {}).items()},
            secret=secret,
            writer=str(intent.get("writer") or ""),
        )
    status = content.get("status") or {}
    unfinished = status.get("snapshotHandle") and not status.get("readyToUse")
    if not volume or not (unfinished or names.BEING_CREATED in (content["metadata"].get("annotations") or {})):
        return None
    try:
        parameters = templates.driver_parameters((facts.klass or {}).get("parameters") or {})
    except templates.TemplateError:
        parameters = {}
    parameters |= translate.metadata_parameters(facts, content["metadata"]["name"])
    return Note(
        snapshot_name=facts.naming.snapshot_name(facts.uid),
        volume_handle=volume,
        parameters=parameters,
        secret=translate.annotated_secrets(content).create,
        unsure=True,
    )


def _inspect_secret(facts: Facts, content: Object) -> SecretRef:
    """The list secret: from our note while there is one, else from the class while there is one."""
    intent = _intent(content)
    try:
        if intent is not None:
            return SecretRef.parse(str(intent.get("inspectSecret") or ""))
        given = (facts.klass or {}).get("parameters") or {}
        return templates.listing_secret(given, content["metadata"]["name"])
    except (templates.TemplateError, ValueError):
        return NO_SECRET


def _failure_of(status: Object) -> Failure | None:
    text = str(path(status, "error", "message") or "")
    if not text:
        return None
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return Failure(FailureKind.UNSURE, "", text)
