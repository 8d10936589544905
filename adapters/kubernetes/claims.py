"""The hold on a source claim: one finalizer, shared by all snapshots of the claim that are under way.

Snapshots of one claim often come in a row. So when one is ready its hold is let go a little later, and the next one
finds it there. A crash in between costs nothing: a ready snapshot whose claim is held is looked at after the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.decide import binding
from adapters.kubernetes.facts import is_deleting
from adapters.kubernetes.problem import MalformedError
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import BridgeError, ConflictError, DeniedError

Object = dict[str, Any]

log = logging.getLogger(__name__)

TRIES = 5
"""A claim has many writers, so a conflict is met here instead of by a whole new pass."""
GOODBYE_SECONDS = 3.0
LINGER_SECONDS = 1.0
"""For how long a hold stays after the last snapshot that needed it."""


def needed(world: World, namespace: str, claim: str, uid: str) -> bool:
    """Whether another snapshot than `uid`, or a group, needs the hold on this claim."""
    if any(needs(namespace, claim, uid) for needs in world.other_holders):
        return True
    for snapshot in world.snapshots.each("holding-claim", f"{namespace}/{claim}"):
        other = snapshot["metadata"]["uid"]
        if other != uid and needed_by(world, other):
            return True
    return False


def needed_by(world: World, uid: str) -> bool:
    """Whether this snapshot needs the hold on its claim."""
    try:
        facts = world.facts(uid)
    except MalformedError:
        return False  # Nobody works on it.
    return facts is not None and binding.needs_claim(facts)


class ClaimHolds:
    """Adds and removes the finalizer; one writer per claim at a time."""

    def __init__(
        self, world: World, writer: Writer, *, shared: Callable[[str, str, str], bool] | None = None
    ) -> None:
        """`shared(namespace, name, uid)`: whether another snapshot than `uid` needs the claim; None for `needed`."""
        self._world = world
        self._writer = writer
        self.shared = shared or functools.partial(needed, world)
        self._locks: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}
        self._may_patch = True
        """Until the API server has said no."""
        self._due: dict[tuple[str, str], float] = {}
        self._any = asyncio.Event()
        self._lingers = False
        self.linger_seconds = LINGER_SECONDS

    async def run(self) -> None:
        """Let go of what nobody needs any more, until cancelled. Without it `drop_later` drops at once."""
        loop = asyncio.get_running_loop()
        self._lingers = True
        try:
            while True:
                await self._any.wait()
                await asyncio.sleep(max(0.0, min(self._due.values(), default=0.0) - loop.time()))
                now = loop.time()
                for place in [place for place, due in self._due.items() if due <= now]:
                    await self._drop_due(place)
                if not self._due:
                    self._any.clear()
        finally:
            self._lingers = False
            await self._say_goodbye()

    def is_held(self, namespace: str, name: str) -> bool:
        """Whether our finalizer is on the claim."""
        claim = self._world.claims.get(namespace, name)
        return claim is not None and names.CLAIM_FINALIZER in (claim["metadata"].get("finalizers") or ())

    async def take(self, namespace: str, name: str) -> None:
        """Hold the claim. A claim that is missing or being deleted is left as it is."""
        async with self._alone(namespace, name):
            await self._change(namespace, name, held=True)

    async def drop(self, namespace: str, name: str, uid: str) -> None:
        """Let the claim go, unless another snapshot than `uid` needs it."""
        if not self.is_held(namespace, name):
            return
        async with self._alone(namespace, name):
            if not self.shared(namespace, name, uid):
                await self._change(namespace, name, held=False)

    async def drop_later(self, namespace: str, name: str, uid: str) -> None:
        """`drop`, but not yet: another snapshot of the claim may want it. For a snapshot that stays."""
        if not self._lingers:
            await self.drop(namespace, name, uid)
        elif self.is_held(namespace, name):
            self._due[namespace, name] = asyncio.get_running_loop().time() + self.linger_seconds
            self._any.set()

    async def _drop_due(self, place: tuple[str, str]) -> None:
        """Nobody's drop in particular. Whoever still needs the claim drops it at its own end."""
        self._due.pop(place, None)
        try:
            await self.drop(*place, "")
        except BridgeError as error:
            log.debug(
                "a claim could not be let go; again soon", extra={"claim": "/".join(place), "error": str(error)}
            )
            self._due.setdefault(place, asyncio.get_running_loop().time() + self.linger_seconds)

    async def _say_goodbye(self) -> None:
        """At the stop what lingers is let go at once: nobody may be there to do it later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                for place in list(self._due):
                    await self._drop_due(place)

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
            try:
                await self._write(claim, wanted, held=held)
                return
            except ConflictError:
                if attempt + 1 == TRIES:
                    raise

    async def _write(self, claim: Object, wanted: list[str], *, held: bool) -> None:
        """Patch the claim; or, where only `update` is granted (upstream's rules), read it anew and write it whole."""
        own = claim["metadata"]
        if self._may_patch:
            metadata = {"resourceVersion": own["resourceVersion"], "finalizers": wanted}
            try:
                body = {"metadata": metadata}
                await self._writer.merge_patch(names.CLAIMS, own["namespace"], own["name"], body, own=True)
                return
            except DeniedError as error:
                log.info("claims may not be patched: they are updated, a read more each", extra={"error": str(error)})
                self._may_patch = False
        whole = await self._writer.refresh(names.CLAIMS, own["namespace"], own["name"])
        if whole is None or whole["metadata"]["uid"] != own["uid"] or (held and is_deleting(whole)):
            return
        finalizers = [name for name in whole["metadata"].get("finalizers") or () if name != names.CLAIM_FINALIZER]
        metadata = {**whole["metadata"], "finalizers": [*finalizers, names.CLAIM_FINALIZER] if held else finalizers}
        metadata.pop("managedFields", None)
        await self._writer.put(names.CLAIMS, {**whole, "metadata": metadata}, own=True)

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
