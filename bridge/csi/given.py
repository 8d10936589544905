"""An instance whose calls were given ready-made: an orchestrator's own API calls the plugin, and tells its health."""

from __future__ import annotations

import dataclasses

from bridge.model.plugin import NO_RULES, Capability, InstanceId, PluginDescription, Role, Route
from bridge.ports.plugin import PluginCalls


@dataclasses.dataclass(frozen=True, slots=True)
class _Way:
    route: Route
    endpoint: str


class GivenMember:
    """Read like a Member; nothing is supervised here, its announcer tells again when something changes."""

    rules = NO_RULES
    """Its driver's count."""
    backend = ""
    """Nobody names one: what is reached through an orchestrator is that one's own."""
    cluster = ""
    """Whose plugin it is; empty for one that all share."""

    def __init__(
        self,
        calls: PluginCalls,
        capabilities: frozenset[Capability],
        *,
        endpoint: str,
        sentence: str,
        concurrency: int = 1,
    ) -> None:
        self._calls = calls
        self.concurrency = concurrency
        self.name = calls.id.instance
        self.driver = calls.id.driver
        self.capabilities = capabilities
        self.healthy = not sentence
        self.sentence = sentence or f"at {endpoint}"
        self.link = _Way(calls.route, endpoint)

    @property
    def controller(self) -> PluginCalls | None:
        """The calls, if they are a controller's."""
        return self._calls if self._calls.id.role == Role.CONTROLLER.value else None

    def same_as(self, other: GivenMember) -> bool:
        """Whether the other one tells the same."""
        return (self._calls, self.capabilities, self.sentence, self.link, self.healthy, self.concurrency) == (
            other._calls,
            other.capabilities,
            other.sentence,
            other.link,
            other.healthy,
            other.concurrency,
        )

    def rows(self) -> list[PluginDescription]:
        """One row."""
        calls = self._calls
        return [
            PluginDescription(
                id=InstanceId(self.driver, calls.id.role, self.name),
                route=self.link.route,
                endpoint=self.link.endpoint,
                healthy=self.healthy,
                sentence=self.sentence,
                capabilities=self.capabilities,
            )
        ]
