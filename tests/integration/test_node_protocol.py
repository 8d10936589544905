"""The hub against agents that do not keep to the protocol, and the ends of carried calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from bridge.model.failure import InvalidError, UnavailableError
from bridge.model.node import Node
from bridge.node.hub import Hub
from bridge.node.settings import HubSettings, Tls
from bridge.pb.snapbridge.node.v1 import node_pb2 as pb
from bridge.pb.snapbridge.node.v1 import node_pb2_grpc
from bridge.ports.transport import Transport, TransportError
from tests.support.csi_server import RealClock, until

SILENCE_SECONDS = 30


class Sink:
    """Keeps the transports that the hub announces, and the sentences."""

    def __init__(self) -> None:
        self.transports: dict[str, Transport] = {}
        self.sentences: dict[str, str] = {}

    async def ensure_transport(
        self,
        instance: str,
        transport: Transport,
        *,
        endpoint: str,
        node: str = "",
        backend: str = "",
        sentence: str = "",
    ) -> None:
        self.transports[instance] = transport
        self.sentences[instance] = sentence

    async def ensure_no_instance(self, instance: str) -> None:
        self.transports.pop(instance, None)


class Wire:
    """A hub, and raw streams to it."""

    def __init__(self, hub: Hub, sink: Sink) -> None:
        self.hub = hub
        self.sink = sink
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{hub.port}")

    def dial(self) -> grpc.aio.StreamStreamCall[pb.FromNode, pb.ToNode]:
        return node_pb2_grpc.NodeHubStub(self.channel).Attach()  # type: ignore[return-value]

    async def attached(self) -> grpc.aio.StreamStreamCall[pb.FromNode, pb.ToNode]:
        stream = self.dial()
        await stream.write(pb.FromNode(hello=pb.Hello(node_name="w")))
        assert (await stream.read()).welcome.silence_seconds == SILENCE_SECONDS  # type: ignore[union-attr]
        await stream.write(pb.FromNode(plugin=pb.PluginReport(instance="p", driver="d", healthy=True)))
        await stream.write(pb.FromNode(plugins_listed=pb.PluginsListed()))
        await until(lambda: self.sink.sentences.get("w:p") == "")
        return stream

    def node(self) -> Node:
        return self.hub.nodes()[0]


@contextlib.asynccontextmanager
async def wired(*, silence_seconds: float, hello_timeout_seconds: float = SILENCE_SECONDS) -> AsyncIterator[Wire]:
    sink = Sink()
    settings = HubSettings(
        "127.0.0.1:0", plaintext_on_loopback=True, silence_seconds=silence_seconds,
        hello_timeout_seconds=hello_timeout_seconds, most_message_bytes=1 << 20, most_waiting_chunks=4,
    )  # fmt: skip
    hub = Hub(settings, RealClock(), sink)
    task = asyncio.create_task(hub.run())
    await asyncio.wait_for(hub.started(), 30)
    wire = Wire(hub, sink)
    try:
        yield wire
    finally:
        await wire.channel.close()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest_asyncio.fixture
async def wire() -> AsyncIterator[Wire]:
    """One that is patient: whatever stands still for a moment changes nothing."""
    async with wired(silence_seconds=SILENCE_SECONDS) as wire:
        yield wire


async def received(stream: grpc.aio.StreamStreamCall[pb.FromNode, pb.ToNode]) -> pb.ToNode:
    """The hub's next message that is no ping."""
    async with asyncio.timeout(30):
        while True:
            message = await stream.read()
            assert isinstance(message, pb.ToNode)
            if message.WhichOneof("kind") != "ping":
                return message


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (pb.FromNode(ping=pb.Ping(id=1)), "INVALID_ARGUMENT"),
        (pb.FromNode(), "INVALID_ARGUMENT"),
        (pb.FromNode(hello=pb.Hello(node_name="a/b")), "INVALID_ARGUMENT"),
        (None, "DEADLINE_EXCEEDED"),
    ],
)
async def test_who_does_not_say_hello_is_sent_away(first: pb.FromNode | None, code: str) -> None:
    patience = 0.5 if first is None else SILENCE_SECONDS
    async with wired(silence_seconds=SILENCE_SECONDS, hello_timeout_seconds=patience) as wire:
        stream = wire.dial()
        if first is not None:
            await stream.write(first)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(stream.read(), 30)
        assert caught.value.code().name == code
        assert wire.hub.nodes() == []


