"""One driver's registration: a gRPC server on one socket, which the kubelet calls when it finds the socket."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from adapters.kubernetes.registration import place
from bridge.model.failure import UnavailableError
from bridge.pb.pluginregistration.v1 import registration_pb2 as pb
from bridge.pb.pluginregistration.v1 import registration_pb2_grpc

log = logging.getLogger(__name__)

_STOP_SECONDS = 0.5


class Registration(registration_pb2_grpc.RegistrationServicer):
    """Answers the kubelet for one driver. `sentence` says how the kubelet has answered; `told` hears each answer."""

    def __init__(
        self, driver: str, endpoint: str, versions: tuple[str, ...], told: Callable[[Registration], None]
    ) -> None:
        self.driver = driver
        self.endpoint = endpoint
        self.registered = False
        self.sentence = "no kubelet has asked yet"
        self._versions = versions
        self._told = told
        self._server: grpc.aio.Server | None = None
        self._path: Path | None = None
        self._identity: place.Identity | None = None

    async def GetInfo(self, request: pb.InfoRequest, context: Any) -> pb.PluginInfo:
        """What the kubelet asks first, and again after each of its restarts."""
        return pb.PluginInfo(
            type="CSIPlugin", name=self.driver, endpoint=self.endpoint, supported_versions=self._versions
        )

    async def NotifyRegistrationStatus(
        self, request: pb.RegistrationStatus, context: Any
    ) -> pb.RegistrationStatusResponse:
        """What the kubelet made of it. A refusal is tried again by the kubelet, with growing pauses."""
        self.registered = request.plugin_registered
        self.sentence = "registered" if self.registered else f"the kubelet refuses it: {request.error}"
        level = logging.INFO if self.registered else logging.WARNING
        log.log(level, "the kubelet answered", extra={"driver": self.driver, "sentence": self.sentence})
        self._told(self)
        return pb.RegistrationStatusResponse()

    async def start(self, path: Path, *, dial_timeout_seconds: float) -> None:
        """Serve at `path`. ConflictError when another process answers there; then nothing was changed."""
        hidden = place.hidden_path(path.parent)
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        registration_pb2_grpc.add_RegistrationServicer_to_server(self, server)
        try:
            server.add_insecure_port(f"unix:{hidden}")
        except RuntimeError as error:
            text = f"no socket can be made in {path.parent}: {error}"
            raise UnavailableError(text, hint="It is made by the kubelet; check its --root-dir") from error
        try:
            await server.start()
            self._identity = await place.take(hidden, path, dial_timeout_seconds=dial_timeout_seconds)
        except BaseException:
            await server.stop(grace=None)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(hidden)
            raise
        self._server, self._path = server, path

    def in_place(self) -> bool:
        """Whether the socket's name still leads to us."""
        return self._path is not None and place.identity_of(self._path) == self._identity

    async def stop(self) -> None:
        """Take the name away (which deregisters the driver), then stop serving. Others' sockets are left alone."""
        server, self._server = self._server, None
        if self._path is not None and self._identity is not None:
            await place.leave(self._path, self._identity)
        self._path = self._identity = None
        self.registered = False
        if server is not None:
            await server.stop(grace=_STOP_SECONDS)
