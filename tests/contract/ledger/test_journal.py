"""The contract of ports.ledger.Book for operations, idempotency keys, remembered volumes and the audit."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from bridge.ledger.store import SqlLedger
from bridge.model.failure import ConflictError, InvalidError
from bridge.model.operation import OperationState, Step
from tests.contract.ledger.samples import StoppedClock, operation, volume


async def test_an_operation_comes_back_and_moves_by_compare_and_set(ledger: SqlLedger) -> None:
    first = await ledger.put_operation(operation())
    assert first == operation(version=first.version)
    assert await ledger.operation("op-1") == first
    assert await ledger.operation("nobody") is None
    done = dataclasses.replace(
        first, state=OperationState.DONE, steps=(*first.steps, Step("ready", 1.0)), failure=None
    )
    second = await ledger.put_operation(done)
    assert second.version != first.version
    for stale in (first, operation(), operation("nobody", version="5")):
        with pytest.raises(ConflictError):
            await ledger.put_operation(stale)
    assert await ledger.operation("op-1") == second


async def test_operations_are_listed_newest_first(ledger: SqlLedger) -> None:
    for number in range(6):
        state = OperationState.RUNNING if number % 2 else OperationState.FAILED
        await ledger.put_operation(operation(f"op-{number}", created_at=float(number // 2), state=state))
    assert [o.id for o in await ledger.operations()] == [f"op-{n}" for n in (5, 4, 3, 2, 1, 0)]
    assert [o.id for o in await ledger.operations(running=True)] == ["op-5", "op-3", "op-1"]
    assert [o.id for o in await ledger.operations(limit=2)] == ["op-5", "op-4"]
    with pytest.raises(InvalidError):
        await ledger.operations(limit=0)


async def test_the_first_claim_of_an_idempotency_key_counts(ledger: SqlLedger) -> None:
    assert await ledger.claim("anna", "k", "digest-1", "first") == "first"
    assert await ledger.claim("anna", "k", "digest-1", "second") == "first"
    assert await ledger.claim("bert", "k", "digest-2", "his") == "his"
    with pytest.raises(ConflictError):
        await ledger.claim("anna", "k", "digest-2", "third")
    assert await ledger.claim("anna", "k", "digest-1", "fourth") == "first"


async def test_a_claim_is_let_go_by_the_one_who_made_it(ledger: SqlLedger) -> None:
    await ledger.claim("anna", "k", "digest-1", "first")
    await ledger.unclaim("anna", "k", "another")
    await ledger.unclaim("bert", "k", "first")
    assert await ledger.claim("anna", "k", "digest-1", "second") == "first"
    await ledger.unclaim("anna", "k", "first")
    assert await ledger.claim("anna", "k", "digest-2", "third") == "third"


async def test_of_many_claims_at_once_one_counts_for_all(ledger: SqlLedger) -> None:
    results = await asyncio.gather(*(ledger.claim("anna", "k", "digest", f"result-{n}") for n in range(40)))
    assert len(set(results)) == 1


async def test_a_volume_is_remembered_replaced_and_forgotten(ledger: SqlLedger) -> None:
    await ledger.put_volume(volume())
    await ledger.put_volume(volume(capacity_bytes=2**31))
    await ledger.put_volume(volume("a", namespace="zoo"))
    await ledger.put_volume(volume(cluster="west"))
    assert await ledger.volumes("east") == [volume(capacity_bytes=2**31), volume("a", namespace="zoo")]
    for other in (volume(handle="vol-2"), volume(driver="other.csi.example")):
        with pytest.raises(ConflictError, match="taken by"):
            await ledger.put_volume(other)
    assert await ledger.volumes("east") == [volume(capacity_bytes=2**31), volume("a", namespace="zoo")]
    for _ in range(2):
        await ledger.drop_volume("east", "default", "data")
    assert await ledger.volumes("east") == [volume("a", namespace="zoo")]
    assert await ledger.volumes("west") == [volume(cluster="west")]


@pytest.mark.parametrize("changes", [{"capacity_bytes": 2**63}, {"name": "a\x00"}, {"users": ("\x00",)}])
async def test_a_volume_that_cannot_be_kept_is_refused(ledger: SqlLedger, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        await ledger.put_volume(dataclasses.replace(volume(), **changes))  # type: ignore[arg-type]
    assert await ledger.volumes("east") == []


async def test_the_audit_keeps_what_was_done(ledger: SqlLedger, clock: StoppedClock) -> None:
    await ledger.audit("east/snapshot/u-1", "delete", "anna", {"why": "old"})
    await clock.sleep(5)
    await ledger.audit("east/snapshot/u-2", "create", "bert", {})
    rows = await ledger.trail()
    assert [(r.verb, r.who, r.at) for r in rows] == [
        ("create", "bert", clock.now()),
        ("delete", "anna", clock.now() - 5),
    ]
    assert [r.detail for r in await ledger.trail(key="east/snapshot/u-1")] == [{"why": "old"}]
