"""Groups under faults: random sequences, every short sequence, every interrupted prefix, and wrong cores."""

from __future__ import annotations

import dataclasses
import itertools
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.decide import action as act
from bridge.decide import group
from bridge.decide import group_action as gact
from bridge.model.snapshot import DeletionPolicy, Wish
from tests.support.group_world import FAULTS, Decide, GroupWorld, live
from tests.support.world import Breach

EXAMPLES = int(os.environ.get("SNAPBRIDGE_EXAMPLES", "300"))

lives = st.fixed_dictionaries(
    {
        "faults": st.dictionaries(st.integers(0, 25), st.sampled_from(FAULTS), max_size=12),
        "policy": st.sampled_from(DeletionPolicy),
        "not_ready": st.integers(0, 3),
        "change_after": st.one_of(st.none(), st.integers(0, 15)),
        "adopt": st.sampled_from(("", "", "by-hand")),
    }
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(lives)
def test_no_sequence_of_faults_leaks_doubles_or_loses_a_group(life: dict[str, object]) -> None:
    live(**life)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", DeletionPolicy)
def test_every_sequence_of_up_to_three_faults_on_the_first_effects_settles(policy: DeletionPolicy) -> None:
    strikes = ("ok", "crash before", "crash after", "lost before", "lost after", "refused")
    for sequence in itertools.product(strikes, repeat=3):
        live(dict(enumerate(sequence, start=2)), policy=policy)


@pytest.mark.parametrize("policy", DeletionPolicy)
@pytest.mark.parametrize("adopt", ["", "by-hand"])
@pytest.mark.parametrize("not_ready", [0, 2])
def test_a_crash_before_or_after_any_effect_changes_nothing(
    policy: DeletionPolicy, adopt: str, not_ready: int
) -> None:
    effects = len(live({}, policy=policy, adopt=adopt, not_ready=not_ready).script.done)
    assert effects >= 4
    for at in range(effects):
        for strike in ("crash before", "crash after"):
            world = live({at: strike}, policy=policy, adopt=adopt, not_ready=not_ready)
            assert world.crashes == 1


@pytest.mark.parametrize("turns", range(10))
@pytest.mark.parametrize("policy", DeletionPolicy)
def test_a_change_of_mind_after_any_number_of_turns_leaves_nothing_unnamed(
    turns: int, policy: DeletionPolicy
) -> None:
    for strike in FAULTS:
        for at in range(6):
            live({at: strike}, policy=policy, change_after=turns, not_ready=1)


# -- wrong cores -----------------------------------------------------------------------------------------------


def no_intent_note(seen: group.Observed, now: float) -> gact.GroupAction:
    """Calls the plugin without writing down what it is about to do."""
    step = group.decide(seen, now)
    return gact.CreateGroup(step.note) if isinstance(step, gact.NoteGroup) else step


def no_hold(seen: group.Observed, now: float) -> gact.GroupAction:
    """Never asks the orchestrator to keep the claims."""
    request = dataclasses.replace(seen.request, held=True)
    return group.decide(dataclasses.replace(seen, request=request), now)


def forgets_retain(seen: group.Observed, now: float) -> gact.GroupAction:
    """Deletes whatever the policy says."""
    request = dataclasses.replace(seen.request, policy=DeletionPolicy.DELETE)
    record = seen.record and dataclasses.replace(seen.record, policy=DeletionPolicy.DELETE)
    return group.decide(dataclasses.replace(seen, request=request, record=record), now)


def skips_back_off(seen: group.Observed, now: float) -> gact.GroupAction:
    """Calls again at once."""
    return group.decide(seen, now + 1e9)


def ignores_in_use(seen: group.Observed, now: float) -> gact.GroupAction:
    """Deletes under a reader of a member."""
    return group.decide(dataclasses.replace(seen, request=dataclasses.replace(seen.request, in_use="")), now)


def releases_with_an_open_note(seen: group.Observed, now: float) -> gact.GroupAction:
    """Lets go while a create may have taken effect."""
    record = seen.record
    if seen.request.wish is Wish.ABSENT and record is not None and record.note_open:
        return act.Erase()
    return group.decide(seen, now)


def deletes_undecided(seen: group.Observed, now: float) -> gact.GroupAction:
    """Calls the delete before the decision is durable."""
    step = group.decide(seen, now)
    if isinstance(step, act.Condemn) and seen.record is not None:
        return gact.DeleteGroup(seen.record.handle, seen.record.member_handles, seen.record.secrets.delete)
    return step


def forgets_a_member(seen: group.Observed, now: float) -> gact.GroupAction:
    """Names all members but one, so that the backend refuses for ever."""
    step = group.decide(seen, now)
    return dataclasses.replace(step, members=step.members[1:]) if isinstance(step, gact.DeleteGroup) else step


def takes_gone_for_absent(seen: group.Observed, now: float) -> gact.GroupAction:
    """Deletes what a vanished request leaves behind."""
    if seen.request.wish is Wish.GONE:
        request = dataclasses.replace(seen.request, wish=Wish.ABSENT)
        return group.decide(dataclasses.replace(seen, request=request), now)
    return group.decide(seen, now)


def stories(decide: Decide) -> None:
    """Enough stories to catch every mutant; the right core passes them all."""
    for policy in DeletionPolicy:
        for strike in FAULTS:
            for at in range(9):
                live({at: strike}, policy=policy, decide=decide)
                live({at: strike, at + 1: "refused"}, policy=policy, change_after=at, decide=decide)
    live({}, not_ready=3, decide=decide)
    world = GroupWorld(decide=decide)
    world.settle()
    world.want(wish=Wish.ABSENT, in_use="claim web/data restores from a member")
    last = world.settle(turns=30)
    if not (isinstance(last, act.Wait) and last.reason == "in use" and world.group_handles()):
        raise Breach("deleted under a reader")
    world.want(in_use="")
    world.settle()
    if world.group_handles():
        raise Breach("not deleted once it was free")
    world = GroupWorld(decide=decide)
    world.settle()
    world.want(wish=Wish.GONE)
    world.settle(turns=30)
    if not world.group_handles():
        raise Breach("a vanished request deleted data")


MUTANTS = [
    no_intent_note, no_hold, forgets_retain, skips_back_off, ignores_in_use, releases_with_an_open_note,
    deletes_undecided, forgets_a_member, takes_gone_for_absent,
]  # fmt: skip


def test_the_right_core_passes_every_story() -> None:
    stories(group.decide)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_core_that_decides_wrongly_is_caught(mutant: Decide) -> None:
    with pytest.raises((Breach, AssertionError)):
        stories(mutant)