async def test_pings_are_answered(wire: Wire) -> None:
    stream = await wire.attached()
    await stream.write(pb.FromNode(ping=pb.Ping(id=7)))
    assert (await received(stream)).pong.id == 7


async def test_silence_is_asked_about_and_then_ends_the_stream() -> None:
    kinds: list[str | None] = []
    async with wired(silence_seconds=1) as wire:
        for _ in range(5):  # on a machine that stood still meanwhile the end may come before the question is sent
            stream = wire.dial()
            await stream.write(pb.FromNode(hello=pb.Hello(node_name="w")))
            await stream.write(pb.FromNode(plugin=pb.PluginReport(instance="p", driver="d", healthy=True)))
            await stream.write(pb.FromNode(plugins_listed=pb.PluginsListed()))
            while (message := await asyncio.wait_for(stream.read(), 30)) is not grpc.aio.EOF:
                kinds.append(message.WhichOneof("kind"))  # type: ignore[union-attr]
            if "ping" in kinds and "w:p" in wire.sink.sentences:
                break
        assert "ping" in kinds
        await until(lambda: not wire.node().connected and "not attached" in wire.sink.sentences["w:p"])
        assert "silent" in wire.node().sentence


async def test_a_call_on_a_lost_stream_may_have_been_made_and_one_after_it_was_not(wire: Wire) -> None:
    stream = await wire.attached()
    transport = wire.sink.transports["w:p"]
    pending = asyncio.create_task(transport.unary("/csi.v1.Controller/X", b"q", deadline_seconds=30))
    call = (await received(stream)).call
    assert (call.instance, call.method) == ("p", "/csi.v1.Controller/X")
    assert (call.request, call.deadline_seconds) == (b"q", 30)
    stream.cancel()
    with pytest.raises(TransportError) as caught:
        await pending
    assert (caught.value.code, caught.value.sent) == ("UNAVAILABLE", True)
    with pytest.raises(TransportError) as caught:
        await transport.unary("/csi.v1.Controller/X", b"q", deadline_seconds=30)
    assert (caught.value.code, caught.value.sent) == ("UNAVAILABLE", False)


async def test_replies_of_all_kinds(wire: Wire) -> None:
    stream = await wire.attached()
    transport = wire.sink.transports["w:p"]
    await stream.write(pb.FromNode(reply=pb.Reply(id=999, response=b"nobody asked")))
    for failure, expected in [
        (pb.Failure(code=13, message="boom"), ("INTERNAL", True)),
        (pb.Failure(code=14, message="no socket", not_sent=True), ("UNAVAILABLE", False)),
        (pb.Failure(code=77, message="?"), ("UNKNOWN", True)),
    ]:
        pending = asyncio.create_task(transport.unary("/m", b"", deadline_seconds=30))
        call = (await received(stream)).call
        await stream.write(pb.FromNode(reply=pb.Reply(id=call.id, failure=failure)))
        with pytest.raises(TransportError) as caught:
            await pending
        assert (caught.value.code, caught.value.sent) == expected
    with pytest.raises(TransportError) as caught:
        await transport.unary("/m", b"x" * (1 << 20), deadline_seconds=30)
    assert (caught.value.code, caught.value.sent) == ("RESOURCE_EXHAUSTED", False)


