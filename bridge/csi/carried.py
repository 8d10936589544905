"""A plugin that is reached over a transport given from outside (a node agent's stream), as a link like any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from bridge.model.plugin import Route
from bridge.ports.clock import Clock
from bridge.ports.transport import Transport, TransportError


class _Switch:
    """Implements Transport over whichever transport is the current one."""

    def __init__(self, current: Transport) -> None:
        self.current = current
        self.sentence = ""

    async def unary(self, method: str, request: bytes, *, deadline_seconds: float) -> bytes:
        return await self._way().unary(method, request, deadline_seconds=deadline_seconds)

    def stream(self, method: str, request: bytes, *, deadline_seconds: float) -> AsyncGenerator[bytes, None]:
        return self._way().stream(method, request, deadline_seconds=deadline_seconds)

    def _way(self) -> Transport:
        if self.sentence:
            raise TransportError("UNAVAILABLE", self.sentence, sent=False)
        return self.current


class CarriedLink:
    """A link whose ups and downs are told from outside by `update`."""

    route = Route.NODE_AGENT

    def __init__(self, transport: Transport, sentence: str, *, endpoint: str, clock: Clock) -> None:
        self.endpoint = endpoint
        self.transport = _Switch(transport)
        self.transport.sentence = sentence
        self._clock = clock
        self._turns = 0
        self._changed = asyncio.Event()

    @property
    def epoch(self) -> str:
        """Another one after each change of the transport."""
        return str(self._turns)

    def update(self, transport: Transport, sentence: str) -> None:
        """The way to the plugin, and why it cannot be used now (empty: it can). The same again changes nothing."""
        if transport is self.transport.current and sentence == self.transport.sentence:
            return
        self.transport.current, self.transport.sentence = transport, sentence
        self._turns += 1
        self._changed.set()

    async def connect(self) -> str:
        """Nothing to dial: the sentence tells."""
        self._changed.clear()
        return self.transport.sentence

    async def lost(self) -> None:
        """Return at the next change."""
        await self._changed.wait()

    async def pause(self, seconds: float) -> None:
        """Wait before another try; while it is known to be down, wait for the news that it is not."""
        if self.transport.sentence:
            await self._changed.wait()
        else:
            await self._clock.sleep(seconds)

    async def close(self) -> None:
        """Nothing to close: the stream is its agent's."""
