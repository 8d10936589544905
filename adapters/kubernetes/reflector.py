"""Keeps one cache true: list, watch, and start again without a storm when the server misbehaves.

A watch that ends at once, an error or a silence are all answered with a growing pause; only a stream that
lived for a while sets the pause back. An expired position (410) means a new list.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable, Iterable

from adapters.kubernetes import client as clients
from adapters.kubernetes import watch
from adapters.kubernetes.cache import Cache
from adapters.kubernetes.names import Resource
from adapters.kubernetes.problem import ApiError
from bridge.model import failure

log = logging.getLogger(__name__)

CATCH_UP_SECONDS = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """The pauses of a reflector, in seconds."""

    first: float = 0.2
    most: float = 15.0
    settled: float = 5.0
    """A stream that lived this long counts as healthy."""
    watch: float = 290.0
    """How long the server may keep a watch open."""
    idle: float = 120.0
    """A watch that is silent for longer is opened again."""


def patient(most_seconds: float) -> Pace:
    """A pace with this longest pause."""
    return Pace(most=max(most_seconds, Pace().first))


class Reflector:
    """One kind of object. `run` goes on until it is cancelled."""

    def __init__(
        self,
        client: clients.Client,
        resource: Resource,
        cache: Cache,
        *,
        pace: Pace | None = None,
        on_synced: Callable[[], None] | None = None,
        on_found: Callable[[str, str], None] | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._cache = cache
        self._pace = pace or Pace()
        self._on_synced = on_synced
        self._on_found = on_found
        """For a kind that may be done without: told why it cannot be read, or that it can (empty)."""
        self._version = ""
        self._pause = self._pace.first
        self._listed = False
        self.plural = resource.plural
        self.sentence = f"{resource.plural} are not read yet"
        """Empty while the cache is complete; else why it is not."""

    async def run(self) -> None:
        """List and watch until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                if not self._version:
                    await self._list()
                started = loop.time()
                await self._watch()
                trouble = ""
            except ApiError as error:
                trouble = self._refused(error)
            except failure.BridgeError as error:
                trouble = str(error)
            lived = loop.time() - started
            if lived >= self._pace.settled:
                self._pause = self._pace.first
            if trouble:
                log.warning("watching %s: %s; again in %.1f s", self._resource.plural, trouble, self._pause)
            await asyncio.sleep(self._pause * random.uniform(0.8, 1.2))
            self._pause = min(self._pause * 2, self._pace.most)

    def _refused(self, error: ApiError) -> str:
        if error.expired:
            self._version = ""
            return "the position is too old, listing again"
        if self._is_without(error):
            self.sentence, self._version = "", ""
            return ""
        if error.missing and self._resource.api_version.startswith("snapshot."):
            hint = "install them: kubectl apply -f configs/kubernetes/crds"
            self.sentence = f"the cluster has no {self._resource.plural} ({self._resource.api_version}); {hint}"
            return self.sentence
        if not self._listed:
            self.sentence = f"{self._resource.plural} cannot be read: {error.message}"
        return f"{error.status} {error.reason}: {error.message}"

    async def catch_up(self) -> None:
        """Make the cache at least as new as this instant; the watch goes on from where it was."""
        try:
            await self._read()
        except ApiError as error:
            if not self._is_without(error):
                raise

    def _is_without(self, error: ApiError) -> bool:
        """Whether this is a kind that may be done without, and is not served or not allowed to us."""
        if self._on_found is None or not (error.missing or error.status == 403):
            return False
        why = f"the cluster has no {self.plural} ({self._resource.api_version})"
        self._on_found(self.plural, why if error.missing else f"{self.plural} cannot be read: {error.message}")
        return True

    async def _list(self) -> None:
        self._version = await self._read()
        self._listed = True
        self.sentence = ""
        if self._on_found is not None:
            self._on_found(self.plural, "")
        if self._on_synced is not None:
            self._on_synced()

    async def _read(self) -> str:
        """Read everything as of one point in time, page by page; what the list lacks goes at the end."""
        places: dict[tuple[str, str], str] = {}
        token, version = "", ""
        while True:
            page = await self._client.page(self._resource, token=token)
            metadata = page.get("metadata") or {}
            version = version or metadata.get("resourceVersion") or ""
            for item in page.get("items") or ():
                own = item["metadata"]
                places[own.get("namespace", ""), own["name"]] = own.get("uid", "")
                self._cache.fold(item)
            token = metadata.get("continue") or ""
            if not token:
                break
        self._cache.replace(places, version)
        return version

    async def _watch(self) -> None:
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(self._pace.watch * random.uniform(0.9, 1.1)) or 1),
        }
        async with self._client.stream(self._resource, query, idle_seconds=self._pace.idle) as reader:
            async for event in watch.events(reader):
                metadata = event.object.get("metadata") or {}
                version = metadata.get("resourceVersion") or ""
                if event.kind == "DELETED":
                    place = metadata.get("namespace", ""), metadata["name"]
                    self._cache.forget(*place, metadata.get("uid", ""), version=version)
                elif event.kind in ("ADDED", "MODIFIED"):
                    self._cache.fold(event.object)
                if version:
                    self._version = version


async def catch_up(reflectors: Iterable[Reflector]) -> None:
    """Read everything as it stands now, each kind on its own: after a lease was won. The first failure is raised
    when all have ended; TimeoutError after CATCH_UP_SECONDS."""
    async with asyncio.timeout(CATCH_UP_SECONDS):
        reads = (reflector.catch_up() for reflector in reflectors)
        for failed in await asyncio.gather(*reads, return_exceptions=True):
            if failed is not None:
                raise failed
