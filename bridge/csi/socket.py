"""A plugin's unix socket: the gRPC channel over it, kept, dropped and looked after. Knows no CSI message."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncGenerator, Iterator

import grpc
import grpc.aio

from bridge.csi.settings import RegistrySettings
from bridge.model.plugin import Route
from bridge.ports.clock import Clock
from bridge.ports.transport import TransportError

_MOST_PATH_BYTES = 107
"""What a unix socket's address can hold on Linux."""


def channel_options(settings: RegistrySettings) -> list[tuple[str, int | str]]:
    """Options of every channel to a plugin.

    The authority: the default one for a unix socket has a '%2F' in it, which strict servers refuse. The back-off:
    gRPC's own would leave a restarted plugin alone for up to 20 s and more. What is called the least back-off is
    in truth the time that one attempt to connect may take; a slow plugin needs it.
    """
    return [
        ("grpc.default_authority", "localhost"),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", int(settings.connect_timeout_seconds * 2000)),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.max_receive_message_length", settings.most_message_bytes),
        ("grpc.max_send_message_length", settings.most_message_bytes),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]


class SocketTransport:
    """Implements bridge.ports.transport.Transport over the channel that `SocketLink` keeps."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.channel: grpc.aio.Channel | None = None

    async def unary(self, method: str, request: bytes, *, deadline_seconds: float) -> bytes:
        """See the port."""
        channel = self._open_channel()
        with _translated():
            return await _unary(channel, method)(request, timeout=deadline_seconds)

    async def stream(self, method: str, request: bytes, *, deadline_seconds: float) -> AsyncGenerator[bytes, None]:
        """See the port."""
        channel = self._open_channel()
        with _translated():
            call = _streaming(channel, method)(request, timeout=deadline_seconds)
            try:
                async for message in call:
                    yield message
            finally:
                call.cancel()

    def _open_channel(self) -> grpc.aio.Channel:
        if self.channel is None:
            raise TransportError("UNAVAILABLE", f"there is no connection to {self.path}", sent=False)
        return self.channel


class SocketLink:
    """Keeps one channel connected to whatever listens at a path, and notices when that is another one."""

    route = Route.SOCKET

    def __init__(self, path: str, settings: RegistrySettings, clock: Clock) -> None:
        self._clock = clock
        self.endpoint = f"unix:{path}"
        self.transport = SocketTransport(path)
        self._path = path
        self._settings = settings
        self._identity: tuple[int, int] | None = None
        self._retired: grpc.aio.Channel | None = None

    @property
    def epoch(self) -> str:
        """Names the socket file that we are connected to."""
        return "-".join(str(part) for part in self._identity or ())

    async def connect(self) -> str:
        """Be connected; returns a sentence for people when that is not possible now, else an empty text."""
        complaint, identity = await asyncio.to_thread(look_at, self._path)
        if complaint:
            await self._drop()
            return complaint
        if identity != self._identity:
            await self._retire()
        self._identity = identity
        if self.transport.channel is None:
            self.transport.channel = grpc.aio.insecure_channel(self.endpoint, options=channel_options(self._settings))
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                connected = await _settle(self.transport.channel)
        except TimeoutError:
            await self._drop()
            return f"{self._path} accepts connections but does not speak gRPC: check what listens there"
        if not connected:
            await self._drop()
            return f"nobody answers on the socket {self._path}: check that the plugin is running"
        return ""

    async def lost(self) -> None:
        """Return when the connection is gone, or when another socket file has taken the path."""
        channel = self.transport.channel
        if channel is None:
            return
        watch = asyncio.create_task(_while_ready(channel), name=f"csi-socket-state:{self._path}")
        try:
            while not watch.done():
                await asyncio.wait({watch}, timeout=self._settings.watch_interval_seconds)
                complaint, identity = await asyncio.to_thread(look_at, self._path)
                if not complaint and identity != self._identity:
                    return
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    async def pause(self, seconds: float) -> None:
        """Wait before another try."""
        await self._clock.sleep(seconds)

    async def close(self) -> None:
        """Close everything; calls in flight end as unsure."""
        await self._drop()
        if self._retired is not None:
            await self._retired.close()
            self._retired = None

    async def _drop(self) -> None:
        channel, self.transport.channel = self.transport.channel, None
        self._identity = None
        if channel is not None:
            await channel.close()

    async def _retire(self) -> None:
        """Leave the old channel to the calls that are still under way on it; the one before is closed."""
        older, self._retired, self.transport.channel = self._retired, self.transport.channel, None
        if older is not None:
            await older.close()


def look_at(path: str) -> tuple[str, tuple[int, int] | None]:
    """What is wrong with a socket's path, in a sentence, and the identity of the file. Blocks briefly."""
    if len(os.fsencode(path)) > _MOST_PATH_BYTES:
        return f"the path {path} is longer than {_MOST_PATH_BYTES} bytes: use a shorter directory", None
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return f"there is no socket at {path}: check that the plugin is running and uses this path", None
    except OSError as error:
        return f"the socket {path} cannot be looked at: {error.strerror}", None
    if not stat.S_ISSOCK(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a file"
        return f"{path} is not a socket but {kind}: correct the path", None
    if not os.access(path, os.W_OK):
        return f"the socket {path} may not be used by this user: correct its mode or the service's user", None
    return "", (found.st_dev, found.st_ino)


def _unary(channel: grpc.aio.Channel, method: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary(method)


def _streaming(channel: grpc.aio.Channel, method: str) -> grpc.aio.UnaryStreamMultiCallable[bytes, bytes]:
    return channel.unary_stream(method)


async def _settle(channel: grpc.aio.Channel) -> bool:
    """Whether the channel gets connected; gRPC's own retries are not waited for."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            return False
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
    return True


async def _while_ready(channel: grpc.aio.Channel) -> None:
    state = channel.get_state()
    while state is grpc.ChannelConnectivity.READY:
        await channel.wait_for_state_change(state)
        state = channel.get_state()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise TransportError(error.code().name, error.details() or "") from error
    except grpc.aio.UsageError as error:
        raise TransportError("UNAVAILABLE", "the connection was closed", sent=False) from error
    except asyncio.CancelledError:
        # A closed channel cancels its calls; the one who waits for this call was not cancelled by anybody.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise TransportError("CANCELLED", "the connection was closed while the call was under way") from None
