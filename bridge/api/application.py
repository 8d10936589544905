"""The aiohttp application: endpoints, probes and envelope put together. The composition root calls `make_app`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from aiohttp import web

import bridge
from bridge.api import about, groups, inventory, new_volumes, openapi, operations, parse, snapshots
from bridge.api.auth import Gate
from bridge.api.endpoint import Call, Endpoint
from bridge.api.envelope import CALLER_NAME, envelope
from bridge.api.health import Measures, Probes
from bridge.api.problems import Problem
from bridge.api.settings import ApiSettings
from bridge.api.tokens import TokenFile
from bridge.ports.desk import Desk
from bridge.ports.health import Health
from bridge.ports.identity import Authenticator


def endpoints() -> list[Endpoint]:
    """Every route under /v1, in the order of the OpenAPI page."""
    return [
        *snapshots.routes.all,
        *groups.routes.all,
        *inventory.routes.all,
        *new_volumes.routes.all,
        *operations.routes.all,
        *about.routes.all,
    ]


def make_app(
    desk: Desk,
    *,
    health: Health,
    measures: Measures,
    settings: ApiSettings,
    authenticators: Sequence[Authenticator] = (),
) -> web.Application:
    """The application. InvalidError when the settings would leave the door open, or the token file is not good.

    `authenticators` are asked in order, after the token file of the settings.
    """
    settings.check()
    chain = list(authenticators)
    if settings.token_file:
        tokens = TokenFile(settings.token_file)
        tokens.load()
        chain.insert(0, tokens)
    gate = Gate(settings, chain)
    app = web.Application(middlewares=[envelope(gate, measures)], client_max_size=settings.body_limit_bytes)
    found = endpoints()
    app[about.OPENAPI] = orjson.dumps(openapi.page(found, bridge.__version__))
    app[operations.WAITERS] = operations.Waiters(settings.waiters_limit)
    for endpoint in found:
        _add(app, endpoint.method, _path(endpoint), _handler(endpoint, desk, gate, settings))
    probes = Probes(health, measures)
    _add(app, "GET", "/livez", probes.livez)
    _add(app, "GET", "/readyz", probes.readyz)
    _add(app, "GET", "/healthz", probes.readyz)
    _add(app, "GET", "/metrics", probes.metrics)
    return app


def _path(endpoint: Endpoint) -> str:
    """A snapshot may also be named in plain parts: CLUSTER/NAMESPACE/NAME, the namespace possibly empty."""
    if endpoint.tag in ("snapshots", "groups"):
        return endpoint.path.replace("{ref}", "{ref:[^/]+(?:/[^/]*/[^/]+)?}")
    return endpoint.path


def _add(
    app: web.Application, method: str, path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> None:
    app.router.add_route(method, path, handler, expect_handler=_expect)
    if method == "GET":
        app.router.add_route("HEAD", path, handler, expect_handler=_expect)


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Answer `Expect: 100-continue`. Another expectation is refused by the handler, inside the envelope."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    return None


def _handler(
    endpoint: Endpoint, desk: Desk, gate: Gate, settings: ApiSettings
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        caller = await gate.caller(request)
        request[CALLER_NAME] = caller.name
        call: Call[Any, Any] = Call(
            caller=caller,
            desk=desk,
            settings=settings,
            request=request,
            query=parse.query(request, endpoint.query),
            body=await parse.body(request, endpoint.body) if endpoint.body is not None else None,
            ref=parse.ref(request) if endpoint.takes_ref else "",
            idempotency_key=parse.idempotency_key(request) if endpoint.keyed else "",
        )
        return await _answer(endpoint, call, settings)

    return handle


async def _answer(endpoint: Endpoint, call: Call[Any, Any], settings: ApiSettings) -> web.Response:
    if call.request.headers.get("Expect", "100-continue").lower() != "100-continue":
        raise Problem(417, "this expectation cannot be met", hint="leave the Expect header out")
    limit = None if endpoint.slow else settings.request_seconds
    async with asyncio.timeout(limit):
        answer = await endpoint.handler(call)
    document = answer.document
    raw = document.model_dump_json(by_alias=True).encode() if document is not None else answer.raw
    return web.Response(
        status=endpoint.status, body=raw, headers=answer.headers, content_type="application/json", charset="utf-8"
    )
