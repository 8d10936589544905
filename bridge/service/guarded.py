"""The plugin call that cuts, with the writers held still around it. The call's outcome is told as it was.

Between the two calls of the guard nothing may be awaited without a bound: somebody's writes stand still.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from bridge.model.failure import Failure, FailureKind
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.snapshot import CutSnapshot, SnapshotRequest
from bridge.ports.clock import Clock
from bridge.ports.guard import CutEnd, Guard, Hold

MOST_REPEATS = 5
PAUSE_SECONDS = 1.0
LEAST_LEFT_SECONDS = 2.0

Make = Callable[[], Awaitable[Outcome[CutSnapshot | None]]]


async def cut(
    guard: Guard, request: SnapshotRequest, make: Make, *, first: bool, clock: Clock
) -> Outcome[CutSnapshot | None]:
    """Make the call under a hold. `first`: no earlier call can have made the snapshot already."""
    hold = await guard.before_cut((request,))
    if isinstance(hold, Failure):
        return Failed(hold)
    made = False
    try:
        outcome = await _within(hold, make, clock)
        made = isinstance(outcome, Done)
    finally:
        await guard.after_cut(hold, CutEnd(made, sure=first))
    return outcome


async def _within(hold: Hold, make: Make, clock: Clock) -> Outcome[CutSnapshot | None]:
    """Call, and call again as long as the hold lasts while it is unsure whether the copy was made."""
    unsure = False
    for repeat in range(MOST_REPEATS):
        outcome = await make()
        if isinstance(outcome, Done):
            return outcome
        if outcome.failure.kind is FailureKind.REFUSED:
            # A refusal counts for the call that it answers; an earlier one may have taken effect.
            kind = FailureKind.UNSURE if unsure else FailureKind.REFUSED
            return Failed(dataclasses.replace(outcome.failure, kind=kind))
        unsure = True
        if repeat == MOST_REPEATS - 1 or hold.seconds_left() < LEAST_LEFT_SECONDS:
            break
        await clock.sleep(PAUSE_SECONDS)
    return outcome
