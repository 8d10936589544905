"""What to do about a lease, row by row: by our own clock only, whatever the lease's times say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest

from adapters.kubernetes import election as shell
from adapters.kubernetes.decide import election
from adapters.kubernetes.decide.election import Create, Hold, Release, Renew, Scope, StandBy, Take, Terms
from adapters.kubernetes.settings import Settings

TERMS = Terms(lease_seconds=15, renew_deadline_seconds=10.0, retry_seconds=2.0)
ME, OTHER = "me_1", "other_2"


def lease(
    holder: str = OTHER, *, renewed: str = "2026-01-01T00:00:00.000000Z", version: str = "7", **more: Any
) -> Any:
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15, "leaseTransitions": 3, **more}
    return {"metadata": {"name": "l", "resourceVersion": version}, "spec": spec}


def seen(given: Any, first: float = 100.0) -> election.Seen:
    return election.look(None, given, first, TERMS)


@pytest.mark.parametrize(
    ("case", "found", "wanted", "now", "action"),
    [
        ("there is none", None, True, 100.0, Create()),
        ("there is none, not wanted", None, False, 100.0, StandBy("", 2.0)),
        ("released", lease(""), True, 100.0, Take()),
        ("released, not wanted", lease(""), False, 100.0, StandBy("", 2.0)),
        ("an empty spec", {"metadata": {"resourceVersion": "1"}}, True, 100.0, Take()),
        ("another's, just renewed", lease(), True, 100.0, StandBy(OTHER, 2.0)),
        ("another's, nearly over", lease(), True, 114.5, StandBy(OTHER, 0.5)),
        ("another's, over", lease(), True, 115.0, Take()),
        ("another's, over, not wanted", lease(), False, 200.0, StandBy(OTHER, 2.0)),
        ("another's promise is longer than ours", lease(leaseDurationSeconds=60), True, 150.0, StandBy(OTHER, 2.0)),
        ("another's promise is missing", lease(leaseDurationSeconds=None), True, 114.0, StandBy(OTHER, 1.0)),
        ("renewed in the far future by its clock", lease(renewed="2099-01-01T00:00:00Z"), True, 115.0, Take()),
        ("renewed long ago by its clock", lease(renewed="1970-01-01T00:00:00Z"), True, 114.0, StandBy(OTHER, 1.0)),
        ("ours", lease(ME), True, 101.0, Renew()),
        ("ours, though its end has passed", lease(ME), True, 900.0, Renew()),
        ("ours and no longer wanted", lease(ME), False, 101.0, Release()),
        ("a namesake without our suffix", lease("me"), True, 100.0, StandBy("me", 2.0)),
    ],
)
def test_the_step(case: str, found: Any, wanted: bool, now: float, action: election.Action) -> None:
    known = None if found is None else seen(found)
    assert election.decide(known, me=ME, wanted=wanted, now=now, terms=TERMS) == action, case


def test_a_renewal_starts_the_time_anew_and_any_other_write_does_not() -> None:
    first = seen(lease(), 100.0)
    relabelled = election.look(first, lease(version="8"), 110.0, TERMS)
    assert relabelled.version == "8"
    assert relabelled.first_seen == 100.0
    assert election.look(relabelled, lease(renewed="later"), 111.0, TERMS).first_seen == 111.0
    assert election.look(relabelled, lease("third"), 111.0, TERMS).first_seen == 111.0


def test_the_right_to_act_counts_from_when_the_renewal_was_sent_and_ends_before_the_lease() -> None:
    hold = election.held(Hold(), sent=100.0, now=104.0, terms=TERMS)
    assert hold == Hold(110.0, 1)
    assert hold.until < 100.0 + TERMS.lease_seconds
    assert election.held(hold, sent=109.0, now=109.9, terms=TERMS) == Hold(119.0, 1)


@pytest.mark.parametrize("now", [110.0, 110.1, 5000.0])
def test_after_a_gap_a_new_term_begins_even_if_nobody_took_the_lease(now: float) -> None:
    hold = election.held(Hold(), sent=100.0, now=100.0, terms=TERMS)
    assert election.held(hold, sent=now - 0.05, now=now, terms=TERMS).term == 2


@pytest.mark.parametrize(("now", "seconds"), [(100.0, 5.0), (106.0, 4.0), (109.5, 0.5), (110.0, 5.0), (300.0, 5.0)])
def test_a_request_ends_before_what_is_left_of_the_lease(now: float, seconds: float) -> None:
    assert election.request_seconds(Hold(110.0, 1), now, TERMS) == seconds


@pytest.mark.parametrize(
    ("action", "found", "spec"),
    [
        (Create(), None, (ME, 15, "T", "T", 0)),
        (Take(), lease(acquireTime="A"), (ME, 15, "T", "T", 4)),
        (Renew(), lease(ME, acquireTime="A"), (ME, 15, "A", "T", 3)),
        (Release(), lease(ME, acquireTime="A"), ("", 1, "T", "T", 3)),
    ],
)
def test_what_is_written(action: Any, found: Any, spec: tuple[object, ...]) -> None:
    known = None if found is None else seen(found)
    made = election.spec_for(action, known, me=ME, stamp="T", terms=TERMS)
    fields = ("holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime", "leaseTransitions")
    assert tuple(made[field] for field in fields) == spec


def test_two_processes_never_have_one_identity_even_when_it_is_given() -> None:
    made = {shell.identity("twin") for _ in range(100)}
    assert len(made) == 100
    assert all(one.startswith("twin_") for one in made)


def test_the_namespace_is_the_given_one_then_that_of_the_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POD_NAMESPACE", "from-the-pod")
    assert shell.namespace("given", str(tmp_path)) == "given"
    assert shell.namespace("", str(tmp_path)) == "from-the-pod"
    monkeypatch.delenv("POD_NAMESPACE")
    assert shell.namespace("", str(tmp_path)) == "default"
    (tmp_path / "namespace").write_text("from-the-account\n")
    assert shell.namespace("", str(tmp_path)) == "from-the-account"


@pytest.mark.parametrize(
    "times",
    [
        {"lease_seconds": 10},
        {"renew_deadline_seconds": 15.0},
        {"retry_seconds": 10.0},
        {"lease_seconds": 5, "renew_deadline_seconds": 6.0},
    ],
)
def test_times_that_would_let_two_act_are_refused(times: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match="these must grow"):
        Settings(leader_election=True, **times)


def test_it_is_off_unless_asked_for() -> None:
    assert not Settings().leader_election


@pytest.mark.parametrize(
    ("scope", "driver", "leases"),
    [
        (Scope.BOTH, "d", ("", "d")),
        (Scope.BOTH, "", ("",)),
        (Scope.CLUSTER, "d", ("",)),
        (Scope.CLUSTER, "", ("",)),
        (Scope.DRIVERS, "d", ("d",)),
        (Scope.DRIVERS, "", ("x", "y")),
    ],
)
def test_an_act_needs_the_leases_of_its_half(scope: Scope, driver: str, leases: tuple[str, ...]) -> None:
    assert election.needed(scope, driver, ("x", "y")) == leases


@pytest.mark.parametrize("holds", [True, False])
def test_a_drivers_lease_waits_for_the_clusters_only_where_one_process_is_both_halves(holds: bool) -> None:
    assert election.wanted(Scope.BOTH, "", holds)
    assert election.wanted(Scope.BOTH, "d", holds) is holds
    assert election.wanted(Scope.DRIVERS, "d", holds)
    assert election.wanted(Scope.CLUSTER, "", holds)
