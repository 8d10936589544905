"""One row per situation of a revert: what is seen -> the next step. What somebody else did is never overwritten."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bridge.decide import revert
from bridge.decide.revert import Journal, Observed, SeenSwap
from bridge.model.failure import Failure, FailureKind
from bridge.model.plugin import Capability, PluginView
from bridge.model.revert import Swap, Workload, WorkloadState

NOW = 1_000.0
WHY = Failure(FailureKind.REFUSED, "NOT_STARTED", "it does not run")
LOST = Failure(FailureKind.UNSURE, "UNAVAILABLE", "lost")
WEB = Workload("job web", "", "", "")
ABLE = PluginView("d", True, True, frozenset({Capability.CREATE_DELETE_VOLUME}))
RUNNING, STARTING, PAUSED, HALTED = WorkloadState

ASKED = Swap("data", "d", "old", "data-before", "snap")
MADE = dataclasses.replace(ASKED, new_handle="new", unsure=True)
KEPT = dataclasses.replace(MADE, kept=True)
PLACED = dataclasses.replace(KEPT, placed=True)
OLD = SeenSwap("old", kept="old")
NEW = SeenSwap("new", kept="old")
FREE = SeenSwap("", kept="old")
OTHER = SeenSwap("other", kept="old")
BUSY = dataclasses.replace(OLD, users=("allocation 1 (web/g) writes",))
BUSY_NEW = dataclasses.replace(NEW, users=("allocation 2 (web/g) writes",))


def step(
    swap: Swap, seen: SeenSwap, state: WorkloadState | None = RUNNING, plugin: PluginView = ABLE, **journal: Any
) -> revert.Step:
    noted = {"noted": True, "workload": WEB if state is not None else None, **journal}
    return revert.decide(Observed(Journal((swap,), **noted), (seen,), {"d": plugin}, state), NOW)


STOPPED = {"pausing": True, "paused": True}
DOOMED = {**STOPPED, "doomed": WHY}


@pytest.mark.parametrize(
    ("swap", "seen", "state", "journal", "expected"),
    [
        (ASKED, SeenSwap("old"), RUNNING, {"noted": False, "workload": None}, revert.Note()),
        (ASKED, SeenSwap("old"), RUNNING, {}, revert.CreateVolume(0)),
        (dataclasses.replace(ASKED, unsure=True), SeenSwap("old"), RUNNING, {}, revert.CreateVolume(0)),
        (MADE, SeenSwap("old"), RUNNING, {}, revert.Keep(0)),
        (KEPT, SeenSwap("old"), RUNNING, {}, revert.Keep(0)),
        (KEPT, BUSY, RUNNING, {}, revert.Pause()),
        (KEPT, BUSY, RUNNING, {"pausing": True}, revert.Pause()),
        (KEPT, OLD, PAUSED, STOPPED, revert.Forget(0)),
        (KEPT, OLD, HALTED, {}, revert.Forget(0)),
        (KEPT, OLD, None, {}, revert.Forget(0)),
        (KEPT, FREE, PAUSED, STOPPED, revert.Place(0)),
        (KEPT, FREE, STARTING, STOPPED, revert.Place(0)),
        (KEPT, NEW, PAUSED, STOPPED, revert.Place(0)),
        (PLACED, NEW, PAUSED, STOPPED, revert.Resume()),
        (PLACED, BUSY_NEW, RUNNING, {**STOPPED, "resuming": True}, revert.Succeed()),
        (
            PLACED, BUSY_NEW, RUNNING, STOPPED,
            revert.Succeed("job web was started by somebody else, as it is now"),
        ),
        (PLACED, NEW, None, {}, revert.Succeed()),
        (PLACED, NEW, HALTED, STOPPED, revert.Succeed("job web was stopped by somebody else and is left so")),
        (
            PLACED, NEW, PAUSED, {"pausing": True, "resumed": True},
            revert.Succeed("job web was stopped by somebody else and is left so"),
        ),
        (
            PLACED, NEW, HALTED, {},
            revert.Succeed("job web was stopped by somebody else before and is left so"),
        ),
    ],
)  # fmt: skip
def test_forward(
    swap: Swap, seen: SeenSwap, state: WorkloadState | None, journal: dict[str, Any], expected: revert.Step
) -> None:
    assert step(swap, seen, state, **journal) == expected


@pytest.mark.parametrize(
    ("swap", "seen", "state", "journal", "code"),
    [
        (MADE, SeenSwap("other"), RUNNING, {}, "CONFLICT"),
        (MADE, SeenSwap("old", kept="strange"), RUNNING, {}, "CONFLICT"),
        (KEPT, BUSY, RUNNING, STOPPED, "CONFLICT"),
        (KEPT, OTHER, PAUSED, STOPPED, "CONFLICT"),
        (ASKED, SeenSwap("old", ready=False), RUNNING, {}, "NOT_READY"),
        (KEPT, BUSY, RUNNING, {"pausing": True, "phase": "pause", "phase_at": NOW - 901}, "NOT_STOPPED"),
        (KEPT, BUSY, PAUSED, {**STOPPED, "phase": "free", "phase_at": NOW - 721}, "IN_USE"),
        (
            PLACED, BUSY_NEW, STARTING,
            {"pausing": True, "resumed": True, "phase": "verify", "phase_at": NOW - 601}, "NOT_STARTED",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_finished_is_written_down_first(
    swap: Swap, seen: SeenSwap, state: WorkloadState, journal: dict[str, Any], code: str
) -> None:
    found = step(swap, seen, state, **journal)
    assert isinstance(found, revert.Doom), found
    assert found.failure.code == code


@pytest.mark.parametrize(
    ("swap", "seen", "state", "journal", "expected"),
    [
        (ASKED, SeenSwap("old"), RUNNING, {"doomed": WHY}, revert.Fail(WHY)),
        (MADE, SeenSwap("old"), RUNNING, {"doomed": WHY}, revert.DeleteVolume(0)),
        (KEPT, BUSY, RUNNING, {"doomed": WHY}, revert.Unkeep(0)),
        (KEPT, OLD, PAUSED, DOOMED, revert.Resume(back=True)),
        (KEPT, FREE, PAUSED, DOOMED, revert.Place(0, back=True)),
        (PLACED, NEW, PAUSED, DOOMED, revert.Forget(0)),
        (PLACED, BUSY_NEW, STARTING, {**DOOMED, "resumed": True}, revert.Pause(again=True)),
        (PLACED, BUSY_NEW, PAUSED, {**DOOMED, "phase": "free again", "phase_at": NOW - 721}, revert.Stick()),
        (PLACED, BUSY_NEW, PAUSED, {**DOOMED, "stuck": True}, revert.Resume(back=True)),
        (KEPT, OTHER, PAUSED, DOOMED, revert.Resume(back=True)),
        (dataclasses.replace(KEPT, unkept=True, undone=True), SeenSwap("old"), RUNNING, DOOMED, revert.Fail(WHY)),
    ],
)
def test_backward(
    swap: Swap, seen: SeenSwap, state: WorkloadState, journal: dict[str, Any], expected: revert.Step
) -> None:
    assert step(swap, seen, state, **journal) == expected


def test_a_stop_without_an_answer_is_given_time_before_it_is_believed_not_done() -> None:
    journal = Journal((KEPT,), WEB, noted=True, pausing=True)
    unsure = revert.fold_failure(journal, revert.Pause(), LOST, NOW)
    assert unsure.settle_until == NOW + 30
    found = step(KEPT, BUSY, RUNNING, pausing=True, doomed=WHY, settle_until=NOW + 30)
    assert found == revert.Later(30.0, "a stop without an answer may still take effect")


@pytest.mark.parametrize(
    ("plugin", "kind"),
    [
        (PluginView("d"), revert.Later),
        (PluginView("d", True, False), revert.Later),
        (PluginView("d", True, True), revert.Doom),
    ],
)
def test_a_plugin_that_is_down_is_waited_for_before_anything_is_stopped(plugin: PluginView, kind: type) -> None:
    assert isinstance(step(ASKED, SeenSwap("old"), RUNNING, plugin), kind)


def test_what_is_left_is_told() -> None:
    found = step(PLACED, BUSY_NEW, RUNNING, **{**DOOMED, "stuck": True, "pausing": False})
    assert isinstance(found, revert.Fail)
    assert "'data' is the restored volume still; its old one is registered as 'data-before'" in found.failure.message


def test_going_back_a_refusal_is_tried_again() -> None:
    journal = Journal((KEPT,), WEB, noted=True, pausing=True, paused=True, doomed=WHY)
    refused = Failure(FailureKind.REFUSED, "PERMISSION_DENIED", "no")
    after = revert.fold_failure(journal, revert.Resume(back=True), refused, NOW)
    assert (after.doomed, after.failure, after.retry_at) == (WHY, refused, NOW + 1)
    later = dataclasses.replace(after, failures=40)
    assert revert.fold_failure(later, revert.Resume(back=True), refused, NOW).retry_at == NOW + 30


def test_while_a_create_is_unsure_a_plugin_that_cannot_any_more_is_waited_for() -> None:
    """Taken back, it would forget the volume that may be on the backend."""
    unable = PluginView("d", True, True, frozenset())
    unsure = dataclasses.replace(ASKED, unsure=True)
    assert isinstance(step(unsure, SeenSwap("old"), plugin=unable), revert.Later)
    assert isinstance(step(ASKED, SeenSwap("old"), plugin=unable), revert.Doom)
