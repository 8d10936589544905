"""The proxy itself: a gRPC server that passes bytes on, through the faults scripted for each method."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc import aio

from tests.support.faultproxy import faults, wire
from tests.support.faultproxy.wire import Call, Reply

_OPTIONS = [
    ("grpc.default_authority", "localhost"),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


@dataclass(slots=True)
class _Script:
    method: str
    fault: faults.Fault
    after_effect: bool
    times: int | None
    skip: int
    when: Callable[[Any], bool] | None

    def takes(self, method: str, request: Message | None) -> bool:
        """Whether it strikes this call; counts down as it does."""
        if self.times == 0 or self.method not in (method, "*"):
            return False
        if self.when is not None and not self.when(request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class FaultProxy:
    """Listens on one unix socket, calls another. An async context manager."""

    def __init__(self, upstream: Path | str, listen: Path | str) -> None:
        self.upstream = Path(upstream)
        self.listen = Path(listen)
        self.calls: list[Call] = []
        self._scripts: list[_Script] = []
        self._server: aio.Server | None = None
        self._channel: aio.Channel | None = None
        self._cutting: asyncio.Task[None] | None = None
        self._moved = asyncio.Condition()

    @property
    def endpoint(self) -> str:
        return f"unix://{self.listen}"

    def script(
        self,
        method: str,
        fault: faults.Fault,
        *,
        after_effect: bool = False,
        times: int | None = 1,
        skip: int = 0,
        when: Callable[[Any], bool] | None = None,
    ) -> None:
        """Lets a fault strike the next `times` calls of a method ("CreateSnapshot"; "*" for all), after `skip` ones.

        `times=None` strikes until `clear`. `when` gets the request message and may say no. Several faults for one
        call are nested: the first scripted is next to the caller.
        """
        known = {m.name for m in wire.methods().values()} | {"*"}
        if method not in known:
            raise ValueError(f"{method} is not a CSI method")
        self._scripts.append(_Script(method, fault, after_effect, times, skip, when))

    def clear(self) -> None:
        """Forgets all scripts; the log of calls stays."""
        self._scripts.clear()

    @property
    def pending(self) -> list[str]:
        """Scripted faults that have not struck as often as asked: a test that expects them all checks this."""
        return [f"{s.method}: {s.fault.name}" for s in self._scripts if s.times]

    def called(self, method: str) -> list[Call]:
        """The calls of one method so far, in the order of their arrival."""
        return [call for call in self.calls if call.method == method]

    async def until_called(self, method: str, times: int = 1, seconds: float = 30.0) -> list[Call]:
        """Waits until so many calls of a method have ended. Raises TimeoutError."""

        def ended() -> list[Call]:
            return [call for call in self.called(method) if call.ended is not None]

        async with asyncio.timeout(seconds), self._moved:
            await self._moved.wait_for(lambda: len(ended()) >= times)
        return ended()

    async def __aenter__(self) -> FaultProxy:
        self._channel = aio.insecure_channel(f"unix:{self.upstream}", options=_OPTIONS)
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cutting is not None:
            await self._cutting
        if self._server is not None:
            await self._server.stop(0)
        if self._channel is not None:
            await self._channel.close()
        self.listen.unlink(missing_ok=True)

    async def _start(self) -> None:
        server = aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((_Everything(self),))
        server.add_insecure_port(f"unix:{self.listen}")
        await server.start()
        self._server = server

    def _cut(self) -> None:
        if self._cutting is None or self._cutting.done():
            self._cutting = asyncio.create_task(self._reopen(), name="cut connections")

    async def _reopen(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(0)
        await self._start()

    async def unary(self, full_name: str, body: bytes, context: Any) -> bytes:
        """Answers one unary call."""
        reply = await self._pass(full_name, body, context)
        if not reply.ok:
            await context.abort(reply.code, reply.text)
        return reply.body

    async def stream(self, full_name: str, body: bytes, context: Any) -> AsyncIterator[bytes]:
        """Answers one server-streaming call; what came before an error is passed on before it."""
        reply = await self._pass(full_name, body, context)
        for chunk in reply.chunks:
            yield chunk
        if not reply.ok:
            await context.abort(reply.code, reply.text)

    async def _pass(self, full_name: str, body: bytes, context: Any) -> Reply:
        method = wire.methods().get(full_name)
        name = full_name.rpartition("/")[2]
        call = Call(len(self.calls) + 1, name, method.request.FromString(body) if method else None)
        self.calls.append(call)
        striking = [s for s in self._scripts if s.takes(name, call.request)]
        call.faults = tuple(s.fault.name for s in striking)

        async def driver(changed: bytes | None) -> Reply:
            return await self._forward(call, full_name, body if changed is None else changed, context)

        forward: faults.Forward = driver
        for script in reversed(striking):
            forward = _nested(script, faults.Passage(call, method, forward, script.after_effect, self._cut))
        reply = Reply(grpc.StatusCode.CANCELLED, "the call was cut off")
        try:
            reply = await forward(None)
        finally:
            if reply.ok and method is not None and not method.streams:
                call.reply = method.response.FromString(reply.body)
            call.code, call.ended = reply.code, time.monotonic()
            async with self._moved:
                self._moved.notify_all()
        return reply

    async def _forward(self, call: Call, full_name: str, body: bytes, context: Any) -> Reply:
        method = wire.methods().get(full_name)
        chunks: list[bytes] = []
        try:
            if method is not None and method.streams:
                async for chunk in self._upstream.unary_stream(full_name)(body, timeout=context.time_remaining()):
                    chunks.append(chunk)
                reply = Reply(grpc.StatusCode.OK, chunks=chunks)
            else:
                answer = await self._upstream.unary_unary(full_name)(body, timeout=context.time_remaining())
                reply = Reply(grpc.StatusCode.OK, body=answer)
        except aio.AioRpcError as error:
            reply = Reply(error.code(), error.details() or "", chunks=chunks)
        call.upstream_code = reply.code
        return reply

    @property
    def _upstream(self) -> Any:
        if self._channel is None:
            raise RuntimeError("the proxy is not open: use it as an async context manager")
        return self._channel


def _nested(script: _Script, passage: faults.Passage) -> faults.Forward:
    async def forward(changed: bytes | None) -> Reply:
        if changed is not None:
            inner = passage.forward

            async def replaced(again: bytes | None) -> Reply:
                return await inner(changed if again is None else again)

            return await script.fault.act(
                faults.Passage(passage.call, passage.method, replaced, passage.after_effect, passage.cut)
            )
        return await script.fault.act(passage)

    return forward


class _Everything(grpc.GenericRpcHandler):
    """Takes any method, as bytes."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        full_name = handler_call_details.method
        method = wire.methods().get(full_name)

        if method is not None and method.streams:

            async def stream(body: bytes, context: Any) -> AsyncIterator[bytes]:
                async for chunk in self._proxy.stream(full_name, body, context):
                    yield chunk

            return grpc.unary_stream_rpc_method_handler(stream)

        async def unary(body: bytes, context: Any) -> bytes:
            return await self._proxy.unary(full_name, body, context)

        return grpc.unary_unary_rpc_method_handler(unary)
