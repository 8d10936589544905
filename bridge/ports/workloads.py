"""Workloads: who uses a volume, and how it is stopped for a while. Given by an orchestrator that can.

An in-place revert needs it. Each write carries a precondition: a workload that somebody changes meanwhile is not
stopped, and one that somebody stopped is not started.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.model.revert import Workload, WorkloadState


class Workloads(Protocol):
    """UnavailableError from any of these: it may have been done; look again later."""

    async def note(
        self, namespace: str, volumes: Sequence[str], *, mark: str, name: str = "", version: str = ""
    ) -> Workload | None:
        """Who uses these volumes now, or would (`name`); None when nobody does. Changes nothing.

        `mark` will be left where people look for who stopped it. `version`: what is to be started afterwards
        instead of what runs now. ConflictError, InvalidError or NotFoundError when a revert would lose data or
        could not be finished: the error says why.
        """
        ...

    async def look(self, namespace: str, workload: Workload) -> WorkloadState:
        """How it stands now."""
        ...

    async def pause(self, namespace: str, workload: Workload, *, again: bool) -> None:
        """Stop every instance that uses the volumes. Returns when that is on record, not when they have ended.

        ConflictError: it is not what was noted any more. With `again`, whatever it is now is stopped.
        """
        ...

    async def resume(self, namespace: str, workload: Workload, *, back: bool) -> None:
        """Start what `pause` stopped. With `back`, as it was; else in the version that was asked for.

        ConflictError: it is not as `pause` left it.
        """
        ...
