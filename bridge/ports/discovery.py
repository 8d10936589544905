"""Finding this host's plugin sockets by asking an orchestrator which plugins it runs here."""

from __future__ import annotations

from typing import Protocol

from bridge.ports.plugin import SocketSink


class SocketFinder(Protocol):
    """What an adapter contributes to a node agent."""

    @property
    def sentence(self) -> str:
        """Why the last look found nothing out; empty when it was good."""
        ...

    async def run(self, plugins: SocketSink) -> None:
        """Announce every plugin socket of this host, follow restarts, take back what is gone; until cancelled.

        Never raises for what the orchestrator does.
        """
        ...
