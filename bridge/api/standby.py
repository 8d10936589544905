"""The API of a replica that stands by: probes and metrics, and for everything else who leads. It reads no ledger."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from bridge.api.auth import Gate
from bridge.api.envelope import envelope
from bridge.api.health import Measures, Probes
from bridge.api.operations import WAITERS, Waiters
from bridge.api.problems import Problem
from bridge.api.settings import ApiSettings
from bridge.ports.health import Health

LEADER = "X-Snapbridge-Leader"


def make_standby_app(
    *, health: Health, measures: Measures, settings: ApiSettings, leader: Callable[[], tuple[str, str]]
) -> web.Application:
    """The application. `leader` gives a sentence (who leads, why we do not) and the address of the leader's API."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        sentence, address = leader()
        hint = f"ask {address}" if address else "ask the leader, or again in a moment"
        headers = {LEADER: address} if address else {}
        raise Problem(503, f"this replica does not lead: {sentence}", code="NOT_LEADER", hint=hint, headers=headers)

    app = web.Application(middlewares=[envelope(Gate(settings, ()), measures)])
    app[WAITERS] = Waiters(settings.waiters_limit)
    probes = Probes(health, measures)
    app.router.add_get("/livez", probes.livez)
    app.router.add_get("/readyz", probes.readyz)
    app.router.add_get("/healthz", probes.readyz)
    app.router.add_get("/metrics", probes.metrics)
    app.router.add_route("*", "/{tail:.*}", refuse)
    return app
