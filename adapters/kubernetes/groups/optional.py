"""Kinds that a cluster may do without, or keep from us: group snapshots are then off, and nothing else suffers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from adapters.kubernetes.cache import Cache
from adapters.kubernetes.client import Client
from adapters.kubernetes.names import Resource
from adapters.kubernetes.reflector import Pace, Reflector

log = logging.getLogger(__name__)


class OptionalKinds:
    """The caches of some kinds, and which of the kinds cannot be read. It is looked for them again and again."""

    caches: Mapping[Resource, Cache]

    def __init__(self) -> None:
        self._missing: set[str] = set()

    @property
    def synced(self) -> bool:
        """Whether every kind has been read in full."""
        return not self.absent and all(cache.synced for cache in self.caches.values())

    @property
    def absent(self) -> bool:
        """Whether the cluster lacks a kind, or keeps it from us: nothing is done about groups then."""
        return bool(self._missing)

    def found(self, plural: str, why_not: str) -> None:
        """What the API server said of one kind: why it cannot be read, or nothing."""
        if not why_not:
            self._missing.discard(plural)
        elif plural not in self._missing:
            self._missing.add(plural)
            log.warning("group snapshots are off", extra={"reason": why_not})

    def reflectors(self, client: Client, *, pace: Pace | None, on_synced: Callable[[], None]) -> list[Reflector]:
        """What keeps the caches true. `on_synced` hears of each kind that was read, and once that one is missing."""

        def heard(plural: str, why_not: str) -> None:
            before = self.absent
            self.found(plural, why_not)
            if self.absent and not before:
                on_synced()

        return [
            Reflector(client, resource, cache, pace=pace, on_synced=on_synced, on_found=heard)
            for resource, cache in self.caches.items()
        ]
