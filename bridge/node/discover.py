"""Finds plugin sockets on this host and announces them to the local registry. Opens none of them itself."""

from __future__ import annotations

import asyncio
import glob
import logging
import os

from bridge.node.settings import AgentSettings
from bridge.ports.clock import Clock
from bridge.ports.transport import LocalPlugins

log = logging.getLogger(__name__)


class Finder:
    """Looks at the configured places again and again; level, not edge: nothing is missed by being late."""

    def __init__(self, settings: AgentSettings, plugins: LocalPlugins, clock: Clock) -> None:
        self._settings = settings
        self._plugins = plugins
        self._clock = clock
        self._missing_since: dict[str, float] = {}
        self._known: set[str] = set()

    async def run(self) -> None:
        """Scan until cancelled."""
        for path in self._settings.paths:
            await self._plugins.ensure_socket(path, path, node=self._settings.node)
        while True:
            try:
                await self.scan()
            except OSError as error:
                log.warning("the plugin directories cannot be read", extra={"reason": str(error)})
            await self._clock.sleep(self._settings.scan_interval_seconds)

    async def scan(self) -> None:
        """One look: new sockets are announced, those that are gone for long enough are taken back."""
        found = await asyncio.to_thread(_matches, self._settings.patterns)
        now = self._clock.now()
        for path in sorted(found - set(self._settings.paths)):
            self._missing_since.pop(path, None)
            if path not in self._known:
                self._known.add(path)
                log.info("a plugin socket was found", extra={"path": path})
                await self._plugins.ensure_socket(path, path, node=self._settings.node)
        for path in sorted(self._known - found):
            since = self._missing_since.setdefault(path, now)
            if now - since >= self._settings.gone_after_seconds:
                self._known.discard(path)
                del self._missing_since[path]
                log.info("a plugin socket is gone", extra={"path": path})
                await self._plugins.ensure_no_instance(path)


def _matches(patterns: tuple[str, ...]) -> set[str]:
    """All paths that match; two that are one file by a symbolic link count once."""
    found: dict[str, str] = {}
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            found.setdefault(os.path.realpath(path), path)
    return set(found.values())
