"""A registry's place, for the parts of the agent that talk to it: it keeps what it was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bridge.model.plugin import InstanceId, PluginDescription, Route
from bridge.ports.transport import Carriage


class Places:
    """Implements LocalPlugins without any plugin behind it."""

    def __init__(self) -> None:
        self.sockets: dict[str, str] = {}
        self.rows: list[PluginDescription] = []
        self.listeners: list[Callable[[str], None]] = []

    async def ensure_socket(self, instance: str, path: str, *, backend: str = "", node: str = "") -> None:
        self.sockets[instance] = path

    async def ensure_no_instance(self, instance: str) -> None:
        self.sockets.pop(instance, None)

    def describe(self) -> Sequence[PluginDescription]:
        return self.rows

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def carriage(self, instance: str) -> Carriage | None:
        return None

    def put(self, driver: str, role: str, path: str, *, healthy: bool = True) -> None:
        """A row for the plugin at this path; tells the listeners."""
        row = PluginDescription(InstanceId(driver, role, path), Route.SOCKET, f"unix:{path}", healthy, "fine")
        self.rows = [r for r in self.rows if r.id != row.id] + [row]
        self.tell(driver)

    def tell(self, driver: str) -> None:
        """Call all listeners."""
        for listener in list(self.listeners):
            listener(driver)
