"""A claim's CreateVolume request, worked out from the cluster as it is. Reads, and writes nothing.

Nothing of it is taken from the claim's note but the places, and those only where they can be believed: whoever may
edit a claim may write its note, and must not choose handles, secrets or parameters with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, assert_never

import orjson

from adapters.kubernetes import names
from adapters.kubernetes.decide import provision, source, topology
from adapters.kubernetes.decide.verdict import Ignored, Refusal, State
from adapters.kubernetes.facts import path
from adapters.kubernetes.provisioner.parts import Parts
from bridge.model.failure import BridgeError
from bridge.model.plugin import Capability
from bridge.model.secret import SecretRef
from bridge.model.volume import NewVolume

Object = dict[str, Any]

MOST_PLACES_BYTES = 64 << 10
"""A longer list of places is not noted; a repeat after a restart then works it out anew."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What is to be called, and what for."""

    outline: provision.Outline
    origin: source.Origin | None
    new: NewVolume
    secrets: Mapping[str, str]

    @property
    def places_text(self) -> str:
        """The places as they are noted; empty when there are none, or too many."""
        if not self.new.requisite:
            return ""
        value = {"requisite": self.new.requisite, "preferred": self.new.preferred}
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        return text if len(text) <= MOST_PLACES_BYTES else ""


