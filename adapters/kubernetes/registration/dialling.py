"""Short calls over unix sockets: what a plugin calls itself, and whether a registration socket answers.

One channel per call: they are rare, and a plugin that restarts is met anew each time.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio

from bridge.model.failure import UnavailableError
from bridge.pb.csi.v1 import csi_pb2, csi_pb2_grpc
from bridge.pb.pluginregistration.v1 import registration_pb2, registration_pb2_grpc

_OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


async def driver_name(socket: str, *, timeout_seconds: float) -> str:
    """The name of the driver that serves this CSI socket. UnavailableError when it does not answer in time."""
    async with _channel(socket) as channel:
        stub = csi_pb2_grpc.IdentityStub(channel)
        try:
            answer: csi_pb2.GetPluginInfoResponse = await stub.GetPluginInfo(
                csi_pb2.GetPluginInfoRequest(), timeout=timeout_seconds
            )
        except grpc.aio.AioRpcError as error:
            raise UnavailableError(f"no driver answers on {socket}: {_words(error)}") from error
    if not answer.name:
        raise UnavailableError(f"the driver on {socket} has no name")
    return answer.name


async def registration_trouble(path: Path, driver: str, *, timeout_seconds: float) -> str:
    """Why a kubelet would not find this driver behind a registration socket; empty when it would."""
    async with _channel(str(path)) as channel:
        stub = registration_pb2_grpc.RegistrationStub(channel)
        try:
            answer: registration_pb2.PluginInfo = await stub.GetInfo(
                registration_pb2.InfoRequest(), timeout=timeout_seconds
            )
        except grpc.aio.AioRpcError as error:
            return f"{path} does not answer: {_words(error)}"
    return "" if answer.name == driver else f"{path} answers for the driver {answer.name!r}, not for {driver!r}"


@contextlib.asynccontextmanager
async def _channel(socket: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS) as channel:
        yield channel


def _words(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name} {error.details() or ''}".strip()
