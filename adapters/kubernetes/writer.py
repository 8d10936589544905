"""Writes with preconditions, whose answers are folded into the caches at once.

A write that meets a newer object changes nothing: the object is read anew and ConflictError is raised, so that
the next pass sees the world as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from adapters.kubernetes.cache import Cache
from adapters.kubernetes.client import Client
from adapters.kubernetes.names import Resource
from adapters.kubernetes.problem import ApiError, as_bridge_error
from bridge.model import failure

Object = dict[str, Any]
Acting = Callable[[str], AbstractAsyncContextManager[None]]
"""Wraps a write for a driver (empty: not known here): raises before it when this process may not act."""


def always(_driver: str = "") -> AbstractAsyncContextManager[None]:
    """Without leader election nothing stands in the way."""
    return contextlib.nullcontext()


class Cached(Protocol):
    """What keeps the caches into which the answers to our writes are folded."""

    @property
    def caches(self) -> Mapping[Resource, Cache]: ...


class Writer:
    """One cluster's writes."""

    def __init__(self, client: Client, world: Cached, acting: Acting = always) -> None:
        self._client = client
        self._acting = acting
        self._caches = dict(world.caches)

    def also(self, caches: Mapping[Resource, Cache]) -> None:
        """Fold the answers about these kinds too."""
        self._caches.update(caches)

    async def put(self, resource: Resource, body: Object, *, status: bool = False, own: bool = False) -> Object:
        """Replace an object that we read; its resourceVersion is the precondition.

        `own`: the turn of this very object writes it and goes on from the answer, so it need not be woken by it.
        Nothing of others is missed: what they wrote before fails the precondition, what comes later is news.
        """
        metadata = body["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        try:
            async with self._acting(_driver(resource, body)):
                answer = await self._client.put(resource, body, status=status)
        except ApiError as error:
            raise await self._after(error, resource, namespace, name) from error
        self._caches[resource].fold(answer, own=own)
        return answer

    async def create(self, resource: Resource, namespace: str, body: Object, *, own: bool = False) -> Object:
        """Create an object; ConflictError when it exists already, which is then known. `own` as in `put`."""
        try:
            async with self._acting(_driver(resource, body)):
                answer = await self._client.create(resource, namespace, body)
        except ApiError as error:
            raise await self._after(error, resource, namespace, body["metadata"]["name"]) from error
        self._caches[resource].fold(answer, own=own)
        return answer

    async def check(self, resource: Resource, namespace: str, body: Object) -> None:
        """Raise what `create` would, and create nothing. A name that is taken is no error here."""
        try:
            await self._client.create(resource, namespace, body, dry_run=True)
        except ApiError as error:
            if not error.conflict:
                name = body["metadata"]["name"]
                raise as_bridge_error(error, f"writing {resource.kind} {namespace}/{name}") from error

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, body: Object, *, own: bool = False
    ) -> Object:
        """Merge into an object; give its resourceVersion in `body`. `own`: the change concerns no turn at all."""
        try:
            async with self._acting(_driver(resource, body)):
                answer = await self._client.merge_patch(resource, namespace, name, body)
        except ApiError as error:
            raise await self._after(error, resource, namespace, name) from error
        self._caches[resource].fold(answer, own=own)
        return answer

    async def delete(self, resource: Resource, item: Object, *, exact: bool = True) -> Object | None:
        """Delete an object if it is still that one (`exact`: still in that version).

        Returns it with its deletion timestamp, or None when it is gone.
        """
        metadata = item["metadata"]
        namespace, name, uid = metadata.get("namespace", ""), metadata["name"], metadata["uid"]
        version = metadata["resourceVersion"] if exact else ""
        try:
            async with self._acting(_driver(resource, item)):
                answer = await self._client.delete(resource, namespace, name, uid=uid, resource_version=version)
        except ApiError as error:
            if error.missing:
                self._caches[resource].forget(namespace, name, uid)
                return None
            raise await self._after(error, resource, namespace, name) from error
        if answer.get("kind") == "Status" or not (answer.get("metadata") or {}).get("finalizers"):
            self._caches[resource].forget(namespace, name, uid)
            return None
        self._caches[resource].fold(answer)
        return answer

    async def refresh(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Read one object anew; None when it is gone."""
        cache = self._caches[resource]
        known = cache.get(namespace, name)
        try:
            answer = await self._client.get(resource, namespace, name)
        except ApiError as error:
            if not error.missing:
                raise as_bridge_error(error, f"reading {resource.kind} {name}") from error
            if known is not None:
                cache.forget(namespace, name, known["metadata"]["uid"])
            return None
        cache.fold(answer)
        return answer

    async def read_chosen(self, resource: Resource, namespace: str, label_selector: str) -> None:
        """Read the objects of a namespace that a selector chooses as they stand now: a watch may be behind."""
        chosen = dataclasses.replace(resource, label_selector=label_selector)
        try:
            async for item in self._client.list(chosen, namespace):
                self._caches[resource].fold(item)
        except ApiError as error:
            raise as_bridge_error(error, f"reading {resource.plural} of {namespace}") from error

    async def _after(self, error: ApiError, resource: Resource, namespace: str, name: str) -> failure.BridgeError:
        what = f"writing {resource.kind} {f'{namespace}/' if namespace else ''}{name}"
        if error.missing or error.conflict:
            await self.refresh(resource, namespace, name)
            return failure.ConflictError(f"{what}: {error.message}")
        return as_bridge_error(error, what)


def _driver(resource: Resource, item: Object) -> str:
    """A content names its driver; for other kinds only the cluster's lease is asked for."""
    spec = item.get("spec") if resource.kind.endswith("Content") else None
    return str(spec.get("driver") or "") if isinstance(spec, dict) else ""