async def test_a_deadline_and_a_cancelled_caller_send_cancel(wire: Wire) -> None:
    stream = await wire.attached()
    transport = wire.sink.transports["w:p"]
    with pytest.raises(TransportError, match=r"within 0\.1 s"):
        await transport.unary("/m", b"", deadline_seconds=0.1)
    first = (await received(stream)).call.id
    assert (await received(stream)).cancel.id == first
    pending = asyncio.create_task(transport.unary("/m", b"", deadline_seconds=30))
    second = (await received(stream)).call.id
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    assert (await received(stream)).cancel.id == second
    assert second != first


@pytest.mark.parametrize(("sequences", "code"), [([1, 3], "DATA_LOSS"), (list(range(1, 10)), "RESOURCE_EXHAUSTED")])
async def test_streams_that_go_wrong_end(wire: Wire, sequences: list[int], code: str) -> None:
    stream = await wire.attached()
    transport = wire.sink.transports["w:p"]
    got: list[bytes] = []
    go = asyncio.Event()

    async def read() -> None:
        async for part in transport.stream("/m", b"", deadline_seconds=30):
            got.append(part)
            await go.wait()

    pending = asyncio.create_task(read())
    call = (await received(stream)).call
    assert call.server_streaming
    for sequence in sequences:
        await stream.write(pb.FromNode(chunk=pb.Chunk(id=call.id, sequence=sequence, message=b"x")))
    assert (await received(stream)).cancel.id == call.id
    go.set()
    with pytest.raises(TransportError) as caught:
        await pending
    assert (caught.value.code, caught.value.sent) == (code, True)
    assert got


async def test_a_reader_at_work_is_not_cut_off_by_the_deadline_of_its_stream(wire: Wire) -> None:
    stream = await wire.attached()
    transport = wire.sink.transports["w:p"]
    done: list[bytes] = []

    async def read() -> None:
        async for part in transport.stream("/m", b"", deadline_seconds=0.3):
            await asyncio.sleep(0.5)
            done.append(part)

    for _ in range(5):  # the part has to come before the deadline, which a stalled machine may keep it from
        pending = asyncio.create_task(read())
        while (message := await received(stream)).WhichOneof("kind") != "call":
            pass  # the cancel of the call before
        await stream.write(pb.FromNode(chunk=pb.Chunk(id=message.call.id, sequence=1, message=b"x")))
        with pytest.raises(TransportError, match="no answer from the node"):
            await pending
        if done:
            break
    assert done == [b"x"]


async def test_what_an_earlier_session_had_and_this_one_has_not_is_gone(wire: Wire) -> None:
    stream = await wire.attached()
    await stream.write(pb.FromNode(plugin=pb.PluginReport(instance="q", driver="d", healthy=True)))
    await until(lambda: "w:q" in wire.sink.transports)
    stream.cancel()
    await until(lambda: not wire.node().connected and all(wire.sink.sentences.values()))
    assert set(wire.sink.transports) == {"w:p", "w:q"}
    again = await wire.attached()
    await until(lambda: set(wire.sink.transports) == {"w:p"})
    assert wire.node().connected
    await again.write(pb.FromNode(plugin_gone=pb.PluginGone(instance="p")))
    await until(lambda: wire.sink.transports == {})


async def test_a_hub_that_cannot_listen_says_why(wire: Wire, tmp_path: Path) -> None:
    taken = HubSettings(f"127.0.0.1:{wire.hub.port}", plaintext_on_loopback=True)
    with pytest.raises(UnavailableError, match="cannot be listened on"):
        await Hub(taken, RealClock(), Sink()).run()
    tls = Tls(str(tmp_path / "none.pem"), str(tmp_path / "none.key"), str(tmp_path / "none.ca"))
    with pytest.raises(InvalidError, match=r"none\.ca cannot be read"):
        await Hub(HubSettings("127.0.0.1:0", tls), RealClock(), Sink()).run()
    for name in ("none.pem", "none.key", "none.ca"):
        (tmp_path / name).write_text("no certificate")
    with pytest.raises(InvalidError, match="is not a PEM file") as caught:
        await Hub(HubSettings("127.0.0.1:0", tls), RealClock(), Sink()).run()
    assert caught.value.field == "tls.authorities"
