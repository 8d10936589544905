"""The order around a cut: note, freeze, cut, thaw, forget the note. A table, and nothing else; the shell performs it.

The one promise: whoever may be frozen has a note, and a note goes only after a thaw that worked (or after the task
itself has gone). So a crash anywhere ends with the note found and a thaw. Thawing twice is harmless by contract.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """Where one freeze of one task stands."""

    NEW = "new"
    NOTING = "noting"
    FREEZING = "freezing"
    FROZEN = "frozen"
    THAWING = "thawing"
    OWED = "thaw owed"
    """The thaw did not work yet; it is tried again until it does."""
    CLOSING = "closing"
    OVER = "over"


class Event(enum.Enum):
    """What the last step came to."""

    BEGIN = "begin"
    FOUND = "found"
    """The note of a process that is no more."""
    DONE = "done"
    FAILED = "failed"
    """It did not work, or nobody knows whether it did: an error, a time-out, a dropped connection."""
    STOPPED = "stopped"
    """The step was cancelled, or the time of the freeze is up."""
    GONE = "gone"
    """The task does not run any more: there is nothing to thaw in it."""


class Do(enum.Enum):
    """The next step."""

    WRITE_NOTE = "write the note"
    FREEZE = "freeze"
    CUT = "let the cut be made"
    THAW = "thaw"
    THAW_LATER = "thaw later"
    DROP_NOTE = "forget the note"
    NOTHING = "nothing"


Table = Mapping[tuple[State, Event], tuple[State, Do]]

TABLE: Table = {
    (State.NEW, Event.BEGIN): (State.NOTING, Do.WRITE_NOTE),
    (State.NEW, Event.FOUND): (State.THAWING, Do.THAW),
    (State.NOTING, Event.DONE): (State.FREEZING, Do.FREEZE),
    # Nothing was frozen. A note that may have been kept in spite of the error is found at the next start.
    (State.NOTING, Event.FAILED): (State.CLOSING, Do.DROP_NOTE),
    (State.NOTING, Event.STOPPED): (State.CLOSING, Do.DROP_NOTE),
    (State.FREEZING, Event.DONE): (State.FROZEN, Do.CUT),
    # A freeze that failed may be half done, one that timed out may still happen.
    (State.FREEZING, Event.FAILED): (State.THAWING, Do.THAW),
    (State.FREEZING, Event.STOPPED): (State.THAWING, Do.THAW),
    (State.FREEZING, Event.GONE): (State.CLOSING, Do.DROP_NOTE),
    (State.FROZEN, Event.DONE): (State.THAWING, Do.THAW),
    (State.FROZEN, Event.FAILED): (State.THAWING, Do.THAW),
    (State.FROZEN, Event.STOPPED): (State.THAWING, Do.THAW),
    (State.THAWING, Event.DONE): (State.CLOSING, Do.DROP_NOTE),
    (State.THAWING, Event.GONE): (State.CLOSING, Do.DROP_NOTE),
    (State.THAWING, Event.FAILED): (State.OWED, Do.THAW_LATER),
    (State.THAWING, Event.STOPPED): (State.OWED, Do.THAW_LATER),
    (State.OWED, Event.BEGIN): (State.THAWING, Do.THAW),
    (State.CLOSING, Event.DONE): (State.OVER, Do.NOTHING),
    # The note stays and is found again: one thaw too many, never one too few.
    (State.CLOSING, Event.FAILED): (State.OWED, Do.THAW_LATER),
    (State.CLOSING, Event.STOPPED): (State.OWED, Do.THAW_LATER),
}

MAY_BE_FROZEN = frozenset({State.FREEZING, State.FROZEN, State.THAWING, State.OWED})
"""States in which a note must be there."""


def step(state: State, event: Event) -> tuple[State, Do]:
    """The next state and what is to be done in it. KeyError: this cannot happen there."""
    return TABLE[(state, event)]
