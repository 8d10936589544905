"""A client of the API server whose process dies at one of its writes, before or after it took effect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from adapters.kubernetes.client import Client, Object
from adapters.kubernetes.connection import Connection
from tests.support.memory import Crash


class Mortal(Client):
    """Dies at a chosen write, counted from `begun` on where it is given, and is dead for every later request."""

    def __init__(self, way: Connection, *, at: int, after: bool, begun: asyncio.Event | None = None) -> None:
        super().__init__(way)
        self._left = at
        self._after = after
        self._begun = begun
        self.dead = False

    async def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        *,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        if self.dead:
            raise Crash
        if method == "GET" or (self._begun is not None and not self._begun.is_set()):
            return await super()._call(method, path, body, content_type, query=query)
        self._left -= 1
        if self._left >= 0:
            return await super()._call(method, path, body, content_type, query=query)
        self.dead = True
        if self._after:
            await super()._call(method, path, body, content_type, query=query)
        raise Crash
