"""/livez, /readyz, /healthz and /metrics: for probes and scrapers, without a credential."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from bridge.api.problems import Problem
from bridge.ports.health import Check, Health


class Measures(Protocol):
    """What the API needs of the metrics."""

    @property
    def content_type(self) -> str:
        """Of what `exposition` returns."""
        ...

    def look(self) -> None:
        """Read the present state, on the loop; always called before `exposition`."""
        ...

    def exposition(self) -> bytes:
        """All series as text. May take tens of milliseconds: called in a thread."""
        ...

    def request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is a template, never a path."""
        ...


class Probes:
    """The handlers, over the health port and the metrics."""

    def __init__(self, health: Health, measures: Measures) -> None:
        self._health = health
        self._measures = measures

    async def livez(self, request: web.Request) -> web.Response:
        """200 while the service's own tasks run."""
        sentence = self._health.alive()
        if sentence:
            raise Problem(503, sentence, code="NOT_ALIVE", hint="restart the service")
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """200 when requests can be served; `?verbose` names every check."""
        checks = self._health.checks()
        failed = [check for check in checks if check.sentence and check.fatal]
        if "verbose" in request.query:
            return web.Response(text=_report(checks, not failed), status=503 if failed else 200)
        if failed:
            detail = "; ".join(f"{check.name}: {check.sentence}" for check in failed)
            raise Problem(503, detail, code="NOT_READY", hint="see /readyz?verbose")
        return web.Response(text="ok\n")

    async def metrics(self, request: web.Request) -> web.Response:
        """Every series in the Prometheus text format."""
        self._measures.look()
        body = await asyncio.to_thread(self._measures.exposition)
        return web.Response(body=body, headers={"Content-Type": self._measures.content_type})


def _report(checks: Sequence[Check], ready: bool) -> str:
    lines = []
    for check in checks:
        if not check.sentence:
            lines.append(f"[+] {check.name} ok")
        else:
            lines.append(f"[{'-' if check.fatal else '!'}] {check.name}: {check.sentence}")
    lines.append("ready" if ready else "not ready")
    return "\n".join(lines) + "\n"
