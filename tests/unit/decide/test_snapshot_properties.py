"""The core under faults: random sequences, every short sequence, and every interrupted prefix."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.model.snapshot import DeletionPolicy
from tests.support.story import FAULTS, live

EXAMPLES = int(os.environ.get("SNAPBRIDGE_EXAMPLES", "500"))
"""500 in `make test`; the nightly profile sets 10000."""

lives = st.fixed_dictionaries(
    {
        "faults": st.dictionaries(st.integers(0, 25), st.sampled_from(FAULTS), max_size=12),
        "policy": st.sampled_from(DeletionPolicy),
        "not_ready": st.integers(0, 4),
        "change_after": st.one_of(st.none(), st.integers(0, 15)),
        "adopt": st.sampled_from(("", "", "by-hand-7")),
    }
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(lives)
def test_no_sequence_of_faults_leaks_doubles_or_loses(life: dict[str, object]) -> None:
    live(**life)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", DeletionPolicy)
def test_every_sequence_of_up_to_four_faults_on_the_first_effects_settles(policy: DeletionPolicy) -> None:
    strikes = ("ok", "crash before", "crash after", "lost before", "lost after", "refused")
    for sequence in itertools.product(strikes, repeat=4):
        live(dict(enumerate(sequence, start=2)), policy=policy)


@pytest.mark.parametrize("policy", DeletionPolicy)
@pytest.mark.parametrize("adopt", ["", "by-hand-7"])
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


@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("policy", DeletionPolicy)
def test_a_change_of_mind_after_any_number_of_turns_leaves_nothing_unnamed(
    turns: int, policy: DeletionPolicy
) -> None:
    for strike in FAULTS:
        for at in range(6):
            live({at: strike}, policy=policy, change_after=turns, not_ready=2)
