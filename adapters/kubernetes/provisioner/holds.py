"""Protection of sources: upstream's finalizers on snapshots that are restored and claims that are cloned.

Upstream's finalizer is one per source, and its readers know that name. Here all restores of one source share it: it
is taken when there is none, and dropped only when nothing is made from the source any more, by the notes on claims.
Taking and dropping of one source never overlap; the note is written before the hold is taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.decide import source
from adapters.kubernetes.facts import path
from adapters.kubernetes.names import Resource
from adapters.kubernetes.provisioner.parts import Parts
from adapters.kubernetes.provisioner.scene import origin_of, source_key
from bridge.model.failure import ConflictError, DeniedError, NotFoundError

Object = dict[str, Any]
log = logging.getLogger(__name__)

LOCKS = 64


class Holds:
    """Takes and drops the finalizers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._locks = [asyncio.Lock() for _ in range(LOCKS)]
        self._ours: set[str] = set()
        """Sources that this process has made volumes from."""
        self._denied = False
        self.settled: Callable[[str], bool] = lambda _uid: False
        """Whether nothing is under way for a noted claim (its uid): it failed for good and waits to be tried again.
        It does not keep its source from going."""

    async def take(self, where: source.Origin) -> None:
        """Have the finalizer on the source. Without the right to write snapshots the restore goes on unprotected."""
        key = source_key(where)
        resource, finalizer = _place(where)
        self._ours.add(key)
        async with self._alone(key):
            cache = self._parts.scene.caches.get(resource)
            known = cache.get(where.namespace, where.name) if cache is not None else None
            if known is not None and finalizer in (known["metadata"].get("finalizers") or ()):
                return
            item = await self._parts.read(resource, where.namespace, where.name)
            if item is None:
                raise NotFoundError(f"{resource.kind} {where} is gone")
            await self._write(resource, item, finalizer, held=True)

    async def turn(self, key: str) -> float | None:
        """Drop the finalizer if nothing is made from the source any more."""
        self._parts.check()
        where = origin_of(key)
        resource, finalizer = _place(where)
        async with self._alone(key):
            if self._is_needed(key, where):
                return None
            item = await self._parts.read(resource, where.namespace, where.name)
            if item is not None and (resource is names.SNAPSHOTS or item["metadata"].get("deletionTimestamp")):
                await self._write(resource, item, finalizer, held=False)
        self._ours.discard(key)
        return None

    def _is_needed(self, key: str, where: source.Origin) -> bool:
        scene = self._parts.scene
        if not all(self.settled(uid) for uid in scene.under_way(key)):
            return True
        if isinstance(where, source.FromSnapshot):
            # A restore that another provisioner has under way shows only as a claim that waits.
            return key not in self._ours and scene.is_awaited(key)
        claim = scene.claims.get(where.namespace, where.name)
        volume = scene.volumes.get("", path(claim, "spec", "volumeName") or "")
        return volume is not None and path(volume, "spec", "csi", "driver") != self._parts.driver

    async def _write(self, resource: Resource, item: Object, finalizer: str, *, held: bool) -> None:
        """PUT with the version that was read. Somebody else's write meanwhile is a ConflictError: look again."""
        metadata = dict(item["metadata"])
        before = list(metadata.get("finalizers") or ())
        if (finalizer in before) is held:
            return
        metadata["finalizers"] = [*before, finalizer] if held else [one for one in before if one != finalizer]
        metadata.pop("managedFields", None)
        try:
            await self._parts.writer.put(resource, {**item, "metadata": metadata})
        except DeniedError as error:
            if resource is not names.SNAPSHOTS:
                raise
            if not self._denied:
                log.warning("restores go on without protection of their snapshots", extra={"error": str(error)})
            self._denied = True
        except ConflictError:
            if held or await self._parts.read(resource, metadata.get("namespace", ""), metadata["name"]) is not None:
                raise

    def _alone(self, key: str) -> asyncio.Lock:
        """A lock that this source shares with few others."""
        return self._locks[hash(key) % LOCKS]


def _place(where: source.Origin) -> tuple[Resource, str]:
    if isinstance(where, source.FromSnapshot):
        return names.SNAPSHOTS, names.RESTORE_FINALIZER
    return names.CLAIMS, names.CLONE_FINALIZER
