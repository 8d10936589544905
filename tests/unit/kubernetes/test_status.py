"""What a status changes about a VolumeSnapshot, and which event goes with it."""

from __future__ import annotations

import pytest

from adapters.kubernetes import status
from bridge.model.failure import Failure, FailureKind
from bridge.model.snapshot import SnapshotState, SnapshotStatus
from tests.unit.kubernetes import objects as o

READY = SnapshotStatus(SnapshotState.READY, True, "s-1", 1 << 30, 1_000_000_000_500_000_000)
BUSY = Failure(FailureKind.UNSURE, "UNAVAILABLE", "the backend is away", "Wait")
CLASS = Failure(FailureKind.REFUSED, "GetSnapshotClassFailed", "Failed to get snapshot class with error x", "Make it")
STATUS = {
    "boundVolumeSnapshotContentName": "snapcontent-6f1c",
    "creationTime": "2001-09-09T01:46:40Z",
    "readyToUse": True,
    "restoreSize": "1Gi",
}


def test_ready_is_one_write_and_one_event() -> None:
    told = status.tell(o.snapshot(), o.content(), READY, 0.0)
    assert told.status == STATUS
    assert (told.reason, told.warning) == ("SnapshotReady", False)
    assert told.message == "Snapshot apps/one is ready to use."


def test_nothing_new_is_nothing_written() -> None:
    assert status.tell(o.snapshot(status=dict(STATUS)), o.content(), READY, 5.0) == status.Told()


def test_a_failure_is_told_once_with_upstreams_reason_and_what_to_do() -> None:
    failing = SnapshotStatus(SnapshotState.FAILING, failure=BUSY)
    told = status.tell(o.snapshot(), o.content(), failing, 60.0)
    assert told.status == {
        "boundVolumeSnapshotContentName": "snapcontent-6f1c",
        "readyToUse": False,
        "error": {
            "message": "Failed to create snapshot: the backend is away (UNAVAILABLE). Wait",
            "time": "1970-01-01T00:01:00Z",
        },
    }
    assert (told.reason, told.warning) == ("SnapshotCreationFailed", True)
    again = status.tell(o.snapshot(status=told.status), o.content(), failing, 99.0)
    assert (again.status, again.reason) == (None, "")
    done = status.tell(o.snapshot(status=told.status), o.content(), READY, 99.0)
    assert done.status == STATUS


@pytest.mark.parametrize(
    ("state", "handle", "failure", "reason"),
    [
        (SnapshotState.FAILING, "", CLASS, "GetSnapshotClassFailed"),
        (SnapshotState.FAILING, "", BUSY, "SnapshotCreationFailed"),
        (SnapshotState.PROCESSING, "s-1", BUSY, "SnapshotContentCheckandUpdateFailed"),
        (SnapshotState.DELETING, "s-1", BUSY, "SnapshotDeleteError"),
    ],
)
def test_reasons_are_upstreams(state: SnapshotState, handle: str, failure: Failure, reason: str) -> None:
    told = status.tell(o.snapshot(), o.content(), SnapshotStatus(state, handle=handle, failure=failure), 0.0)
    assert told.reason == reason


def test_a_trouble_speaks_for_itself() -> None:
    told = status.tell(o.snapshot(), None, SnapshotStatus(SnapshotState.FAILING, failure=CLASS), 0.0)
    assert told.message == "Failed to get snapshot class with error x. Make it"


def test_a_deletion_under_way_writes_nothing_while_it_goes_well() -> None:
    ready = o.snapshot(status=dict(STATUS))
    assert status.tell(ready, o.content(), SnapshotStatus(SnapshotState.DELETING, handle="s-1"), 0.0) == status.Told()


def test_use_stands_in_the_way_of_a_deletion_as_an_event_only() -> None:
    waiting = SnapshotStatus(SnapshotState.DELETING, handle="s-1", reason="in use", message="in use by x")
    told = status.tell(o.snapshot(status=dict(STATUS)), o.content(), waiting, 0.0)
    assert (told.status, told.reason, told.warning) == (None, "SnapshotDeletePending", True)


@pytest.mark.parametrize("state", [SnapshotState.PENDING, SnapshotState.GONE, SnapshotState.RETAINED])
def test_what_says_nothing_writes_nothing(state: SnapshotState) -> None:
    assert status.tell(o.snapshot(), o.content(), SnapshotStatus(state), 0.0) == status.Told()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1, "1"), (1023, "1023"), (1024, "1Ki"), (1536, "1536"), (5 << 30, "5Gi"), (3 << 40, "3Ti")],
)
def test_quantities(size: int, text: str) -> None:
    assert status.quantity(size) == text
    assert status.size_of(text) == size


@pytest.mark.parametrize(("text", "size"), [("1.5Gi", 3 << 29), ("2G", 2_000_000_000), ("", None), ("nanGi", None)])
def test_quantities_of_others(text: str, size: int | None) -> None:
    assert status.size_of(text) == size
