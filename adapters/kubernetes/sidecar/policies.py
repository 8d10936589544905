"""When the server last confirmed the deletion policy that a driver half knows: of single and of group contents."""

from __future__ import annotations

from bridge.model.group import GroupRecord
from bridge.model.snapshot import Record


class Policies:
    """By the uid of the content. Nothing of it may outlive a term as leader: `clear`."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: what was confirmed longer ago is confirmed anew before a delete; until then the watch tells."""
        self._seconds = seconds
        self._confirmed: dict[str, float] = {}

    def confirm(self, uid: str, now: float) -> None:
        """The server has just said that the policy we know is the newest one."""
        self._confirmed[uid] = now

    def forget(self, uid: str) -> None:
        """The content is gone."""
        self._confirmed.pop(uid, None)

    def clear(self) -> None:
        """Others may have acted meanwhile."""
        self._confirmed.clear()

    def condemned(self, uid: str, record: Record | GroupRecord, now: float) -> bool:
        """Whether a condemned record still counts as one.

        While a retry waits nothing is asked; before it is made the policy is confirmed anew.
        """
        confirmed = self._confirmed.get(uid)
        if confirmed is None or not record.condemned:
            return False
        return record.deleted or now - confirmed < self._seconds or now < record.retry_at
