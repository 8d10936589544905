"""Making a driver known to what mounts volumes on this host."""

from __future__ import annotations

from typing import Protocol


class Announcer(Protocol):
    """Announces drivers, several from one process."""

    async def announce(self, driver: str, endpoint: str) -> None:
        """Make the driver behind the socket at `endpoint` (an absolute host path) known. Repeating is fine.

        ConflictError: another live process announces this driver; it is left alone.
        InvalidError: the name or the path cannot be announced.
        """
        ...

    async def withdraw(self, driver: str) -> None:
        """Take the announcement back; an unknown driver is fine."""
        ...

    async def run(self) -> None:
        """Keep the announcements alive until cancelled, then take them back."""
        ...
