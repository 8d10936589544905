"""Stories that every right core tells well and every wrong one does not: a life of one snapshot under faults."""

from __future__ import annotations

from bridge.decide import action as act
from bridge.decide import snapshot
from bridge.model.snapshot import DeletionPolicy, Wish
from bridge.service import work
from tests.support.world import Breach, Decide, World

FAULTS = ("ok", "crash before", "crash after", "lost before", "lost after", "refused", "conflict")


def live(
    faults: dict[int, str],
    *,
    policy: DeletionPolicy = DeletionPolicy.DELETE,
    not_ready: int = 0,
    change_after: int | None = None,
    adopt: str = "",
    decide: Decide = snapshot.decide,
    fold: work.Fold = snapshot.fold,
) -> World:
    """Wanted, then no longer wanted (at once after `change_after` turns, or once it rests). Checks every promise."""
    world = World(policy, not_ready, adopt, faults, decide, fold)
    foreign = set(world.plugin.handles())
    last = world.settle(turns=400 if change_after is None else change_after)
    if change_after is None:
        _check_present(world, last, foreign)
    before = set(world.plugin.handles())
    world.want(wish=Wish.ABSENT)
    last = world.settle(turns=400)
    _check_absent(world, last, before, foreign)
    return world


def _check_present(world: World, last: act.Action, foreign: set[str]) -> None:
    if not (isinstance(last, act.Rest) and last.reason == "ready"):
        raise Breach(f"wanted, but it came to rest with {last}")
    made = world.plugin.handles() - foreign
    if not world.adopt and len(made) != 1:
        raise Breach(f"wanted one snapshot, the backend has {len(made)}")
    told = world.requests.told[-1]
    if not told.ready or told.handle not in world.plugin.handles():
        raise Breach("told ready, but it does not exist")
    assert world.requests.request is not None
    if not world.requests.request.held:
        raise Breach("ready, but not held")


def _check_absent(world: World, last: act.Action, before: set[str], foreign: set[str]) -> None:
    if not isinstance(last, act.Rest):
        raise Breach(f"withdrawn, but it did not come to rest: {last}")
    assert world.requests.request is not None
    if world.requests.request.held:
        raise Breach("withdrawn, but still held")
    left = world.plugin.handles()
    if world.policy is DeletionPolicy.DELETE and not world.adopt and left - foreign:
        raise Breach(f"policy Delete left {left}")
    if world.policy is DeletionPolicy.RETAIN and not before <= left:
        raise Breach("policy Retain lost a snapshot")
    if world.policy is DeletionPolicy.RETAIN and left - foreign:
        record = world.ledger.records.get(world.key)
        if record is None or record.handle not in left:
            raise Breach("a retained snapshot that nobody knows of")
    if len(left - foreign) > 1:
        raise Breach(f"doubled: {left}")
