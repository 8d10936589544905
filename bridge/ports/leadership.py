"""Which of several replicas acts. The right to act is an instant that is compared at the moment of acting."""

from __future__ import annotations

from typing import Protocol


class Marks(Protocol):
    """Where a leader leaves the mark of its ledger for the next one."""

    async def last_mark(self) -> str:
        """The mark of the ledger that the last leader had; empty when none was left. UnavailableError."""
        ...

    async def leave_mark(self, mark: str) -> None:
        """Leave the mark of our ledger for the next leader. UnavailableError."""
        ...

    @property
    def mark_place(self) -> str:
        """Where the mark is, for people."""
        ...


class Leadership(Marks, Protocol):
    """Our part in one election. Run it, and ask it before anything with an effect."""

    def why_not(self) -> str:
        """Why this process may not act at this very moment; empty when it may. Never waits."""
        ...

    @property
    def leader(self) -> str:
        """Who leads, for people, as it was seen last; empty while nobody is known to."""
        ...

    @property
    def leader_address(self) -> str:
        """Where the leader's API is, if it told; else empty."""
        ...

    @property
    def trouble(self) -> str:
        """Why no replica of ours can ever lead as things are (a right that is missing); else empty."""
        ...

    async def run(self) -> None:
        """Stand, lead and stand by until cancelled; then give the right back, so that nobody waits for its end."""
        ...

    async def gained(self) -> None:
        """Return when this process may act."""
        ...

    async def lost(self) -> None:
        """Return when it may not any more and did not get the right back at once."""
        ...
