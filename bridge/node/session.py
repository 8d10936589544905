"""One attached agent as the hub sees it: its calls under way, each ended exactly once, whatever happens.

A call on a stream that is lost counts as one that may have been made. Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator

import grpc

from bridge.pb.snapbridge.node.v1 import node_pb2 as pb
from bridge.ports.transport import TransportError

_CODES = {int(code.value[0]): code.name for code in grpc.StatusCode}
_ENVELOPE_BYTES = 1024
_MOST_WAITING = 1024


@dataclasses.dataclass(slots=True)
class _Open:
    """A call under way. `chunks` is for a streamed one; None in it is the end."""

    reply: asyncio.Future[bytes]
    chunks: asyncio.Queue[bytes | None]
    sequence: int = 0


class Session:
    """The stream of one agent. The hub feeds it what arrives and sends what it queues in `outgoing`."""

    def __init__(self, hello: pb.Hello, *, most_message_bytes: int, most_waiting_chunks: int) -> None:
        self.hello = hello
        self.outgoing: asyncio.Queue[pb.ToNode] = asyncio.Queue(_MOST_WAITING)
        self.replaced = asyncio.Event()
        self.reports: dict[str, pb.PluginReport] = {}
        self._most_message_bytes = most_message_bytes
        self._most_waiting_chunks = most_waiting_chunks
        self._open: dict[int, _Open] = {}
        self._last_id = 0
        self._closed = ""

    @property
    def node(self) -> str:
        """The node's name."""
        return self.hello.node_name

    def take_reply(self, reply: pb.Reply) -> None:
        """A call ended; unknown ones (given up meanwhile) are fine."""
        call = self._open.get(reply.id)
        if call is None or call.reply.done():
            return
        if reply.WhichOneof("outcome") == "failure":
            code = _CODES.get(reply.failure.code, "UNKNOWN")
            call.reply.set_exception(TransportError(code, reply.failure.message, sent=not reply.failure.not_sent))
        else:
            call.reply.set_result(reply.response)
        self._end_stream(call)

    def take_chunk(self, chunk: pb.Chunk) -> None:
        """A part of a streamed answer. A gap, or a reader that is far too slow, ends the call."""
        call = self._open.get(chunk.id)
        if call is None or call.reply.done():
            return
        call.sequence += 1
        if chunk.sequence != call.sequence:
            self._fail(call, "DATA_LOSS", "a part of the answer is missing")
        elif call.chunks.qsize() >= self._most_waiting_chunks:
            self._fail(call, "RESOURCE_EXHAUSTED", "the answer came faster than it was read; read on from there")
        else:
            call.chunks.put_nowait(chunk.message)
            return
        self._cancel(chunk.id)

    def close(self, reason: str) -> None:
        """The stream is over: every call under way ends now, as one that may have been made."""
        self._closed = reason
        for call in self._open.values():
            if not call.reply.done():
                self._fail(call, "UNAVAILABLE", f"{reason}; the call may have been made")

    async def unary(self, call: pb.Call) -> bytes:
        """Send a Call (its id is given here) and wait for its Reply. TransportError when it fails."""
        end = asyncio.get_running_loop().time() + call.deadline_seconds
        async with self._calling(call) as state, _deadline(call, end):
            return await state.reply

    async def stream(self, call: pb.Call) -> AsyncGenerator[bytes, None]:
        """The same for a streamed answer."""
        end = asyncio.get_running_loop().time() + call.deadline_seconds
        async with self._calling(call) as state:
            while True:
                # Never around the yield: a time-out there would cancel the reader at work, not us.
                async with _deadline(call, end):
                    part = await state.chunks.get()
                    if part is None:
                        await state.reply
                if part is None:
                    return
                yield part

    @contextlib.asynccontextmanager
    async def _calling(self, call: pb.Call) -> AsyncIterator[_Open]:
        if self._closed:
            raise TransportError("UNAVAILABLE", self._closed, sent=False)
        size = len(call.request)
        if size + _ENVELOPE_BYTES > self._most_message_bytes:
            text = f"the request has {size} bytes, at most {self._most_message_bytes} can be carried"
            raise TransportError("RESOURCE_EXHAUSTED", text, sent=False)
        self._last_id += 1
        call.id = self._last_id
        state = _Open(asyncio.get_running_loop().create_future(), asyncio.Queue())
        self._open[call.id] = state
        try:
            await self._send(call)
            yield state
        finally:
            del self._open[call.id]
            # A waiter that is cancelled or out of time cancels the future too: then there was no answer.
            if not state.reply.done() or state.reply.cancelled():
                self._cancel(call.id)
            else:
                state.reply.exception()

    async def _send(self, call: pb.Call) -> None:
        try:
            async with asyncio.timeout(call.deadline_seconds):
                await self.outgoing.put(pb.ToNode(call=call))
        except TimeoutError:
            text = f"the stream to the node {self.node} is jammed"
            raise TransportError("DEADLINE_EXCEEDED", text, sent=False) from None

    def _cancel(self, id: int) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self.outgoing.put_nowait(pb.ToNode(cancel=pb.Cancel(id=id)))

    def _fail(self, call: _Open, code: str, message: str) -> None:
        call.reply.set_exception(TransportError(code, message))
        self._end_stream(call)

    def _end_stream(self, call: _Open) -> None:
        call.chunks.put_nowait(None)


@contextlib.asynccontextmanager
async def _deadline(call: pb.Call, end: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(end):
            yield
    except TimeoutError:
        text = f"no answer from the node within {call.deadline_seconds:g} s"
        raise TransportError("DEADLINE_EXCEEDED", text) from None


class CarriedTransport:
    """Implements bridge.ports.transport.Transport for one plugin of one session."""

    def __init__(self, session: Session, instance: str, socket_id: str) -> None:
        self.session = session
        self._instance = instance
        self.socket_id = socket_id

    async def unary(self, method: str, request: bytes, *, deadline_seconds: float) -> bytes:
        """See the port."""
        return await self.session.unary(self._call(method, request, deadline_seconds))

    def stream(self, method: str, request: bytes, *, deadline_seconds: float) -> AsyncGenerator[bytes, None]:
        """See the port."""
        call = self._call(method, request, deadline_seconds)
        call.server_streaming = True
        return self.session.stream(call)

    def _call(self, method: str, request: bytes, deadline_seconds: float) -> pb.Call:
        return pb.Call(
            instance=self._instance,
            socket_id=self.socket_id,
            method=method,
            request=request,
            deadline_seconds=deadline_seconds,
        )
