"""The agent's half of the carried calls: takes each Call to its plugin and brings the Reply. Repeats nothing.

It neither reads nor logs a request: requests hold secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import grpc

from bridge.pb.snapbridge.node.v1 import node_pb2 as pb
from bridge.ports.transport import Carriage, LocalPlugins, TransportError

log = logging.getLogger(__name__)

_SERVICES = "/csi.v1."
_ENVELOPE_BYTES = 1024
"""What the messages around a response may add to it."""
_NUMBERS = {code.name: int(code.value[0]) for code in grpc.StatusCode}


class Carrier:
    """The calls of one stream. `send` puts a message on it, waiting for room; `send_now` never waits."""

    def __init__(
        self,
        plugins: LocalPlugins,
        outgoing: asyncio.Queue[pb.FromNode],
        group: asyncio.TaskGroup,
        *,
        most_message_bytes: int,
        most_calls: int,
    ) -> None:
        self._plugins = plugins
        self._outgoing = outgoing
        self._group = group
        self._most_message_bytes = most_message_bytes
        self._most_calls = most_calls
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def begin(self, call: pb.Call) -> None:
        """Start a call; its Reply comes by itself."""
        task = self._group.create_task(self._serve(call), name=f"node-call:{call.method}")
        self._tasks[call.id] = task
        task.add_done_callback(lambda _task: self._tasks.pop(call.id, None))

    def cancel(self, id: int) -> None:
        """The hub no longer waits; an unknown or finished call is fine."""
        task = self._tasks.get(id)
        if task is not None:
            task.cancel()

    async def _serve(self, call: pb.Call) -> None:
        reply = pb.Reply(id=call.id)
        try:
            if call.server_streaming:
                await self._stream(call)
                reply.response = b""
            else:
                reply.response = await self._unary(call)
        except TransportError as error:
            number = _NUMBERS.get(error.code, _NUMBERS["UNKNOWN"])
            reply.failure.CopyFrom(pb.Failure(code=number, message=error.message, not_sent=not error.sent))
        except asyncio.CancelledError:
            failure = pb.Failure(code=_NUMBERS["CANCELLED"], message="the caller gave the call up")
            with contextlib.suppress(asyncio.QueueFull):
                self._outgoing.put_nowait(pb.FromNode(reply=pb.Reply(id=call.id, failure=failure)))
            raise
        except Exception:
            log.exception("carrying a call failed", extra={"method": call.method, "instance": call.instance})
            failure = pb.Failure(code=_NUMBERS["INTERNAL"], message="the node agent failed; see its log")
            reply.failure.CopyFrom(failure)
        await self._outgoing.put(pb.FromNode(reply=reply))

    async def _unary(self, call: pb.Call) -> bytes:
        way = self._way(call)
        response = await way.transport.unary(call.method, call.request, deadline_seconds=call.deadline_seconds)
        self._check_size(response)
        return response

    async def _stream(self, call: pb.Call) -> None:
        way = self._way(call)
        parts = way.transport.stream(call.method, call.request, deadline_seconds=call.deadline_seconds)
        sequence = 0
        async with contextlib.aclosing(parts):
            async for part in parts:
                self._check_size(part)
                sequence += 1
                chunk = pb.Chunk(id=call.id, sequence=sequence, message=part)
                await self._outgoing.put(pb.FromNode(chunk=chunk))

    def _way(self, call: pb.Call) -> Carriage:
        if not call.method.startswith(_SERVICES):
            raise TransportError("UNIMPLEMENTED", f"{call.method} is no CSI method", sent=False)
        if len(self._tasks) > self._most_calls:
            raise TransportError("RESOURCE_EXHAUSTED", f"{self._most_calls} calls are under way", sent=False)
        way = self._plugins.carriage(call.instance)
        if way is None:
            raise TransportError("UNAVAILABLE", f"the plugin {call.instance} is not connected", sent=False)
        if call.socket_id and call.socket_id != way.epoch:
            raise TransportError("UNAVAILABLE", f"the plugin {call.instance} was restarted meanwhile", sent=False)
        return way

    def _check_size(self, response: bytes) -> None:
        if len(response) + _ENVELOPE_BYTES > self._most_message_bytes:
            text = f"the answer has {len(response)} bytes, the hub takes {self._most_message_bytes}"
            raise TransportError("RESOURCE_EXHAUSTED", text)
