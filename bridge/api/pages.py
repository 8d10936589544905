"""Health and metrics pages of a process without an API: for probes and scrapers, without a credential."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from bridge.api import wire
from bridge.api.health import Measures, Probes
from bridge.api.problems import Problem
from bridge.model.failure import InvalidError, UnavailableError
from bridge.ports.health import Health
from bridge.ports.role import Page


def make_pages(
    health: Health, measures: Measures, *, metrics_path: str, more: Callable[[], Mapping[str, Page]]
) -> web.Application:
    """The application with /livez, /readyz, /healthz, the metrics, and what the role adds (its own wins)."""
    probes = Probes(health, measures)
    paths = {
        "/livez": probes.livez,
        "/readyz": probes.readyz,
        "/healthz": probes.readyz,
        metrics_path: probes.metrics,
    }

    async def handle(request: web.Request) -> web.Response:
        page = more().get(request.path)
        if page is not None:
            answer = page()
            status, text = await answer if isinstance(answer, Awaitable) else answer
            return web.Response(status=status, text=text)
        handler = paths.get(request.path)
        if handler is None:
            return web.Response(status=404, text="there is nothing here\n")
        try:
            return await handler(request)
        except Problem as problem:
            return web.Response(status=problem.status, text=f"{problem.detail}\n")

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    return app


def address_of(text: str) -> tuple[str, int]:
    """HOST:PORT or :PORT (all addresses, as Go reads it). InvalidError says what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidError(f"{text!r} is no address", field="--http-endpoint", hint="Write HOST:PORT or :PORT")
    return host.strip("[]"), int(port)


async def listen(app: web.Application, address: str) -> web.AppRunner:
    """Serve in the background until the runner is cleaned up. UnavailableError when the address is taken."""
    host, port = address_of(address)
    runner = wire.Runner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host or None, port).start()
    except OSError as error:
        await runner.cleanup()
        raise UnavailableError(
            f"cannot listen on {address}: {error.strerror or error}", field="--http-endpoint", hint="Choose another"
        ) from error
    return runner
