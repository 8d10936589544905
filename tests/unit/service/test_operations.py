"""Operations: what counts as done, and what is known after a write that was reported lost."""

from __future__ import annotations

import dataclasses

import pytest

from bridge.ledger.opening import open_ledger
from bridge.model.failure import ConflictError
from bridge.model.keys import snapshot_key
from bridge.model.operation import Operation, OperationState
from bridge.model.snapshot import (
    DeletionPolicy,
    SnapshotRequest,
    SnapshotState,
    SnapshotStatus,
    VolumeSource,
    Wish,
)
from bridge.service import operations as ops
from tests.support.memory import VirtualClock
from tests.support.standalone import running

KEY = snapshot_key("c", "u1")
DELETE = Operation("o1", ops.DELETE, "c", "ns", str(KEY), OperationState.RUNNING, 1.0, 1.0)
RESTORE = dataclasses.replace(DELETE, id="o2", verb=ops.RESTORE)
DONE, RUNNING, FAILED = OperationState.DONE, OperationState.RUNNING, OperationState.FAILED


def request(wish: Wish, policy: DeletionPolicy = DeletionPolicy.DELETE) -> SnapshotRequest:
    return SnapshotRequest(KEY, wish, "ns", "one", "d", VolumeSource("v"), "snapshot-u1", policy)


ENDS = [
    ("nothing is left", None, SnapshotState.GONE, "", DONE),
    ("its entry says gone", request(Wish.ABSENT), SnapshotState.GONE, "", DONE),
    ("kept by its policy", request(Wish.ABSENT, DeletionPolicy.RETAIN), SnapshotState.RETAINED, "s1", DONE),
    ("under way", request(Wish.ABSENT), SnapshotState.DELETING, "s1", RUNNING),
    ("not begun", request(Wish.PRESENT), SnapshotState.READY, "s1", RUNNING),
    ("vanished while it is deleted", request(Wish.GONE), SnapshotState.DELETING, "s1", RUNNING),
    ("vanished, kept by its policy", request(Wish.GONE, DeletionPolicy.RETAIN), SnapshotState.READY, "s1", DONE),
    ("vanished, nothing is recorded", request(Wish.GONE), SnapshotState.PENDING, "", DONE),
    ("vanished, its snapshot is left", request(Wish.GONE), SnapshotState.READY, "s1", FAILED),
]


@pytest.mark.parametrize(("given", "state", "handle", "end"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_a_delete_is_done_when_nothing_is_left_that_should_not_be(
    given: SnapshotRequest | None, state: SnapshotState, handle: str, end: OperationState
) -> None:
    found, failure = ops.settle(DELETE, given, SnapshotStatus(state, state is SnapshotState.READY, handle))
    assert found is end
    assert (failure is not None) is (end is FAILED)
    assert failure is None or "'s1'" in failure.message


async def test_an_end_that_was_written_but_reported_lost_is_known_after_the_next_write() -> None:
    """Else a restore that has ended would keep its snapshot in use until the service is started again."""
    async with open_ledger("sqlite://", VirtualClock()) as ledger:
        known = ops.Operations(ledger, VirtualClock())
        running = await known.start(RESTORE)
        await ledger.put_operation(dataclasses.replace(running, state=DONE))
        with pytest.raises(ConflictError):
            await known.put(dataclasses.replace(running, state=DONE))
        assert known.running(ops.RESTORE) == []
        assert (await known.get("o2")).state is DONE


@pytest.mark.parametrize(("verb", "ends"), [("delete", OperationState.DONE), ("create", OperationState.FAILED)])
async def test_what_nobody_names_any_more_is_told_at_the_next_start(verb: str, ends: OperationState) -> None:
    """The process died after its last write for the snapshot, and before the operation heard of it."""
    key = snapshot_key("c", "long-gone")
    left = Operation("op-1", verb, "c", "default", str(key), OperationState.RUNNING, 1.0, 1.0, "admin")
    async with running(unfinished=[left]) as service:
        ended = await service.finished(await service.operations.get("op-1"))
        assert ended.state is ends
