"""Groups cut by a barrier, under faults: random sequences, every interrupted effect, changes of mind, wrong cores."""

from __future__ import annotations

import dataclasses
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.decide import barrier
from bridge.model.keys import snapshot_key
from bridge.model.plugin import PluginView, Route
from bridge.model.snapshot import DeletionPolicy
from bridge.service.admission import Passage
from bridge.service.barrier import Decide
from tests.support.barrier_world import FAULTS, MEMBERS, BarrierWorld, live
from tests.support.world import Breach

EXAMPLES = int(os.environ.get("SNAPBRIDGE_EXAMPLES", "150"))

lives = st.fixed_dictionaries(
    {
        "faults": st.dictionaries(st.integers(0, 30), st.sampled_from(FAULTS), max_size=10),
        "policy": st.sampled_from(DeletionPolicy),
        "not_ready": st.integers(0, 2),
        "change_after": st.one_of(st.none(), st.integers(0, 8)),
        "max_skew_seconds": st.sampled_from((None, 2.0)),
    }
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(lives)
def test_no_sequence_of_faults_leaks_doubles_or_loses_a_member(life: dict[str, object]) -> None:
    live(**life)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", DeletionPolicy)
@pytest.mark.parametrize("not_ready", [0, 2])
def test_a_crash_before_or_after_any_effect_leaves_nothing_unnamed(policy: DeletionPolicy, not_ready: int) -> None:
    effects = len(live({}, policy=policy, not_ready=not_ready).script.done)
    assert effects >= 2 * len(MEMBERS) + 2
    for at in range(effects):
        for strike in ("crash before", "crash after"):
            assert live({at: strike}, policy=policy, not_ready=not_ready).crashes == 1


@pytest.mark.parametrize("policy", DeletionPolicy)
@pytest.mark.parametrize("strike", FAULTS)
def test_a_change_of_mind_after_any_number_of_rounds_leaves_nothing_unnamed(
    policy: DeletionPolicy, strike: str
) -> None:
    for rounds in range(5):
        for at in range(6):
            live({at: strike}, policy=policy, change_after=rounds, not_ready=1)


def test_without_a_fault_all_calls_follow_one_act() -> None:
    world = live({})
    assert world.script.done[0] == "open"
    assert [what for what in world.script.done[1:7] if what != "save"] == ["create"] * 3


def test_a_refused_member_fails_the_group_and_is_named() -> None:
    world = BarrierWorld(faults={3: "refused"})
    assert world.settle()
    told = world.book.told[-1]
    assert told.failed
    assert told.failure is not None
    assert told.failure.code == "MEMBER_REFUSED"
    assert "data-2" in told.failure.message
    assert world.plugin.handles() == set()


def test_a_failed_group_under_retain_keeps_what_was_cut_and_cuts_nothing_more() -> None:
    world = BarrierWorld(DeletionPolicy.RETAIN, faults={3: "refused"})
    assert world.settle()
    assert world.book.told[-1].failed
    assert len(world.plugin.handles()) == 2
    assert world.script.done.count("create") == 3


def test_a_member_that_is_late_fails_a_group_with_a_limit_and_none_without() -> None:
    for limit, failed in ((0.5, True), (None, False)):
        world = BarrierWorld(faults={3: "lost before"}, max_skew_seconds=limit)
        assert world.settle()
        told = world.book.told[-1]
        assert told.failed is failed
        if failed:
            assert told.failure is not None
            assert told.failure.code == "SKEW"
        else:
            assert told.ready


def test_a_volume_that_the_other_route_may_still_be_called_for_holds_the_whole_group_back_and_says_so() -> None:
    world = BarrierWorld()
    earlier = Passage(snapshot_key("c", "earlier"), PluginView("d"), Route.ORCHESTRATOR, ("v2",), 60.0)
    world.tools.admission.unsettled(earlier, Route.ORCHESTRATOR, world.clock.now(), 60.0)
    assert not world.settle(rounds=1)
    assert world.book.told[-1].reason == "ROUTE_BUSY"
    assert "'v2'" in world.book.told[-1].message
    assert world.script.done == []
    assert world.settle()
    assert world.book.told[-1].ready


def forgets_the_failed(seen: barrier.Observed, now: float) -> barrier.BarrierAction:
    """Leaves what a failed group has cut, whatever the policy says."""
    step = barrier.decide(seen, now)
    failed = seen.record is not None and seen.record.failed
    if failed and isinstance(step, barrier.WithdrawMembers):
        return barrier.decide(dataclasses.replace(seen, members=()), now)
    return step


def tells_ready_when_cut(seen: barrier.Observed, now: float) -> barrier.BarrierAction:
    """Says ready before the backend has finished."""
    step = barrier.decide(seen, now)
    if isinstance(step, barrier.Keep) and not step.record.failed:
        return barrier.Keep(dataclasses.replace(step.record, ready=True))
    return step


def stories(decide: Decide) -> None:
    """Enough stories to catch every wrong core; the right one passes them all."""
    for policy in DeletionPolicy:
        for strike in ("ok", "refused"):
            live({3: strike}, policy=policy, not_ready=1, decide=decide)


def test_the_right_core_passes_every_story() -> None:
    stories(barrier.decide)


@pytest.mark.parametrize("wrong", [forgets_the_failed, tells_ready_when_cut])
def test_a_core_that_decides_wrongly_is_caught(wrong: Decide) -> None:
    with pytest.raises((Breach, AssertionError, ValueError)):
        stories(wrong)
