"""What a test can do to the agent's answers: delay, refuse, lose the reply; and the log of requests.

It must not know an endpoint.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from tests.support.nomad.answers import Refusal


@dataclass(frozen=True, slots=True)
class Call:
    """One request that came in; status 0 means that the connection was cut instead of an answer."""

    method: str
    path: str
    query: dict[str, str]
    status: int
    token: str
    seconds: float


@dataclass(slots=True)
class _Fault:
    method: str
    path: str
    times: int
    status: int = 500
    text: str = ""
    cut: str = ""  # "", "before" or "after" the effect
    seconds: float = 0.0
    done: bool = False  # the error is told of what has taken effect

    def matches(self, method: str, path: str) -> bool:
        return self.times != 0 and self.method in ("*", method) and fnmatch.fnmatchcase(path, self.path)


class Wire(Protocol):
    """Told of each request that comes in; it may say that the caller is dead."""

    def leaves(self, what: str) -> object | None:
        """Before the effect: what stands for the request, or None when it never came."""
        ...

    def arrives(self, point: object) -> bool:
        """After the effect: whether anybody is there for the answer."""
        ...


@dataclass(slots=True)
class Faults:
    """The faults that wait for their request."""

    waiting: list[_Fault] = field(default_factory=list)
    wire: Wire | None = None

    def add(
        self, method: str, path: str, *, times: int, status: int = 500, text: str = "", cut: str = "",
        done: bool = False,
    ) -> None:  # fmt: skip
        self.waiting.append(_Fault(method, path, times, status, text, cut, done=done))

    def delay(self, method: str, path: str, seconds: float) -> None:
        self.waiting.append(_Fault(method, path, -1, seconds=seconds))

    def clear(self) -> None:
        self.waiting.clear()

    async def around(
        self, request: web.Request, path: str, serve: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse | None:
        """Serve the request with the faults that match it. None if the connection was cut."""
        wire = self.wire
        if wire is None:
            return await self._struck(request, path, serve)
        point = wire.leaves(f"{request.method} {path}")
        response = await self._struck(request, path, serve) if point is not None else None
        if point is not None and wire.arrives(point):
            return response
        if request.transport is not None:
            request.transport.abort()
        return None

    async def _struck(
        self, request: web.Request, path: str, serve: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse | None:
        found = [fault for fault in self.waiting if fault.matches(request.method, path)]
        for fault in found:
            if fault.seconds:
                await asyncio.sleep(fault.seconds)
        fault = next((each for each in found if not each.seconds), None)
        if fault is None:
            return await serve()
        fault.times -= fault.times > 0
        if not fault.cut:
            if fault.done:
                await serve()
            raise Refusal(fault.status, fault.text)
        if fault.cut == "after":
            await serve()
        if request.transport is not None:
            request.transport.abort()
        return None
