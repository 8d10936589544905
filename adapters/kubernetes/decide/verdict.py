"""Why a volume is not made now, and what follows from it. Pure."""

from __future__ import annotations

import dataclasses
import enum

SLOW = frozenset({"INVALID_ARGUMENT"})
"""Codes after which a repeat is pointless until somebody changes something: retried at the longest interval."""

_PENDING = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED"})
WRONG_ANSWER = frozenset({"WRONG_SIZE", "WRONG_SOURCE", "BAD_RESPONSE"})
"""Codes of ours: the plugin said yes, and made something else than was asked."""
_DOUBTFUL = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS"})
_EVIDENCE = "ALREADY_EXISTS"
"""A volume of the name is there, made with another request: perhaps with ours, before the class was changed."""
DOUBTFUL_TRIES = 3
"""After so many such answers in a row a claim that is being deleted is let go."""


class State(enum.Enum):
    """Where a volume's making stands after a failure; upstream's four states."""

    FINISHED = "finished"
    """Nothing is under way at the plugin."""
    NO_CHANGE = "no-change"
    """The plugin was not asked: it is as it was before."""
    RESCHEDULE = "reschedule"
    """Nothing is under way, and another node may do."""
    BACKGROUND = "in-background"
    """The plugin may still be busy: the same call is repeated until it says something final."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """It cannot be made now. `message` is for the claim's events."""

    message: str
    state: State = State.FINISHED


@dataclasses.dataclass(frozen=True, slots=True)
class Ignored:
    """It is somebody else's to make. `message` is for the claim's events."""

    message: str


def state_after(code: str, *, may_reschedule: bool) -> State:
    """What a CreateVolume that failed with this code leaves behind (a gRPC code's name, or one of ours)."""
    if code == "RESOURCE_EXHAUSTED":
        return State.RESCHEDULE if may_reschedule else State.FINISHED
    if code in _PENDING or code in WRONG_ANSWER:
        return State.BACKGROUND
    return State.FINISHED


def may_let_go(code: str, tries: int) -> bool:
    """Whether a claim that nobody wants any more may go, after `tries` answers in a row with this code.

    Upstream takes INTERNAL and its like for final at once. A plugin may answer so after it has made the volume,
    so the call is repeated a few times: a repeat that succeeds gives the handle to delete.
    """
    if code == _EVIDENCE or state_after(code, may_reschedule=False) is State.BACKGROUND:
        return False
    return code not in _DOUBTFUL or tries >= DOUBTFUL_TRIES


def is_settled(code: str, *, before: bool) -> bool:
    """Whether nothing of ours is at the plugin after a refusal. `before`: whether that was certain before it."""
    return before if code == _EVIDENCE else may_let_go(code, 0)
