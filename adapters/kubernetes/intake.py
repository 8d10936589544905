"""Requests that come in through our own door: VolumeSnapshots made, and deleted, for a caller of the API."""

from __future__ import annotations

import hashlib
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.facts import path
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ConflictError, InvalidError, NotFoundError, NotSyncedError
from bridge.model.keys import Key, snapshot_key
from bridge.model.snapshot import DeletionPolicy
from bridge.ports.orchestrator import SnapshotDraft

Object = dict[str, Any]

CLASS_PARAMETERS = ("class", "volumeSnapshotClassName")
"""A draft's parameter that names the class. Others belong to classes here and are refused."""


class Door:
    """Makes and deletes VolumeSnapshots."""

    def __init__(self, cluster: str, world: World, writer: Writer) -> None:
        self._cluster = cluster
        self._world = world
        self._writer = writer

    async def submit(self, draft: SnapshotDraft) -> Key:
        """Create the VolumeSnapshot (for an adopted handle, its content first). The same draft again is fine."""
        if not self._world.synced:
            raise NotSyncedError(f"cluster {self._cluster} is not read yet")
        body = _snapshot(draft)
        if draft.adopt_handle:
            self._refuse_taken(draft, body)
            await self._writer.check(names.SNAPSHOTS, draft.namespace, body)  # else its content would be left behind
            await self._adopt(draft)
        elif draft.policy is DeletionPolicy.RETAIN:
            self._demand_keeping_class(draft)
        try:
            made = await self._writer.create(names.SNAPSHOTS, draft.namespace, body)
        except ConflictError:
            known = self._world.snapshots.get(draft.namespace, draft.name)
            if known is None:
                raise
            self._refuse_taken(draft, body)
            made = known
        return snapshot_key(self._cluster, made["metadata"]["uid"])

    def _refuse_taken(self, draft: SnapshotDraft, body: Object) -> None:
        """A VolumeSnapshot of this name that is not what an earlier try of the same draft made."""
        known = self._world.snapshots.get(draft.namespace, draft.name)
        if known is not None and (known["metadata"].get("deletionTimestamp") or not _same(known, body)):
            text = f"there is a VolumeSnapshot {draft.namespace}/{draft.name} already"
            raise ConflictError(text, field="name", hint="Choose another name")

    def _demand_keeping_class(self, draft: SnapshotDraft) -> None:
        """Here the policy is the class's: a promise to keep the data that the class does not make is refused."""
        klass = self._world.classes.get("", _class(draft))
        if klass is None or klass.get("deletionPolicy") != DeletionPolicy.RETAIN.value:
            raise InvalidError(
                "the policy of a snapshot is that of its class here, and it must be Retain to keep the data",
                field="deletionPolicy",
                hint=f"Name a class with deletionPolicy Retain: {CLASS_PARAMETERS[0]}=NAME",
            )

    async def withdraw(self, key: Key) -> None:
        """Delete the VolumeSnapshot with this uid, and no other; a missing one is fine."""
        snapshot = self._world.snapshots.by_uid(key.uid)
        if snapshot is not None:
            await self._writer.delete(names.SNAPSHOTS, snapshot, exact=False)

    async def abandon(self, key: Key) -> None:
        """Mark that the owner lets it go though a create is unsettled."""
        snapshot = self._world.snapshots.by_uid(key.uid)
        if snapshot is None:
            raise NotFoundError(f"there is no VolumeSnapshot of {key}")
        notes = {**(snapshot["metadata"].get("annotations") or {}), names.ABANDON: "true"}
        await self._writer.put(
            names.SNAPSHOTS, {**snapshot, "metadata": {**snapshot["metadata"], "annotations": notes}}
        )

    async def _adopt(self, draft: SnapshotDraft) -> None:
        if not draft.driver:
            raise InvalidError("to adopt a snapshot, name its driver", field="driver")
        body: Object = {
            "apiVersion": names.API_VERSION,
            "kind": names.CONTENTS.kind,
            "metadata": {"name": _adopted_name(draft)},
            "spec": {
                "driver": draft.driver,
                "deletionPolicy": draft.policy.value,
                "source": {"snapshotHandle": draft.adopt_handle},
                "volumeSnapshotRef": {"namespace": draft.namespace, "name": draft.name},
            },
        }
        named = _class(draft)
        if named:
            body["spec"]["volumeSnapshotClassName"] = named
        try:
            await self._writer.create(names.CONTENTS, "", body)
        except ConflictError:
            known = self._world.contents.get("", _adopted_name(draft))
            if known is None or known["spec"]["source"] != body["spec"]["source"]:
                raise


def _snapshot(draft: SnapshotDraft) -> Object:
    unknown = sorted(set(draft.parameters) - set(CLASS_PARAMETERS))
    if unknown:
        hint = f"On Kubernetes parameters belong to a class: give {CLASS_PARAMETERS[0]}=NAME"
        raise InvalidError(f"parameter {unknown[0]!r} cannot be given here", field="parameters", hint=hint)
    if not draft.adopt_handle and not draft.volume:
        raise InvalidError("name the volume (a PersistentVolumeClaim)", field="volume")
    source = (
        {"volumeSnapshotContentName": _adopted_name(draft)}
        if draft.adopt_handle
        else {"persistentVolumeClaimName": draft.volume}
    )
    spec: Object = {"source": source}
    named = _class(draft)
    if named:
        spec["volumeSnapshotClassName"] = named
    notes = {names.ASKED_BY: draft.asked_by, names.WHY: draft.why}
    metadata: Object = {"name": draft.name, "namespace": draft.namespace}
    metadata["annotations"] = {key: value for key, value in notes.items() if value}
    if draft.labels:
        metadata["labels"] = dict(draft.labels)
    return {"apiVersion": names.API_VERSION, "kind": names.SNAPSHOTS.kind, "metadata": metadata, "spec": spec}


def _class(draft: SnapshotDraft) -> str:
    return next((draft.parameters[name] for name in CLASS_PARAMETERS if draft.parameters.get(name)), "")


def _adopted_name(draft: SnapshotDraft) -> str:
    """The content of an adopted snapshot: the same draft gives the same name."""
    text = "\0".join((draft.namespace, draft.name, draft.driver, draft.adopt_handle))
    return f"adopted-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _same(known: Object, body: Object) -> bool:
    """Whether an earlier try made it; its class may have been filled in since."""
    wanted = body["spec"].get("volumeSnapshotClassName")
    return bool(
        path(known, "spec", "source") == body["spec"]["source"]
        and (not wanted or path(known, "spec", "volumeSnapshotClassName") == wanted)
    )
