"""The hold on a source claim: one finalizer, shared by all snapshots of the claim that are under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from adapters.kubernetes import names
from adapters.kubernetes.facts import is_deleting
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ConflictError

TRIES = 5
"""A claim has many writers, so a conflict is met here instead of by a whole new pass."""


class ClaimHolds:
    """Adds and removes the finalizer; one writer per claim at a time."""

    def __init__(
        self, world: World, writer: Writer, *, shared: Callable[[str, str, str], bool] | None = None
    ) -> None:
        """`shared(namespace, name, uid)`: whether another snapshot than `uid` needs the claim."""
        self._world = world
        self._writer = writer
        self._shared = shared or world.claim_is_held_for_others
        self._locks: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    async def take(self, namespace: str, name: str) -> None:
        """Hold the claim. A claim that is missing or being deleted is left as it is."""
        async with self._alone(namespace, name):
            await self._change(namespace, name, held=True)

    async def drop(self, namespace: str, name: str, uid: str) -> None:
        """Let the claim go, unless another snapshot than `uid` needs it."""
        if not self._is_held(namespace, name):
            return
        async with self._alone(namespace, name):
            if not self._shared(namespace, name, uid):
                await self._change(namespace, name, held=False)

    def _is_held(self, namespace: str, name: str) -> bool:
        claim = self._world.claims.get(namespace, name)
        return claim is not None and names.CLAIM_FINALIZER in (claim["metadata"].get("finalizers") or ())

    async def _change(self, namespace: str, name: str, *, held: bool) -> None:
        for attempt in range(TRIES):
            claim = self._world.claims.get(namespace, name)
            if claim is None or (held and is_deleting(claim)):
                return
            finalizers = list(claim["metadata"].get("finalizers") or ())
            if (names.CLAIM_FINALIZER in finalizers) is held:
                return
            wanted = [finalizer for finalizer in finalizers if finalizer != names.CLAIM_FINALIZER]
            if held:
                wanted.append(names.CLAIM_FINALIZER)
            metadata = {"resourceVersion": claim["metadata"]["resourceVersion"], "finalizers": wanted}
            try:
                await self._writer.merge_patch(names.CLAIMS, namespace, name, {"metadata": metadata})
                return
            except ConflictError:
                if attempt + 1 == TRIES:
                    raise

    @contextlib.asynccontextmanager
    async def _alone(self, namespace: str, name: str) -> AsyncIterator[None]:
        place = (namespace, name)
        lock, users = self._locks.get(place, (asyncio.Lock(), 0))
        self._locks[place] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[place]
            if users == 1:
                del self._locks[place]
            else:
                self._locks[place] = (lock, users - 1)
