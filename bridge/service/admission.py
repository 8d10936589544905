"""Who may call a plugin now: free places per driver, one way at a time per volume, a pause after ABORTED.

Asked right before a call leaves, by whoever makes it. It makes no call, keeps nothing on disk and never waits: what
may not go yet is told for how long. It must not decide what is to be done.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from bridge.decide import backoff
from bridge.model.failure import FailureKind
from bridge.model.keys import Key
from bridge.model.outcome import Failed
from bridge.model.plugin import PluginView, Route

PARKED_SECONDS = 30.0
"""Who waits for a place is woken when one is free; this is for a wake that came to nothing."""
RESERVED_SECONDS = 30.0
"""How long places are kept free for somebody who needs several at once."""
CROSSING_SECONDS = 0.5
_ANSWERED = frozenset({"ABORTED", "RESOURCE_EXHAUSTED"})
"""Codes that leave open what was done, and yet prove that the call is over."""
_THROUGH_PLUGIN = frozenset({Route.SOCKET, Route.NODE_AGENT})
"""Two ways of dialling the plugin itself: it sees both kinds of calls and locks by itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """One call to be made. `subjects` are the volumes that it works on, or the handle where no volume is known."""

    key: Key
    view: PluginView
    route: Route
    subjects: tuple[str, ...]
    settle_seconds: float
    """How long it may be under way when nobody answers it."""
    contended: tuple[str, ...] = ()
    """Those of them that an ABORTED speaks of; empty: all. A copy out of a volume holds nobody else off it."""

    @property
    def paused_by(self) -> tuple[str, ...]:
        """The subjects whose ABORTED this call waits out."""
        return self.contended or self.subjects


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Not now. `seconds` until another try; an empty `why` is not worth telling anybody."""

    seconds: float
    reason: str
    why: str = ""


@dataclasses.dataclass(slots=True)
class _Lane:
    """One driver."""

    inside: dict[Key, Passage] = dataclasses.field(default_factory=dict)
    line: dict[Key, None] = dataclasses.field(default_factory=dict)
    reserved_for: Key | None = None
    reserved_places: int = 0
    reserved_until: float = 0.0


@dataclasses.dataclass(slots=True)
class _Subject:
    """One volume of one driver, while there is something to remember of it."""

    route: Route | None = None
    unsettled: dict[Key, float] = dataclasses.field(default_factory=dict)
    """Whose call over `route` nobody answered, and until when it may still be under way."""
    aborted: int = 0
    paused_until: float = 0.0

    @property
    def unsettled_until(self) -> float:
        return max(self.unsettled.values(), default=0.0)


def same_way(one: Route, other: Route) -> bool:
    """Whether calls over both routes meet in the plugin itself, without an orchestrator between."""
    return one is other or {one, other} <= _THROUGH_PLUGIN


class Admission:
    """The doorkeeper of one process. Everything happens on the loop; no method waits."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._subjects: dict[tuple[str, str], _Subject] = {}
        self._listeners: dict[str, Callable[[Key], None]] = {}

    def listen(self, wake: Callable[[Key], None], *kinds: str) -> None:
        """Where keys of these kinds go that may try again."""
        for kind in kinds:
            self._listeners[kind] = wake

    def _wake(self, key: Key) -> None:
        if (wake := self._listeners.get(key.kind)) is not None:
            wake(key)

    def hold(self, wanted: Passage, now: float) -> Hold | None:
        """What forbids this call now; None when it may go. Who is held for a place is woken when one is free."""
        lane = self._lanes.setdefault(wanted.view.driver, _Lane())
        return self._forbidden(lane, wanted, now) or self._no_place(lane, wanted, now)

    def hold_together(self, key: Key, wanted: list[Passage], now: float) -> Hold | None:
        """The same for several calls that are to start at once: as many places as they need, or all that there are.

        Places are kept free for them from now on, driver by driver, so that single calls cannot starve them.
        """
        for passage in wanted:
            lane = self._lanes.setdefault(passage.view.driver, _Lane())
            if (held := self._forbidden(lane, passage, now)) is not None:
                return held
        for driver in sorted({passage.view.driver for passage in wanted}):
            lane = self._lanes[driver]
            mine = [passage for passage in wanted if passage.view.driver == driver]
            most = mine[0].view.concurrency
            if self._is_reserved(lane, now) and lane.reserved_for != key:
                lane.line[key] = None
                return Hold(PARKED_SECONDS, "busy")
            if len(lane.inside) + min(len(mine), most) > most:
                lane.reserved_for, lane.reserved_places = key, min(len(mine), most)
                lane.reserved_until = now + RESERVED_SECONDS
                return Hold(PARKED_SECONDS / 3, "busy")
        return None

    @contextlib.contextmanager
    def inside(self, passage: Passage, now: Callable[[], float]) -> Iterator[Callable[[object], None]]:
        """The call is under way in this block. The block tells its outcome; without one it stays unsettled."""
        lane = self._lanes.setdefault(passage.view.driver, _Lane())
        lane.inside[passage.key] = passage
        began = now()
        outcomes: list[object] = []
        try:
            yield outcomes.append
        finally:
            lane.inside.pop(passage.key, None)
            for subject in passage.subjects:
                self._remember(passage, subject, outcomes[0] if outcomes else None, began, now())
            self._next(lane, passage.view.concurrency, now())

    def reserved(self, key: Key) -> None:
        """Who had places kept free has begun, or gives up."""
        for lane in self._lanes.values():
            lane.line.pop(key, None)
            if lane.reserved_for == key:
                lane.reserved_for, lane.reserved_places = None, 0

    def unsettled(self, passage: Passage, route: Route, now: float, seconds: float) -> None:
        """The same call of an earlier process, over this route, may be under way for so long."""
        for subject in passage.subjects:
            found = self._subjects.setdefault((passage.view.driver, subject), _Subject())
            found.route = route
            found.unsettled[passage.key] = max(found.unsettled.get(passage.key, 0.0), now + seconds)

    def _forbidden(self, lane: _Lane, wanted: Passage, now: float) -> Hold | None:
        """What this very volume forbids."""
        if wanted.key in lane.inside:
            return Hold(CROSSING_SECONDS, "busy")
        for other in lane.inside.values():
            shared = [subject for subject in wanted.subjects if subject in other.subjects]
            if shared and not same_way(other.route, wanted.route):
                return _crossing(wanted, shared[0], other.route, CROSSING_SECONDS)
        holds = (self._remembered(wanted, subject, now) for subject in wanted.subjects)
        return next((hold for hold in holds if hold is not None), None)

    def _remembered(self, wanted: Passage, subject: str, now: float) -> Hold | None:
        found = self._subjects.get((wanted.view.driver, subject))
        if found is None:
            return None
        if found.route is not None and now < found.unsettled_until and not same_way(found.route, wanted.route):
            return _crossing(wanted, subject, found.route, found.unsettled_until - now)
        if subject in wanted.paused_by and now < found.paused_until:
            why = f"the plugin still works on volume {subject!r} for somebody else (ABORTED)"
            return Hold(found.paused_until - now, "ABORTED", why)
        return None

    def _no_place(self, lane: _Lane, wanted: Passage, now: float) -> Hold | None:
        kept = lane.reserved_places if self._is_reserved(lane, now) and lane.reserved_for != wanted.key else 0
        if len(lane.inside) + kept < wanted.view.concurrency:
            lane.line.pop(wanted.key, None)
            return None
        lane.line[wanted.key] = None
        return Hold(PARKED_SECONDS, "busy")

    def _is_reserved(self, lane: _Lane, now: float) -> bool:
        return lane.reserved_for is not None and now < lane.reserved_until

    def _remember(self, passage: Passage, subject: str, outcome: object, began: float, now: float) -> None:
        place = (passage.view.driver, subject)
        found = self._subjects.pop(place, None) or _Subject()
        failure = outcome.failure if isinstance(outcome, Failed) else None
        if outcome is None or (
            failure is not None and failure.kind is FailureKind.UNSURE and failure.code not in _ANSWERED
        ):
            found.route, found.unsettled[passage.key] = passage.route, began + passage.settle_seconds
        elif failure is None:  # an answer tells of its own call only, not of another's
            found.unsettled.pop(passage.key, None)
        contended = subject in passage.paused_by
        if failure is None and outcome is not None and contended:
            found.aborted, found.paused_until = 0, 0.0
        if failure is not None and failure.code == "ABORTED" and contended:
            found.aborted += 1
            first, most = passage.view.retry_first_seconds, passage.view.retry_most_seconds
            found.paused_until = now + backoff.retry_delay(found.aborted, first, most)
        if found.aborted or now < found.unsettled_until:
            self._subjects[place] = found

    def _next(self, lane: _Lane, most: int, now: float) -> None:
        """A place is free: wake whom it was kept for, else the first in the line."""
        if self._is_reserved(lane, now):
            assert lane.reserved_for is not None
            if len(lane.inside) + lane.reserved_places <= most:
                self._wake(lane.reserved_for)
            return
        for key in list(lane.line)[: max(most - len(lane.inside), 0)]:
            del lane.line[key]
            self._wake(key)


def _crossing(wanted: Passage, subject: str, route: Route, seconds: float) -> Hold:
    why = (
        f"a call on volume {subject!r} may still be under way by {route.value}; "
        f"it is not called by {wanted.route.value} before that one has ended"
    )
    return Hold(max(seconds, CROSSING_SECONDS), "ROUTE_BUSY", why)
