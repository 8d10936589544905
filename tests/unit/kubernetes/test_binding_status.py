"""What the cluster half copies from a content into its VolumeSnapshot, and what it tells of it."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes.decide import binding
from adapters.kubernetes.decide.binding import Publish, Rest
from tests.unit.kubernetes import objects as o
from tests.unit.kubernetes import views as v

FULL = v.ready_snapshot()["status"]


def decide(snapshot: Any, content: Any) -> binding.Step:
    return binding.decide(v.dynamic(snapshot=snapshot, content=content, claim=o.claim(**v.FREE), claim_left=True))


def test_13_readiness_is_copied_and_told() -> None:
    step = decide(o.snapshot(), v.ready_content())
    assert isinstance(step, Publish)
    assert step.news.status == FULL
    assert [(event.reason, event.message, event.warning) for event in step.news.events] == [
        ("SnapshotCreated", "Snapshot apps/one was successfully created by the CSI driver.", False),
        ("SnapshotReady", "Snapshot apps/one is ready to use.", False),
    ]


def test_a_cut_that_is_not_ready_is_told_at_once() -> None:
    cut = v.ready_content()
    cut["status"]["readyToUse"] = False
    step = decide(o.snapshot(), cut)
    assert v.reasons(step) == ["SnapshotCreated"]
    assert isinstance(step, Publish)
    assert step.news.status["readyToUse"] is False
    after = decide(o.snapshot(status=step.news.status), v.ready_content())
    assert v.reasons(after) == ["SnapshotReady"]


@pytest.mark.parametrize("lost", [*FULL, "all"])
def test_20_a_status_that_was_lost_is_rebuilt_from_the_content(lost: str) -> None:
    left = {} if lost == "all" else {key: value for key, value in FULL.items() if key != lost}
    step = decide(o.snapshot(status=left), v.ready_content())
    assert isinstance(step, Publish)
    assert step.news.status == FULL


def test_a_group_s_name_in_the_status_stays() -> None:
    step = decide(o.snapshot(status={"volumeGroupSnapshotName": "all"}), v.ready_content())
    assert isinstance(step, Publish)
    assert step.news.status == {**FULL, "volumeGroupSnapshotName": "all"}


ERROR = {"message": "Failed to create snapshot: pool is full", "time": "2026-11-21T12:00:00Z"}


def test_23_the_content_s_error_is_copied_with_its_instant() -> None:
    step = decide(o.snapshot(), o.content(status={"error": ERROR, "readyToUse": False}))
    assert isinstance(step, Publish)
    assert step.news.status["error"] == ERROR
    assert step.news.status["readyToUse"] is False
    assert step.news.events == ()


def test_defect_2_the_same_error_at_a_later_instant_is_no_news() -> None:
    """Upstream compares the addresses of two instants, so it writes the status at each look while an error stays."""
    told = decide(o.snapshot(), o.content(status={"error": ERROR, "readyToUse": False}))
    assert isinstance(told, Publish)
    later = {**ERROR, "time": "2026-11-21T12:05:00Z"}
    again = o.content(status={"error": later, "readyToUse": False})
    assert decide(o.snapshot(status=told.news.status), again) == Rest()


def test_23_the_error_goes_when_the_content_s_has_gone() -> None:
    step = decide(o.snapshot(status={**FULL, "error": ERROR}), v.ready_content())
    assert isinstance(step, Publish)
    assert step.news.status == FULL
    assert step.news.events == ()


def test_the_missing_class_of_a_snapshot_that_is_not_ready_is_told() -> None:
    view = v.dynamic(content=o.content(), klass=None, claim_left=True)
    step = binding.decide(view)
    assert v.reasons(step) == ["GetSnapshotClassFailed"]


VANISHED: dict[str, tuple[Any, str]] = {
    "10 the content has vanished": (None, "SnapshotContentMissing"),
    "19 the content is of another uid": (v.ready_content(spec__volumeSnapshotRef__uid="other"), "SnapshotMisbound"),
    "19 the content is of another name": (v.ready_content(spec__volumeSnapshotRef__name="two"), "SnapshotMisbound"),
}


@pytest.mark.parametrize(("content", "reason"), VANISHED.values(), ids=VANISHED)
def test_a_ready_snapshot_that_lost_its_content_is_not_ready_and_not_cut_anew(content: Any, reason: str) -> None:
    step = decide(v.ready_snapshot(), content)
    assert v.reasons(step) == [reason]
    assert isinstance(step, Publish)
    assert step.news.status["readyToUse"] is False
    assert decide(v.ready_snapshot(status=step.news.status), content) == Rest()


def test_a_content_that_lost_its_status_takes_no_readiness_back() -> None:
    assert decide(v.ready_snapshot(), o.content()) == Rest()


def test_readiness_that_the_driver_takes_back_is_told_once() -> None:
    lost = v.ready_content()
    lost["status"]["readyToUse"] = False
    step = decide(v.ready_snapshot(), lost)
    assert v.reasons(step) == ["SnapshotNotReady"]
    assert isinstance(step, Publish)
    assert step.news.status["readyToUse"] is False
    told = v.ready_snapshot(status=step.news.status)
    assert decide(told, lost) == Rest()
    back = decide(told, v.ready_content())
    assert isinstance(back, Publish)
    assert "error" not in back.news.status


ODD: dict[str, Any] = {
    "1970": {"creationTime": 0},
    "a negative size": {"restoreSize": -1},
    "no size": {"restoreSize": 0},
    "a text for an instant": {"creationTime": "soon"},
    "an instant beyond all calendars": {"creationTime": 10**30},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_values_of_a_driver_are_not_copied_and_stop_nothing(odd: Any) -> None:
    content = v.ready_content()
    content["status"] |= odd
    step = decide(o.snapshot(), content)
    assert isinstance(step, Publish)
    assert step.news.status["readyToUse"] is True
    assert v.reasons(step) == ["SnapshotCreated", "SnapshotReady"]
    assert decide(o.snapshot(status=step.news.status), content) == Rest()
