"""A reverse proxy for an API server, where a test may strike before or after any write.

It passes everything through, watches included. `strike` is asked before a write is forwarded and after its answer has
come; when it says so, the answer never reaches the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import aiohttp
from aiohttp import web

from tests.support.bed import certificates

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "host"})

Strike = Callable[[str, str], bool]
"""(moment, what) -> whether to cut: moment is "before" or "after", what is "VERB path"."""


Refuse = Callable[[web.Request], web.Response | None]
"""What to answer instead of the server; None passes the request on."""


class Answer(NamedTuple):
    """One request and its status."""

    method: str
    path: str
    watch: bool
    status: int


class HttpProxy:
    """One proxy in front of one server. `writes` lists the writes that came, `answers` all answers."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | None) -> None:
        self.upstream = upstream.rstrip("/")
        self.writes: list[str] = []
        self.answers: list[Answer] = []
        self.strike: Strike = lambda _moment, _what: False
        self.refuse: Refuse = lambda _request: None
        self.stream_seconds: float | None = None
        """After so long a stream is cut in the middle of a line; None lets it live."""
        self.url = ""
        self._tls: ssl.SSLContext | bool = tls if tls is not None else True
        self._client: aiohttp.ClientSession | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        refusal = self.refuse(request)
        if refusal is not None:
            return refusal
        what = f"{request.method} {request.path}"
        write = request.method in WRITES
        if write:
            self.writes.append(what)
            if self.strike("before", what):
                return self._cut(request)
        try:
            return await self._forward(request, what, write)
        except aiohttp.ClientError:
            return self._cut(request)  # the server is away: so are we

    async def _forward(self, request: web.Request, what: str, write: bool) -> web.StreamResponse:
        assert self._client is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        async with self._client.request(
            request.method,
            self.upstream + request.raw_path,
            headers=headers,
            data=await request.read() or None,
            ssl=self._tls,
        ) as answer:
            self.answers.append(Answer(request.method, request.path, "watch" in request.query, answer.status))
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            if write:
                body = await answer.read()
                if self.strike("after", what):
                    return self._cut(request)
                return web.Response(status=answer.status, headers=kept, body=body)
            return await self._stream(request, answer, kept)

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        watch = "watch" in request.query
        begun = asyncio.get_running_loop().time()
        with contextlib.suppress(ConnectionResetError, aiohttp.ClientPayloadError):
            async for chunk in answer.content.iter_any():
                if watch and self.stream_seconds is not None and self._old(begun):
                    await response.write(chunk[: len(chunk) // 2])
                    break
                await response.write(chunk)
            else:
                await response.write_eof()
                return response
        if request.transport is not None:
            request.transport.abort()
        return response

    def _old(self, begun: float) -> bool:
        return self.stream_seconds is not None and asyncio.get_running_loop().time() - begun > self.stream_seconds

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)


@contextlib.asynccontextmanager
async def running(upstream: str, ca_file: str, serving: certificates.Pair | None = None) -> AsyncIterator[HttpProxy]:
    """A proxy on a free loopback port, with plain HTTP towards its callers unless it is given a certificate.

    Go's clients send no token over plain HTTP.
    """
    context = ssl.create_default_context(cafile=ca_file)
    proxy = HttpProxy(upstream, context)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{tail:.*}", proxy.handle)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False) as client:
        proxy._client = client
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        tls = None
        if serving is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(serving.certificate, serving.key)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        proxy.url = f"{'https' if tls is not None else 'http'}://127.0.0.1:{port}"
        try:
            yield proxy
        finally:
            async with asyncio.timeout(30):
                await runner.cleanup()
