"""The call that cuts under a guard: when it is repeated, what is told, and that the guard is always let go."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

import pytest

from bridge.model.failure import Failure, FailureKind
from bridge.model.keys import snapshot_key
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.snapshot import CutSnapshot, DeletionPolicy, SnapshotRequest, VolumeSource, Wish
from bridge.ports.guard import CutEnd, Hold
from bridge.service import guarded
from tests.support.memory import VirtualClock

REQUEST = SnapshotRequest(
    key=snapshot_key("east", "u"), wish=Wish.PRESENT, namespace="default", name="s", driver="d",
    source=VolumeSource("v"), snapshot_name="snapshot-u", policy=DeletionPolicy.DELETE,
)  # fmt: skip
CUT = Done(CutSnapshot("h", "v", ready=True))
UNSURE = Failed(Failure(FailureKind.UNSURE, "UNAVAILABLE", "no answer"))
REFUSED = Failed(Failure(FailureKind.REFUSED, "OUT_OF_RANGE", "full"))


@dataclasses.dataclass
class Timed:
    """A hold that ends at an instant."""

    clock: VirtualClock
    until: float

    def seconds_left(self) -> float:
        return max(0.0, self.until - self.clock.now())


@dataclasses.dataclass
class MemoryGuard:
    """Remembers what was held and let go."""

    clock: VirtualClock
    seconds: float = 30.0
    refusal: Failure | None = None
    held: int = 0
    ends: list[CutEnd] = dataclasses.field(default_factory=list)

    async def before_cut(self, requests: Sequence[SnapshotRequest]) -> Hold | Failure:
        if self.refusal is not None:
            return self.refusal
        self.held += 1
        return Timed(self.clock, self.clock.now() + self.seconds)

    async def after_cut(self, hold: Hold, end: CutEnd) -> None:
        self.held -= 1
        self.ends.append(end)


class Calls:
    """A plugin call with prepared outcomes."""

    def __init__(self, *outcomes: Outcome[CutSnapshot | None] | BaseException) -> None:
        self.left = list(outcomes)
        self.made = 0

    async def __call__(self) -> Outcome[CutSnapshot | None]:
        self.made += 1
        found = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if isinstance(found, BaseException):
            raise found
        return found


async def cut(guard: MemoryGuard, calls: Calls, *, first: bool = True) -> Outcome[CutSnapshot | None]:
    return await guarded.cut(guard, (REQUEST,), calls, first=first, clock=guard.clock)


async def test_a_cut_under_the_hold() -> None:
    guard, calls = MemoryGuard(VirtualClock()), Calls(CUT)
    assert await cut(guard, calls) == CUT
    assert (guard.held, guard.ends, calls.made) == (0, [CutEnd(made=True, sure=True)], 1)


async def test_an_earlier_call_makes_it_unsure_what_the_copy_is_worth() -> None:
    guard = MemoryGuard(VirtualClock())
    await cut(guard, Calls(CUT), first=False)
    assert guard.ends == [CutEnd(made=True, sure=False)]


async def test_without_the_hold_nothing_is_called() -> None:
    refusal = Failure(FailureKind.REFUSED, "NOT_QUIESCED", "the freeze failed")
    guard, calls = MemoryGuard(VirtualClock(), refusal=refusal), Calls(CUT)
    assert await cut(guard, calls) == Failed(refusal)
    assert (calls.made, guard.ends) == (0, [])


async def test_an_unsure_call_is_repeated_under_the_same_hold() -> None:
    guard, calls = MemoryGuard(VirtualClock()), Calls(UNSURE, UNSURE, CUT)
    assert await cut(guard, calls) == CUT
    assert (calls.made, guard.ends) == (3, [CutEnd(made=True, sure=True)])


@pytest.mark.parametrize(("seconds", "made"), [(0.0, 1), (1.9, 1), (3.5, 3), (300.0, guarded.MOST_REPEATS)])
async def test_repeats_end_before_the_hold_does(seconds: float, made: int) -> None:
    guard, calls = MemoryGuard(VirtualClock(), seconds=seconds), Calls(UNSURE)
    assert await cut(guard, calls) == UNSURE
    assert (calls.made, guard.ends) == (made, [CutEnd(made=False, sure=True)])


async def test_a_refusal_after_an_unsure_call_proves_nothing() -> None:
    guard = MemoryGuard(VirtualClock())
    outcome = await cut(guard, Calls(UNSURE, REFUSED))
    assert isinstance(outcome, Failed)
    assert (outcome.failure.kind, outcome.failure.code) == (FailureKind.UNSURE, "OUT_OF_RANGE")
    assert await cut(guard, Calls(REFUSED)) == REFUSED


@pytest.mark.parametrize("error", [RuntimeError("a defect"), asyncio.CancelledError()])
async def test_whatever_ends_the_call_the_hold_is_let_go(error: BaseException) -> None:
    guard = MemoryGuard(VirtualClock())
    with pytest.raises(type(error)):
        await cut(guard, Calls(error))
    assert (guard.held, guard.ends) == (0, [CutEnd(made=False, sure=True)])
