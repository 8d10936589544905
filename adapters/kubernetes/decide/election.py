"""What to do about one lease: create it, take it, renew it, let it go, or stand by. No clock, no IO.

Instants are seconds of this host's monotonic clock. The times written in a lease are other hosts' wall clocks: here
they only tell one renewal from the next.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

SHORTEST_PAUSE_SECONDS = 0.05
_KEPT = ("labels", "annotations", "ownerReferences", "finalizers")


class Scope(enum.Enum):
    """Which of upstream's leases a process stands for."""

    CLUSTER = "cluster"
    """The cluster's: a cluster half, whatever the driver."""
    DRIVERS = "drivers"
    """The drivers' own: a driver half, whoever leads the cluster half."""
    BOTH = "both"
    """Both halves in one process: a driver's is wanted only by who holds the cluster's."""


def needed(scope: Scope, driver: str, standing: tuple[str, ...]) -> tuple[str, ...]:
    """The leases that an act for this driver needs, by driver; the empty name is the cluster's lease.

    An act for no driver (the empty one) needs the cluster's, or, where nobody stands for that, each driver's of
    `standing`.

    >>> needed(Scope.BOTH, "d", ()), needed(Scope.CLUSTER, "d", ()), needed(Scope.DRIVERS, "", ("d",))
    (('', 'd'), ('',), ('d',))
    """
    match scope:
        case Scope.CLUSTER:
            return ("",)
        case Scope.DRIVERS:
            return (driver,) if driver else standing
        case Scope.BOTH:
            return ("", driver) if driver else ("",)


def wanted(scope: Scope, driver: str, holds_cluster: bool) -> bool:
    """Whether to stand for a driver's lease (the empty one: the cluster's) now."""
    return scope is Scope.DRIVERS or not driver or holds_cluster


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What to stand for, and for how long.

    `renew_deadline_seconds` < `lease_seconds`: what lies between is the margin for writes under way.
    """

    lease_seconds: int = 15
    renew_deadline_seconds: float = 10.0
    retry_seconds: float = 2.0
    scope: Scope = Scope.BOTH
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What a lease is marked with while it is ours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A lease as it was last read. `first_seen` is when this renewal of it was first seen here."""

    version: str
    holder: str
    renewal: tuple[str, ...]
    lasts_seconds: float
    transitions: int
    acquired: str
    first_seen: float
    kept: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What others have put on it, to be written back: labels, annotations, owners, finalizers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Until when this process may act, and how often it has begun to."""

    until: float = float("-inf")
    term: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Create:
    """There is no lease: make it ours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Take:
    """Nobody holds it any more: make it ours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Renew:
    """It is ours: keep it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Release:
    """It is ours and no longer wanted: empty it."""


@dataclasses.dataclass(frozen=True, slots=True)
class StandBy:
    """Look again in so many seconds. `holder` is empty when nobody has it and we do not want it either."""

    holder: str
    seconds: float


Action = Create | Take | Renew | Release | StandBy


def look(before: Seen | None, lease: Mapping[str, Any], now: float, terms: Terms) -> Seen:
    """Fold in a lease as the server has it. A write that renews nothing (a label, say) starts no new time."""
    spec = lease.get("spec") or {}
    fields = ("holderIdentity", "renewTime", "acquireTime", "leaseTransitions", "leaseDurationSeconds")
    renewal = tuple(str(spec.get(field) or "") for field in fields)
    same = before is not None and before.renewal == renewal
    return Seen(
        version=str(lease["metadata"].get("resourceVersion") or ""),
        holder=str(spec.get("holderIdentity") or ""),
        renewal=renewal,
        lasts_seconds=float(spec.get("leaseDurationSeconds") or terms.lease_seconds),
        transitions=int(spec.get("leaseTransitions") or 0),
        acquired=str(spec.get("acquireTime") or ""),
        first_seen=before.first_seen if same and before is not None else now,
        kept={field: lease["metadata"][field] for field in _KEPT if lease["metadata"].get(field)},
    )


def decide(seen: Seen | None, *, me: str, wanted: bool, now: float, terms: Terms) -> Action:
    """The one next step. `seen` is None when the server has no such lease."""
    if seen is not None and seen.holder == me:
        return Renew() if wanted else Release()
    if seen is not None and seen.holder:
        left = seen.first_seen + seen.lasts_seconds - now
        if left > 0 or not wanted:
            pause = min(terms.retry_seconds, left) if left > 0 else terms.retry_seconds
            return StandBy(seen.holder, max(pause, SHORTEST_PAUSE_SECONDS))
    if not wanted:
        return StandBy("", terms.retry_seconds)
    return Create() if seen is None else Take()


def spec_for(action: Create | Take | Renew | Release, seen: Seen | None, *, me: str, stamp: str, terms: Terms) -> Any:
    """The lease's spec that carries the step out. `stamp` is the wall clock's time, for people and for upstream."""
    if isinstance(action, Release):
        acquired, holder, seconds = stamp, "", 1
    elif isinstance(action, Renew) and seen is not None:
        acquired, holder, seconds = seen.acquired or stamp, me, terms.lease_seconds
    else:
        acquired, holder, seconds = stamp, me, terms.lease_seconds
    transitions = 0 if seen is None else seen.transitions + isinstance(action, Take)
    return {
        "holderIdentity": holder,
        "leaseDurationSeconds": seconds,
        "acquireTime": acquired,
        "renewTime": stamp,
        "leaseTransitions": transitions,
    }


def held(hold: Hold, *, sent: float, now: float, terms: Terms) -> Hold:
    """A write that makes it ours has succeeded; it was sent at `sent`, which is what counts.

    After a gap, however short, a new term begins: what was known before it must be read anew.
    """
    return Hold(sent + terms.renew_deadline_seconds, hold.term + (now >= hold.until))


def request_seconds(hold: Hold, now: float, terms: Terms) -> float:
    """How long one request about the lease may take: less than what is left of it, and never all of that."""
    half = terms.renew_deadline_seconds / 2
    left = hold.until - now
    return max(min(half, left), SHORTEST_PAUSE_SECONDS) if left > 0 else half
