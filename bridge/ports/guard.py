"""A guard around the cut: what an orchestrator does to the writers of a volume while its copy is made, and undoes.

The core calls it right before the plugin call that may cut, and right after. How writers are held still, and how it
is made sure that they are let go whatever happens, is the adapter's matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from bridge.model.failure import Failure
from bridge.model.snapshot import SnapshotRequest

NOT_QUIESCED = "NOT_QUIESCED"
"""The code of a cut that was not made because its writers could not be held still."""
CONSISTENCY, CONSISTENCY_WHY = "consistency", "consistency_why"
"""Labels by which a guard tells what a copy is worth; nobody else may write them."""
FREEZE = "freeze"
"""The verb of the operations that guards keep of their own: their durable notes. The service only shows them."""
QUIESCE_UNAVAILABLE = "QUIESCE_UNAVAILABLE"
"""The same, because the orchestrator could not be asked: it may be tried again."""


@dataclasses.dataclass(frozen=True, slots=True)
class CutEnd:
    """How the guarded plugin calls ended."""

    made: bool
    """The plugin answered that the snapshot is there."""
    sure: bool
    """And no call from before this hold can have made it."""


class Hold(Protocol):
    """Writers that are held still, or none at all."""

    def seconds_left(self) -> float:
        """For how long they still are; 0 when nobody is held. They are let go then, whoever has not answered."""
        ...


class Guard(Protocol):
    """One cluster's way to hold writers still."""

    async def before_cut(self, requests: Sequence[SnapshotRequest]) -> Hold | Failure:
        """Hold the writers of these volumes still, all at once. A failure: nothing may be cut, and nobody is held.

        Cancelled, it lets go of whomever it holds.
        """
        ...

    async def after_cut(self, hold: Hold, end: CutEnd) -> None:
        """Let them go, and put on record what the copy is worth. Raises nothing; may be cancelled, and then the
        writers are let go all the same, later."""
        ...
