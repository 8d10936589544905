"""A small API server that misbehaves as it is told, and the way to it through a real kubeconfig."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web

from adapters.kubernetes import connection
from adapters.kubernetes.client import Client
from adapters.kubernetes.settings import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Rogue:
    """Counts lists and watches; the handlers say what happens."""

    def __init__(self) -> None:
        self.lists = 0
        self.watches = 0
        self.positions: list[str] = []
        self.on_list: Handler = self.empty_list
        self.on_watch: Handler = self.closed

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            self.watches += 1
            self.positions.append(request.query.get("resourceVersion", ""))
            return await self.on_watch(request)
        self.lists += 1
        return await self.on_list(request)

    async def empty_list(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})

    async def closed(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="")


def status(code: int, reason: str = "", **headers: str) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": f"told to answer {code}"}
    return web.json_response(body, status=code, headers=headers)


def line(kind: str, name: str, version: str, **more: object) -> bytes:
    item = {"metadata": {"name": name, "namespace": "x", "uid": f"u-{name}", "resourceVersion": version}, **more}
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Rogue, Client]]:
    """The server on a free loopback port, and a client of it."""
    rogue = Rogue()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", rogue.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    way = await connection.open_connection(Settings(kubeconfig=str(path)))
    try:
        yield rogue, Client(way, timeout_seconds=30)
    finally:
        await way.close()
        await runner.cleanup()
