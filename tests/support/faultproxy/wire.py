"""What goes through the proxy: methods, messages, replies and the record of each call."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message

from bridge.pb.csi.v1 import csi_pb2


@dataclass(frozen=True, slots=True)
class Method:
    """One CSI method: its full gRPC name and its message types."""

    full_name: str
    request: type[Message]
    response: type[Message]
    streams: bool

    @property
    def name(self) -> str:
        return self.full_name.rpartition("/")[2]


@functools.cache
def methods() -> dict[str, Method]:
    """All methods of `csi.v1`, by full gRPC name."""
    found = {}
    for service in csi_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            full_name = f"/{service.full_name}/{method.name}"
            found[full_name] = Method(
                full_name=full_name,
                request=message_factory.GetMessageClass(method.input_type),
                response=message_factory.GetMessageClass(method.output_type),
                streams=bool(method.server_streaming),
            )
    return found


@dataclass(slots=True)
class Call:
    """One call that reached the proxy. Codes are None while it is under way."""

    number: int
    method: str
    request: Message | None
    faults: tuple[str, ...] = ()
    code: grpc.StatusCode | None = None
    """What the caller was told."""
    upstream_code: grpc.StatusCode | None = None
    """What the driver said; None if the call never got there or the driver died."""
    reply: Message | None = None
    """What the caller was given, after edits."""
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None


@dataclass(slots=True)
class Reply:
    """A driver's answer, or a made-up one."""

    code: grpc.StatusCode
    text: str = ""
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.code is grpc.StatusCode.OK
