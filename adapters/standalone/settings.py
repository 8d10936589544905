"""Settings of a standalone cluster: its volumes and the plugin sockets on this host. Imports nothing heavy."""

from __future__ import annotations

import posixpath
from typing import Annotated, Any, Literal

import pydantic

from bridge.model import quantity
from bridge.model.secret import SecretRef

_LONGEST_SOCKET_PATH = 107


def _size(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError("want a size with its unit, like 512MiB or 10GiB")  # noqa: TRY004 - pydantic's way
    return quantity.parse_size(value)


def _reference(value: str) -> str:
    SecretRef.parse(value)
    return value


def _socket(value: str) -> str:
    path = value.removeprefix("unix://")
    if not posixpath.isabs(path):
        raise ValueError("want the absolute path of a unix socket, like /run/csi/csi.sock")
    if len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"is longer than the {_LONGEST_SOCKET_PATH} bytes that a unix socket's path may have")
    return path


Size = Annotated[
    int,
    pydantic.BeforeValidator(_size),
    pydantic.WithJsonSchema({"type": "string", "pattern": f"^{quantity.SIZE_PATTERN}$", "examples": ["10GiB"]}),
]
Reference = Annotated[str, pydantic.AfterValidator(_reference)]
Socket = Annotated[str, pydantic.AfterValidator(_socket)]
Text = Annotated[str, pydantic.Field(min_length=1, max_length=1024)]
AccessModeName = Literal[
    "SINGLE_NODE_WRITER",
    "SINGLE_NODE_READER_ONLY",
    "MULTI_NODE_READER_ONLY",
    "MULTI_NODE_SINGLE_WRITER",
    "MULTI_NODE_MULTI_WRITER",
]


class _Closed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class VolumeSettings(_Closed):
    """One volume that exists on a backend."""

    name: Text
    namespace: Text = "default"
    driver: Text
    """The CSI driver's name."""
    handle: Text
    """The CSI volume_id."""
    capacity: Size | None = None
    mode: Literal["Filesystem", "Block"] = "Filesystem"
    access_modes: Annotated[list[AccessModeName], pydantic.Field(min_length=1)] = ["SINGLE_NODE_WRITER"]
    fs_type: str = ""
    parameters: dict[str, str] = {}
    """What a volume restored from its snapshots is made with."""
    context: dict[str, str] = {}
    secret: Reference = ""
    """A reference to the CSI secrets of its calls, like file:/etc/snapbridge/secrets/san."""
    used_by: list[str] = []
    """Who uses it, in your own words. While somebody does, it cannot be forgotten."""


class PluginSettings(_Closed):
    """One plugin socket on this host."""

    name: Text
    """What this instance is called; unique in the cluster."""
    socket: Socket
    backend: str = ""
    """Plugins that name the same backend share snapshots."""
    node: str = ""


class Settings(_Closed):
    """A host, or any place, without an orchestrator."""

    volumes: list[VolumeSettings] = []
    plugins: list[PluginSettings] = []

    @pydantic.model_validator(mode="after")
    def _each_once(self) -> Settings:
        names = [f"{volume.namespace}/{volume.name}" for volume in self.volumes]
        for what, words in (("volume", names), ("plugin", [plugin.name for plugin in self.plugins])):
            twice = sorted({word for word in words if words.count(word) > 1})
            if twice:
                raise ValueError(f"the {what} {twice[0][:120]!r} is named twice; choose another name for one of them")
        return self
