"""Upstream's mark of a create under way, set late: only where a create takes long.

Our own note is in the content from its first instant and is all that we need. The mark is for upstream's sidecar,
should it be started in our place: while a content that is deleted carries the mark, the sidecar lets nothing go that
may be there. A quick create is over before anybody could act on the mark, so it is spared two writes
(docs/decisions/0008-marks.md). It decides nothing about snapshots.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from adapters.kubernetes import names, shape
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import BridgeError, ConflictError

Object = dict[str, Any]
log = logging.getLogger(__name__)

LONG_SECONDS = 1.0
"""A create that has taken so long is marked."""
TICK_SECONDS = 0.25


class Marks:
    """The contents with an open note, and since when."""

    def __init__(self, world: World, writer: Writer) -> None:
        self._world = world
        self._writer = writer
        self._open: dict[str, float] = {}
        self._moved: dict[str, tuple[str, str]] = {}
        self._any = asyncio.Event()
        self._writing = ""
        self._written = asyncio.Event()

    def opened(self, content: Object) -> None:
        """Its note is open: mark it unless that changes soon."""
        name = content["metadata"]["name"]
        if name not in self._open and not shape.is_marked(content):
            self._open[name] = asyncio.get_running_loop().time()
            self._any.set()

    async def still(self, name: str) -> None:
        """Mark it no more, and wait for a mark that is being written: the caller is about to write the content."""
        self._open.pop(name, None)
        if self._writing == name:
            await self._written.wait()

    def settled(self, name: str) -> None:
        """Its note is closed, or it is gone."""
        self._open.pop(name, None)
        self._moved.pop(name, None)

    def version_before(self, name: str, version: str) -> str:
        """The resourceVersion that our mark turned into this one; empty when the mark did not.

        Nothing but the mark lies between the two, so a record read before it is still true.
        """
        before, after = self._moved.get(name, ("", ""))
        return before if version == after else ""

    async def run(self) -> None:
        """Mark what stays open, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._any.wait()
            await asyncio.sleep(TICK_SECONDS)
            now = loop.time()
            for name in [name for name, since in self._open.items() if now - since >= LONG_SECONDS]:
                self._writing = name
                self._written.clear()
                try:
                    await self._mark(name, now)
                finally:
                    self._writing = ""
                    self._written.set()
            if not self._open:
                self._any.clear()

    async def _mark(self, name: str, now: float) -> None:
        content = self._world.contents.get("", name)
        if content is None or not shape.may_be_under_way(content) or shape.is_marked(content):
            self._open.pop(name, None)
            return
        try:
            answer = await self._writer.put(names.CONTENTS, shape.marked(content))
        except ConflictError:
            return  # The next tick sees it as it is.
        except BridgeError as error:
            log.debug("a long create could not be marked", extra={"content": name, "error": str(error)})
            if name in self._open:
                self._open[name] = now
            return
        self._open.pop(name, None)
        self._moved[name] = (content["metadata"]["resourceVersion"], answer["metadata"]["resourceVersion"])