class Asking:
    """Works out requests."""

    def __init__(self, parts: Parts, options: provision.Options, rules: topology.Rules) -> None:
        self._parts = parts
        self._options = options
        self._rules = rules

    async def request(self, claim: Object, klass: Object, node: str, *, repeat: bool) -> Request | Refusal | Ignored:
        """The request for a claim that is wanted. `repeat`: a call may be under way, so the same places are named."""
        can = self._parts.view().capabilities
        reference = path(claim, "spec", "dataSourceRef") or {}
        grants = self._parts.scene.grants.find("by-namespace", str(reference.get("namespace") or ""))
        origin = source.origin(claim, across_namespaces=self._options.across_namespaces, grants=grants)
        if isinstance(origin, Refusal | Ignored):
            return origin
        lack = provision.lacking(origin, provision.attributes_class(claim, self._options), can)
        if lack is not None:
            return lack
        outline = provision.outline(claim, klass, self._options, can)
        if isinstance(outline, Refusal):
            return outline
        content = None if origin is None else await self._handle(claim, klass, origin)
        if isinstance(content, Refusal):
            assert origin is not None
            return source.in_words(origin, content)
        places = self._places(claim, klass, node, can, repeat=repeat)
        if isinstance(places, Refusal):
            return places
        return await self._complete(outline, origin, content, places)

    async def lenient(self, claim: Object, klass: Object, node: str) -> Request | Refusal:
        """The same request for a claim that is not wanted any more: whether it may be filled is no question now."""
        can = self._parts.view().capabilities
        outline = provision.outline(claim, klass, self._options, can)
        if isinstance(outline, Refusal):
            return outline
        origin = source.named(claim)
        content = None if origin is None else await self._lost(claim, origin)
        if isinstance(content, Refusal):
            return content
        places = self._places(claim, klass, node, can, repeat=True)
        if isinstance(places, Refusal):
            places = topology.Places()
        return await self._complete(outline, origin, content, places)

    async def _handle(self, claim: Object, klass: Object, origin: source.Origin) -> source.Handle | Refusal:
        match origin:
            case source.FromSnapshot(namespace, name):
                snapshot = await self._parts.snapshot(namespace, name)
                content_name = source.bound_content(snapshot, name)
                if isinstance(content_name, Refusal):
                    return content_name
                assert snapshot is not None
                content = await self._parts.read(names.CONTENTS, "", content_name)
                return source.check_snapshot(claim, klass, snapshot, content, guard_mode=self._options.guard_mode)
            case source.FromClaim():
                item, volume = await self._cloned(origin)
                return source.check_claim(claim, klass, origin, item, volume)
            case _:
                assert_never(origin)

    async def _lost(self, claim: Object, origin: source.Origin) -> source.Handle | Refusal:
        snapshot = content = volume = None
        if isinstance(origin, source.FromSnapshot):
            snapshot = await self._parts.read(names.SNAPSHOTS, origin.namespace, origin.name)
            name = path(snapshot, "status", "boundVolumeSnapshotContentName")
            content = await self._parts.read(names.CONTENTS, "", name) if name else None
        else:
            _, volume = await self._cloned(origin)
        handle = source.lenient_handle(origin, snapshot, content, volume)
        return handle or Refusal(
            f"a volume may have been made from {origin}, which is gone, so that it cannot be found to be deleted: "
            f"look for {provision.volume_name(claim['metadata']['uid'], self._options)} at the backend, then set the "
            f'annotation {names.ABANDON}="true"',
            State.NO_CHANGE,
        )

    async def _cloned(self, origin: source.FromClaim) -> tuple[Object | None, Object | None]:
        item = self._parts.scene.claims.get(origin.namespace, origin.name)
        name = path(item, "spec", "volumeName")
        return item, await self._parts.read(names.VOLUMES, "", name) if name else None

    def _places(
        self, claim: Object, klass: Object, node: str, can: frozenset[Capability], *, repeat: bool
    ) -> topology.Places | Refusal:
        if Capability.VOLUME_ACCESSIBILITY_CONSTRAINTS not in can:
            return topology.Places()
        if repeat:
            try:
                kept = orjson.loads(provision.notes(claim).get(names.PLACES) or "null")
            except orjson.JSONDecodeError:
                kept = None
            places = topology.remembered(kept, klass)
            if places is not None:
                return places
        scene = self._parts.scene
        where = topology.Map(
            self._parts.driver,
            {item["metadata"]["name"]: item for item in scene.csi_nodes.all()},
            {item["metadata"]["name"]: item["metadata"]["labels"] for item in scene.nodes.all()},
        )
        return topology.require(claim["metadata"]["name"], klass, node, where, self._rules)

    async def _complete(
        self,
        outline: provision.Outline,
        origin: source.Origin | None,
        content: source.Handle | None,
        places: topology.Places,
    ) -> Request | Refusal:
        mutable: Mapping[str, str] = {}
        if outline.attributes_class:
            found = await self._attributes(outline.attributes_class)
            if isinstance(found, Refusal):
                return found
            mutable = found
        reference = outline.secrets.get("provisioner")
        secrets: Mapping[str, str] = {}
        if reference is not None:
            try:
                secrets = await self._parts.secrets.resolve(
                    SecretRef("k8s", f"{reference.namespace}/{reference.name}")
                )
            except BridgeError as error:
                text = f"error getting secret {reference.name} in namespace {reference.namespace}: {error}"
                return Refusal(text, State.NO_CHANGE)
        new = NewVolume(
            name=outline.name,
            driver=self._parts.driver,
            content=content,
            required_bytes=outline.required_bytes,
            mode=outline.mode,
            access_modes=outline.access_modes,
            fs_type=outline.fs_type,
            parameters=outline.parameters,
            mount_flags=outline.mount_flags,
            mutable_parameters=mutable,
            requisite=places.requisite,
            preferred=places.preferred,
        )
        return Request(outline, origin, new, secrets)

    async def _attributes(self, name: str) -> Mapping[str, str] | Refusal:
        item = await self._parts.read(names.ATTRIBUTES_CLASSES, "", name)
        if item is None:
            return Refusal(f'volumeattributesclasses.storage.k8s.io "{name}" not found', State.NO_CHANGE)
        driver = item.get("driverName")
        if driver != self._parts.driver:
            return Refusal(
                f"VAC {name} referenced in PVC is for driver {driver} which does not match driver name "
                f"{self._parts.driver}"
            )
        parameters: Mapping[str, str] = item.get("parameters") or {}
        return parameters
