"""Which classes are the default of a driver now: a watch of each kind of class that is checked."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence

from adapters.kubernetes.cache import Cache
from adapters.kubernetes.client import Client
from adapters.kubernetes.decide import admission
from adapters.kubernetes.names import Resource
from adapters.kubernetes.reflector import Pace, Reflector
from bridge.model import failure

_INDEX = "default"


class DefaultClasses:
    """Knows the default classes of the given kinds. `run` keeps the knowledge true."""

    def __init__(self, client: Client, kinds: Sequence[admission.Kind], pace: Pace | None = None) -> None:
        self._caches: dict[str, Cache] = {}
        self._reflectors: list[Reflector] = []
        for kind in kinds:
            cache = Cache(lambda item: item, {_INDEX: functools.partial(admission.default_drivers, kind)})
            resource = Resource(kind.name, f"{kind.group}/v1", kind.plural, False)
            self._caches[kind.name] = cache
            self._reflectors.append(Reflector(client, resource, cache, pace=pace))

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run(), name=f"webhook-{reflector.plural}")

    def sentence(self) -> str:
        """Empty when every kind has been read; else what is missing."""
        return "; ".join(reflector.sentence for reflector in self._reflectors if reflector.sentence)

    def of(self, kind: admission.Kind, driver: str) -> list[str]:
        """The names of a driver's default classes. NotSyncedError while they have not been read."""
        cache = self._caches[kind.name]
        if not cache.synced:
            raise failure.NotSyncedError(f"the {kind.plural} are not read yet")
        return [str(item["metadata"]["name"]) for item in cache.find(_INDEX, driver)]
