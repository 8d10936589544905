"""Turns of PersistentVolumes: their finalizer, and their end at the plugin and in the cluster."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, assert_never

from adapters.kubernetes import names, templates
from adapters.kubernetes.decide import persistent_volume as decide
from adapters.kubernetes.facts import path
from adapters.kubernetes.provisioner.parts import Parts, about
from bridge.model.failure import BridgeError, InvalidError, UnavailableError
from bridge.model.outcome import Failed
from bridge.model.secret import SecretRef

Object = dict[str, Any]
log = logging.getLogger(__name__)


class Reclaiming:
    """Looks at one PersistentVolume at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._deleted: set[str] = set()
        """Objects whose volume is deleted and who are not gone yet: the plugin need not be asked again."""

    async def turn(self, name: str) -> float | None:
        """One look. What fails is tried again after the loop's back-off."""
        volume = self._parts.scene.volumes.get("", name)
        if volume is None or not decide.is_ours(volume, self._parts.driver):
            return None
        self._parts.check()
        step = self._decide(volume)
        if isinstance(step, decide.Delete):
            # Not on old news: its owner may have set it to Retain a moment ago.
            fresh = await self._parts.writer.refresh(names.VOLUMES, "", name)
            if fresh is None:
                return None
            volume, step = fresh, self._decide(fresh)
        match step:
            case decide.Leave():
                pass
            case decide.Guard(finalizers):
                await self._guard(volume, finalizers)
            case decide.Blocked(message):
                await self._tell(volume, message)
                raise UnavailableError(message)
            case decide.Delete(handle):
                await self._delete(volume, handle)
            case _:
                assert_never(step)
        return None

    def _decide(self, volume: Object) -> decide.Leave | decide.Guard | decide.Delete | decide.Blocked:
        attached = self._attached_to(volume["metadata"]["name"])
        return decide.reclaim(volume, self._parts.driver, attached_to=attached, sharing=self._sharing(volume))

    async def _delete(self, volume: Object, handle: str) -> None:
        began, uid = self._parts.clock.now(), volume["metadata"]["uid"]
        if uid not in self._deleted:
            secrets = await self._secret(volume)
            outcome = await self._parts.calls().delete_volume(handle=handle, secrets=secrets)
            if isinstance(outcome, Failed):
                message = str(outcome.failure)
                await self._tell(volume, message)
                raise UnavailableError(f"the volume {handle} was not deleted: {message}")
            self._deleted.add(uid)
        left = await self._parts.writer.delete(names.VOLUMES, volume, exact=False)
        if left is not None:
            own = tuple(one for one in left["metadata"]["finalizers"] if one != names.VOLUME_FINALIZER)
            await self._guard(left, own)
        self._deleted.discard(uid)
        self._parts.meters.deleted(volume, self._parts.clock.now() - began)
        log.info("a volume is deleted", extra={"volume": volume["metadata"]["name"], "handle": handle})

    async def _guard(self, volume: Object, finalizers: tuple[str, ...]) -> None:
        metadata = volume["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": list(finalizers)}}
        await self._parts.writer.merge_patch(names.VOLUMES, "", metadata["name"], body)

    async def _secret(self, volume: Object) -> Mapping[str, str]:
        """What DeleteVolume gets. A secret that is gone does not stand in the way: the plugin decides."""
        klass = self._parts.scene.classes.get("", str(path(volume, "spec", "storageClassName") or ""))
        try:
            reference = decide.deletion_secret(volume, klass)
        except templates.TemplateError as error:
            name = volume["metadata"]["name"]
            raise InvalidError(f"failed to get secretreference for volume {name}: {error}") from error
        if reference is None:
            return {}
        try:
            return await self._parts.secrets.resolve(SecretRef("k8s", f"{reference.namespace}/{reference.name}"))
        except BridgeError as error:
            log.warning("deleting a volume without its secret", extra={"error": str(error)})
            return {}

    def _attached_to(self, name: str) -> list[str]:
        found = self._parts.scene.attachments.find("by-volume", name)
        return [str(path(item, "spec", "nodeName") or "") for item in found]

    def _sharing(self, volume: Object) -> list[str]:
        """Other PersistentVolumes of the same handle that are not on their way out."""
        csi = path(volume, "spec", "csi") or {}
        key = f"{csi.get('driver')}/{csi.get('volumeHandle')}"
        own = volume["metadata"]["uid"]
        return [
            item["metadata"]["name"]
            for item in self._parts.scene.volumes.find("by-handle", key)
            if item["metadata"]["uid"] != own and not decide.goes(item)
        ]

    async def _tell(self, volume: Object, message: str) -> None:
        self._parts.meters.not_deleted(volume)
        await self._parts.events.warn(about(names.VOLUMES, volume), "VolumeFailedDelete", message)
