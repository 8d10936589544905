"""Serialized CSI calls on their way to a plugin: over its socket, or carried by a node agent.

Both rings that know gRPC meet here, so neither imports the other. No request or reply is looked into.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from bridge.model.plugin import PluginDescription


class TransportError(Exception):
    """The call did not end with a reply. `code` is a gRPC status code's name.

    `sent` is False only where it is certain that no plugin ever saw the request.
    """

    def __init__(self, code: str, message: str, *, sent: bool = True) -> None:
        self.code = code
        self.message = message
        self.sent = sent
        super().__init__(f"{code}: {message}")


class Transport(Protocol):
    """Carries calls to one plugin. Never repeats a call by itself. Cancelling the waiter cancels the call."""

    async def unary(self, method: str, request: bytes, *, deadline_seconds: float) -> bytes:
        """Call a full gRPC method ("/csi.v1.Controller/CreateSnapshot"). TransportError when it fails."""
        ...

    def stream(self, method: str, request: bytes, *, deadline_seconds: float) -> AsyncGenerator[bytes, None]:
        """The same for a method that answers with a stream; TransportError in the middle is possible."""
        ...


class TransportSink(Protocol):
    """Where carried instances are announced (the plugin registry takes them)."""

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
        """This instance is reached over `transport`. Another object than before means a restarted plugin.

        A `sentence` says why it cannot be called now; empty means that it can. Repeating changes nothing.
        """
        ...

    async def ensure_no_instance(self, instance: str) -> None:
        """The instance is gone; unknown ones are fine."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Carriage:
    """A way to one local plugin. `epoch` is another one after each restart of the plugin."""

    transport: Transport
    epoch: str


class LocalPlugins(Protocol):
    """The plugins of this host, as a node agent needs them (the plugin registry keeps them)."""

    async def ensure_socket(self, instance: str, path: str, *, backend: str = "", node: str = "") -> None:
        """See bridge.ports.plugin.PluginSink."""
        ...

    async def ensure_no_instance(self, instance: str) -> None:
        """See bridge.ports.plugin.PluginSink."""
        ...

    def describe(self) -> Sequence[PluginDescription]:
        """Every instance, one row per role, in a stable order."""
        ...

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """See bridge.ports.plugin.Plugins."""
        ...

    def carriage(self, instance: str) -> Carriage | None:
        """The way to this instance's plugin; None when it is unknown or not connected."""
        ...
