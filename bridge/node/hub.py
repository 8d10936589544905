"""The hub: takes the streams of node agents and turns the plugins they carry into instances of the registry.

An agent is who its client certificate says. The hub dials nobody, and it never repeats a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from bridge.model.failure import InvalidError, UnavailableError
from bridge.model.node import Node
from bridge.node import settings as node_settings
from bridge.node import tls
from bridge.node.roster import Roster
from bridge.node.session import Session
from bridge.node.settings import HubSettings
from bridge.pb.snapbridge.node.v1 import node_pb2 as pb
from bridge.ports.clock import Clock
from bridge.ports.transport import TransportSink

log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[pb.FromNode, pb.ToNode]
_SERVICE = "snapbridge.node.v1.NodeHub"
_FORGET_INTERVAL_SECONDS = 60.0


class _StreamEndedError(Exception):
    """The agent's stream is over; the text says why."""


class Hub:
    """Give it the registry as its sink and run it."""

    def __init__(self, settings: HubSettings, clock: Clock, sink: TransportSink) -> None:
        self._settings = settings
        self._clock = clock
        self._roster = Roster(sink, clock)
        self._ended: asyncio.Queue[tuple[Session, str]] = asyncio.Queue()
        self._started = asyncio.Event()
        self.port = 0

    def nodes(self) -> Sequence[Node]:
        """Every node agent that is or was attached."""
        return self._roster.nodes()

    async def started(self) -> int:
        """Wait until it listens; the port."""
        await self._started.wait()
        return self.port

    async def run(self) -> None:
        """Serve until cancelled. UnavailableError: the address cannot be listened on. InvalidError: bad TLS."""
        server = self._server()
        await server.start()
        self._started.set()
        log.info("the hub listens", extra={"address": self._settings.listen, "port": self.port})
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._bury(), name="hub-bury")
                group.create_task(self._forget(), name="hub-forget")
        finally:
            await server.stop(grace=0.2)

    def _server(self) -> grpc.aio.Server:
        most = self._settings.most_message_bytes
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", most),
                ("grpc.max_send_message_length", most),
                ("grpc.so_reuseport", 0),
            ]
        )
        attach = grpc.stream_stream_rpc_method_handler(
            self._attach,
            request_deserializer=pb.FromNode.FromString,
            response_serializer=pb.ToNode.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Attach": attach}),))
        try:
            if self._settings.tls is None:
                self.port = server.add_insecure_port(self._settings.listen)
            else:
                credentials = tls.server_credentials(self._settings.tls)
                self.port = server.add_secure_port(self._settings.listen, credentials)
        except RuntimeError as error:
            text = f"{self._settings.listen} cannot be listened on: {error}"
            raise UnavailableError(text, field="listen", hint="Choose a free port") from error
        return server

    async def _attach(self, _requests: object, context: _Context) -> None:
        """One agent's stream, from its Hello to its end."""
        session = Session(
            await self._hello(context),
            most_message_bytes=self._settings.most_message_bytes,
            most_waiting_chunks=self._settings.most_waiting_chunks,
        )
        welcome = pb.Welcome(
            hub_version=self._settings.version,
            silence_seconds=self._settings.silence_seconds,
            max_message_bytes=self._settings.most_message_bytes,
        )
        await context.write(pb.ToNode(welcome=welcome))
        self._roster.attach(session)
        log.info("a node attached", extra={"node": session.node, "version": session.hello.agent_version})
        reason = "its stream ended"
        try:
            await self._attached(session, context)
        except* _StreamEndedError as group:
            reason = str(group.exceptions[0])
        finally:
            session.close(f"the stream to the node {session.node} was lost")
            self._ended.put_nowait((session, reason))
        if session.replaced.is_set():
            await context.abort(grpc.StatusCode.ABORTED, reason)

    async def _hello(self, context: _Context) -> pb.Hello:
        """Who is there. Ends the stream for anybody whose certificate does not say so."""
        try:
            async with asyncio.timeout(self._settings.hello_timeout_seconds):
                first = await context.read()
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no Hello came")
        if not isinstance(first, pb.FromNode) or first.WhichOneof("kind") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a Hello")
        hello: pb.Hello = first.hello
        try:
            node_settings.check_node_name(hello.node_name)
        except InvalidError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if self._settings.tls is not None:
            auth: dict[str, Any] = dict(context.auth_context())
            names = tls.peer_names(auth)
            if hello.node_name not in names:
                log.warning("a node was refused", extra={"node": hello.node_name, "certificate": sorted(names)})
                text = f"the client certificate is for {sorted(names)}, not for the node {hello.node_name}"
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
        return hello

    async def _attached(self, session: Session, context: _Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(session, context), name=f"hub-read:{session.node}")
            group.create_task(_write(session, context), name=f"hub-write:{session.node}")
            group.create_task(_ping(session, self._settings.silence_seconds), name=f"hub-ping:{session.node}")
            group.create_task(_until_replaced(session), name=f"hub-replaced:{session.node}")

    async def _read(self, session: Session, context: _Context) -> None:
        silence = self._settings.silence_seconds
        while True:
            try:
                async with asyncio.timeout(silence):
                    message = await context.read()
            except TimeoutError:
                raise _StreamEndedError(f"it has been silent for {silence:g} s") from None
            if not isinstance(message, pb.FromNode):
                raise _StreamEndedError("the agent ended its stream")
            match message.WhichOneof("kind"):
                case "reply":
                    session.take_reply(message.reply)
                case "chunk":
                    session.take_chunk(message.chunk)
                case "plugin":
                    await self._roster.report(session, message.plugin)
                case "plugin_gone":
                    await self._roster.gone(session, message.plugin_gone.instance)
                case "plugins_listed":
                    await self._roster.listed(session)
                case "ping":
                    await session.outgoing.put(pb.ToNode(pong=pb.Pong(id=message.ping.id)))
                case _:
                    pass  # a pong, or a kind from a newer agent

    async def _bury(self) -> None:
        """Tell the registry of ended streams. Not in the stream's own task: gRPC cancels that one."""
        while True:
            session, reason = await self._ended.get()
            log.warning("a node is no longer attached", extra={"node": session.node, "reason": reason})
            await self._roster.detach(session, reason)

    async def _forget(self) -> None:
        while True:
            await self._clock.sleep(_FORGET_INTERVAL_SECONDS)
            await self._roster.forget(self._settings.forget_after_seconds)


async def _write(session: Session, context: _Context) -> None:
    while True:
        await context.write(await session.outgoing.get())


async def _ping(session: Session, silence: float) -> None:
    number = 0
    while True:
        await asyncio.sleep(silence / 3)
        number += 1
        with contextlib.suppress(asyncio.QueueFull):
            session.outgoing.put_nowait(pb.ToNode(ping=pb.Ping(id=number)))


async def _until_replaced(session: Session) -> None:
    await session.replaced.wait()
    raise _StreamEndedError("a newer stream of the same node has taken its place")
