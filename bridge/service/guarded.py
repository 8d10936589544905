"""The plugin call that cuts, with the writers held still around it. The call's outcome is told as it was.

Between the two calls of the guard nothing may be awaited without a bound: somebody's writes stand still.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from bridge.model.failure import Failure, FailureKind
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.snapshot import SnapshotRequest
from bridge.ports.clock import Clock
from bridge.ports.guard import CutEnd, Guard, Hold

MOST_REPEATS = 5
PAUSE_SECONDS = 1.0
LEAST_LEFT_SECONDS = 2.0

T = TypeVar("T")


async def cut(
    guard: Guard,
    requests: Sequence[SnapshotRequest],
    make: Callable[[], Awaitable[Outcome[T]]],
    *,
    first: bool,
    clock: Clock,
) -> Outcome[T]:
    """Make the call that cuts these under one hold. `first`: no earlier call can have cut them already."""
    hold = await guard.before_cut(requests)
    if isinstance(hold, Failure):
        return Failed(hold)
    made = False
    try:
        outcome = await _within(hold, make, clock)
        made = isinstance(outcome, Done)
    finally:
        await guard.after_cut(hold, CutEnd(made, sure=first))
    return outcome


async def _within(hold: Hold, make: Callable[[], Awaitable[Outcome[T]]], clock: Clock) -> Outcome[T]:
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
