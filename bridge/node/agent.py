"""The node agent: finds plugins on its host, dials the hub and carries its calls over one stream.

The agent holds no state of its own: whatever it says, it says again after a reconnect. No call is ever repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import uuid
from pathlib import Path

import grpc
import grpc.aio

from bridge.model.failure import BridgeError
from bridge.node import herald, reports, tls
from bridge.node.carrier import Carrier
from bridge.node.discover import Finder
from bridge.node.settings import AgentSettings
from bridge.pb.snapbridge.node.v1 import node_pb2 as pb
from bridge.pb.snapbridge.node.v1 import node_pb2_grpc
from bridge.ports.announce import Announcer
from bridge.ports.clock import Clock
from bridge.ports.transport import LocalPlugins

log = logging.getLogger(__name__)

_Stream = grpc.aio.StreamStreamCall[pb.FromNode, pb.ToNode]
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOST_WAITING = 1024


class _StreamEndedError(Exception):
    """The stream to the hub is over; the text says why."""


class NodeAgent:
    """Give it the local registry (which somebody else runs) and run it. Without a hub it only finds and announces."""

    def __init__(
        self, settings: AgentSettings, clock: Clock, plugins: LocalPlugins, announcer: Announcer | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._plugins = plugins
        self._announcer = announcer
        self._session = uuid.uuid4().hex
        self.sentence = "the hub was not dialled yet"
        """How the connection to the hub is; empty while it is attached."""

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            finder = Finder(self._settings, self._plugins, self._clock)
            group.create_task(finder.run(), name="node-finder")
            if self._announcer is not None:
                work = herald.run(self._plugins, self._announcer, self._settings.announce_under)
                group.create_task(work, name="node-herald")
            if self._settings.hub:
                group.create_task(self._dial_for_ever(), name="node-dial")

    async def _dial_for_ever(self) -> None:
        pause = self._settings.retry_first_seconds
        for hub in itertools.cycle(self._settings.hubs):
            reason = await self._attach(hub)
            if not self.sentence:
                pause = self._settings.retry_first_seconds
            if reason != self.sentence:
                log.warning("not attached to the hub", extra={"hub": hub, "reason": reason})
            self.sentence = reason
            await self._clock.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, self._settings.retry_most_seconds)

    async def _attach(self, hub: str) -> str:
        """One stream, from its start to its end; returns why it is over."""
        reason = "the stream ended"
        try:
            async with await self._channel(hub) as channel:
                await self._talk(node_pb2_grpc.NodeHubStub(channel).Attach(), hub)
        except* (_StreamEndedError, grpc.aio.AioRpcError, grpc.aio.UsageError, BridgeError, TimeoutError) as group:
            reason = _reason(group)
        except* Exception as group:
            log.exception("the stream to the hub failed")
            reason = f"an internal error: {group.exceptions[0]!r}"
        return reason

    async def _channel(self, hub: str) -> grpc.aio.Channel:
        settings = self._settings
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", settings.most_message_bytes),
            ("grpc.max_send_message_length", settings.most_message_bytes),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        ]
        if settings.tls is None:
            return grpc.aio.insecure_channel(hub, options=options)
        credentials = await asyncio.to_thread(tls.client_credentials, settings.tls)
        if settings.tls.server_name:
            options.append(("grpc.ssl_target_name_override", settings.tls.server_name))
        return grpc.aio.secure_channel(hub, credentials, options=options)

    async def _talk(self, stream: _Stream, hub: str) -> None:
        try:
            async with asyncio.timeout(self._settings.dial_timeout_seconds):
                await stream.write(pb.FromNode(hello=self._hello()))
                first = await stream.read()
            if not isinstance(first, pb.ToNode) or first.WhichOneof("kind") != "welcome":
                raise _StreamEndedError(await _status(stream))
            self.sentence = ""
            log.info("attached to the hub", extra={"hub": hub})
            await self._attached(stream, first.welcome)
        finally:
            stream.cancel()

    async def _attached(self, stream: _Stream, welcome: pb.Welcome) -> None:
        outgoing: asyncio.Queue[pb.FromNode] = asyncio.Queue(_MOST_WAITING)
        silence = welcome.silence_seconds or 15.0
        async with asyncio.TaskGroup() as group:
            carrier = Carrier(
                self._plugins,
                outgoing,
                group,
                most_message_bytes=welcome.max_message_bytes or self._settings.most_message_bytes,
                most_calls=self._settings.most_calls,
            )
            group.create_task(self._read(stream, carrier, outgoing, silence), name="node-read")
            group.create_task(_write(stream, outgoing), name="node-write")
            group.create_task(_ping(outgoing, silence), name="node-ping")
            group.create_task(self._report(outgoing), name="node-report")

    async def _read(
        self, stream: _Stream, carrier: Carrier, outgoing: asyncio.Queue[pb.FromNode], silence: float
    ) -> None:
        while True:
            try:
                async with asyncio.timeout(silence):
                    message = await stream.read()
            except TimeoutError:
                raise _StreamEndedError(f"the hub has been silent for {silence:g} s") from None
            if not isinstance(message, pb.ToNode):
                raise _StreamEndedError(await _status(stream))
            match message.WhichOneof("kind"):
                case "call":
                    carrier.begin(message.call)
                case "cancel":
                    carrier.cancel(message.cancel.id)
                case "ping":
                    await outgoing.put(pb.FromNode(pong=pb.Pong(id=message.ping.id)))
                case _:
                    pass  # a pong, or a kind from a newer hub

    async def _report(self, outgoing: asyncio.Queue[pb.FromNode]) -> None:
        """Tell every plugin, then every change. The whole report each time, so nothing can be half known."""
        changed = asyncio.Event()
        stop = self._plugins.on_change(lambda _driver: changed.set())
        told: dict[str, pb.PluginReport] = {}
        listed = False
        try:
            while True:
                changed.clear()
                now = reports.of(self._plugins.describe(), self._epoch)
                for name in sorted(told.keys() - now.keys()):
                    await outgoing.put(pb.FromNode(plugin_gone=pb.PluginGone(instance=name, reason="it is gone")))
                for name, report in now.items():
                    if told.get(name) != report:
                        await outgoing.put(pb.FromNode(plugin=report))
                told = now
                if not listed:
                    await outgoing.put(pb.FromNode(plugins_listed=pb.PluginsListed()))
                    listed = True
                await changed.wait()
        finally:
            stop()

    def _epoch(self, instance: str) -> str:
        carriage = self._plugins.carriage(instance)
        return carriage.epoch if carriage is not None else ""

    def _hello(self) -> pb.Hello:
        boot_id = ""
        with contextlib.suppress(OSError):
            boot_id = _BOOT_ID.read_text().strip()
        return pb.Hello(
            node_name=self._settings.node,
            agent_version=self._settings.version,
            boot_id=boot_id,
            session=self._session,
            topology=dict(self._settings.topology),
        )


async def _write(stream: _Stream, outgoing: asyncio.Queue[pb.FromNode]) -> None:
    while True:
        await stream.write(await outgoing.get())


async def _ping(outgoing: asyncio.Queue[pb.FromNode], silence: float) -> None:
    number = 0
    while True:
        await asyncio.sleep(silence / 3)
        number += 1
        await outgoing.put(pb.FromNode(ping=pb.Ping(id=number)))


async def _status(stream: _Stream) -> str:
    code, details = await stream.code(), await stream.details()
    return f"the hub ended the stream: {details or 'no reason given'} ({code.name})"


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.details() or 'no reason given'} ({error.code().name})"
    return str(error) or "the hub does not answer"
