"""The contract of ports.ledger.Ledger: records, compare-and-set, condemning, erasing, keys."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from bridge.ledger.store import SqlLedger
from bridge.model.failure import ConflictError, InvalidError
from bridge.model.snapshot import DeletionPolicy, SnapshotState
from tests.contract.ledger import samples
from tests.contract.ledger.samples import entry, key, record


async def test_a_record_comes_back_as_it_was_saved(ledger: SqlLedger) -> None:
    for source in (record().source, samples.HANDLE_SOURCE):
        wanted = key(f"u-{type(source).__name__}")
        saved = await ledger.save(wanted, record(source=source))
        assert saved == record(source=source, version=saved.version)
        assert saved.version
        assert await ledger.load(wanted) == saved


async def test_an_unknown_key_has_no_record(ledger: SqlLedger) -> None:
    assert await ledger.load(key("nobody")) is None


async def test_a_second_insert_is_a_conflict_and_changes_nothing(ledger: SqlLedger) -> None:
    first = await ledger.save(key(), record())
    with pytest.raises(ConflictError):
        await ledger.save(key(), record(handle="other"))
    assert await ledger.load(key()) == first


async def test_a_stale_version_is_a_conflict_and_changes_nothing(ledger: SqlLedger) -> None:
    first = await ledger.save(key(), record())
    second = await ledger.save(key(), dataclasses.replace(first, polls=8))
    with pytest.raises(ConflictError):
        await ledger.save(key(), dataclasses.replace(first, polls=9))
    assert await ledger.load(key()) == second


@pytest.mark.parametrize("version", ["7", "abc", "-1", "1.5", "٣", "9" * 40, " 1"])
async def test_a_version_that_was_never_given_is_a_conflict(ledger: SqlLedger, version: str) -> None:
    await ledger.save(key(), record())
    with pytest.raises(ConflictError):
        await ledger.save(key(), record(version=version))
    with pytest.raises(ConflictError):
        await ledger.save(key("nobody"), record(version=version))


async def test_a_version_is_not_given_again_after_an_erase(ledger: SqlLedger) -> None:
    old = await ledger.save(key(), record())
    await ledger.erase(key(), old)
    new = await ledger.save(key(), record())
    assert new.version != old.version
    with pytest.raises(ConflictError):
        await ledger.save(key(), old)


async def test_of_many_savers_exactly_one_wins_each_round(ledger: SqlLedger) -> None:
    current = await ledger.save(key(), record(polls=0))
    for round_number in range(20):
        results = await asyncio.gather(
            *(ledger.save(key(), dataclasses.replace(current, group=f"{round_number}-{n}")) for n in range(16)),
            return_exceptions=True,
        )
        winners = [r for r in results if not isinstance(r, BaseException)]
        assert len(winners) == 1
        assert all(isinstance(r, ConflictError) for r in results if isinstance(r, BaseException))
        current = winners[0]
        assert await ledger.load(key()) == current


async def test_a_read_sees_the_write_that_was_awaited_before_it(ledger: SqlLedger) -> None:
    async def writer(uid: str) -> None:
        current = await ledger.save(key(uid), record(polls=0))
        for polls in range(1, 25):
            current = await ledger.save(key(uid), dataclasses.replace(current, polls=polls))
            assert await ledger.load(key(uid)) == current

    await asyncio.gather(*(writer(f"u-{n}") for n in range(8)))


async def test_one_failing_write_does_not_harm_those_gathered_with_it(ledger: SqlLedger) -> None:
    taken = await ledger.save(key("taken"), record())
    good = [ledger.save(key(f"good-{n}"), record()) for n in range(40)]
    bad = [ledger.save(key("taken"), record(handle="other")) for _ in range(40)]
    mixed = [task for pair in zip(good, bad, strict=True) for task in pair]
    results = await asyncio.gather(*mixed, return_exceptions=True)
    assert [isinstance(r, ConflictError) for r in results] == [False, True] * 40
    assert await ledger.load(key("taken")) == taken
    for n in range(40):
        assert await ledger.load(key(f"good-{n}")) == results[2 * n]


async def test_condemning_takes_the_policy_that_is_booked_now(ledger: SqlLedger) -> None:
    booked = await ledger.add(entry(policy=DeletionPolicy.DELETE))
    kept = await ledger.save(key(), record(policy=DeletionPolicy.DELETE))
    await ledger.change(dataclasses.replace(booked, policy=DeletionPolicy.RETAIN))
    condemned = await ledger.condemn(key(), kept)
    assert condemned.condemned
    assert condemned.policy is DeletionPolicy.RETAIN
    assert await ledger.load(key()) == condemned


async def test_condemning_without_a_booked_request_keeps_the_records_policy(ledger: SqlLedger) -> None:
    kept = await ledger.save(key(), record(policy=DeletionPolicy.RETAIN))
    assert (await ledger.condemn(key(), kept)).policy is DeletionPolicy.RETAIN


async def test_a_condemnation_stands(ledger: SqlLedger) -> None:
    booked = await ledger.add(entry(policy=DeletionPolicy.DELETE))
    condemned = await ledger.condemn(key(), await ledger.save(key(), record()))
    await ledger.change(dataclasses.replace(booked, policy=DeletionPolicy.RETAIN))
    assert await ledger.condemn(key(), condemned) == condemned
    with pytest.raises(InvalidError, match="cannot be taken back"):
        await ledger.save(key(), dataclasses.replace(condemned, condemned=False))
    assert await ledger.load(key()) == condemned
    deleted = await ledger.save(key(), dataclasses.replace(condemned, deleted=True))
    assert deleted.deleted


async def test_condemning_a_stale_or_missing_record_is_a_conflict(ledger: SqlLedger) -> None:
    with pytest.raises(ConflictError):
        await ledger.condemn(key(), record())
    old = await ledger.save(key(), record())
    new = await ledger.save(key(), old)
    with pytest.raises(ConflictError):
        await ledger.condemn(key(), old)
    assert await ledger.load(key()) == new


async def test_erasing_forgets_the_record_and_may_be_repeated(ledger: SqlLedger) -> None:
    kept = await ledger.save(key(), record())
    await ledger.erase(key(), kept)
    assert await ledger.load(key()) is None
    await ledger.erase(key(), kept)
    assert await ledger.trail() == []


async def test_erasing_a_stale_record_is_a_conflict(ledger: SqlLedger) -> None:
    old = await ledger.save(key(), record())
    new = await ledger.save(key(), old)
    with pytest.raises(ConflictError):
        await ledger.erase(key(), old, orphan="maybe")
    assert await ledger.load(key()) == new
    assert await ledger.trail() == []


async def test_a_possible_orphan_is_on_record_once(ledger: SqlLedger, clock: samples.StoppedClock) -> None:
    kept = await ledger.save(key(), record())
    await ledger.erase(key(), kept, orphan="snapshot-u-1 may exist")
    await ledger.erase(key(), kept, orphan="snapshot-u-1 may exist")
    (row,) = await ledger.trail(key=str(key()))
    assert (row.verb, row.at) == ("orphan", clock.now())
    assert row.detail["orphan"] == "snapshot-u-1 may exist"
    assert row.detail["driver"] == "localdisk.csi.example"
    assert row.detail["handle"] == "snap-1"


async def test_keys_are_those_of_records_and_of_unreleased_requests(ledger: SqlLedger) -> None:
    await ledger.save(key("record-only"), record())
    await ledger.add(entry("booked-only"))
    both = await ledger.add(entry("both"))
    kept = await ledger.save(key("both"), record())
    released = await ledger.add(entry("finished"))
    await ledger.change(dataclasses.replace(released, held=False, status=samples.status(SnapshotState.GONE)))

    async def uids() -> list[str]:
        return [k.uid for k in await samples.all_keys(ledger)]

    assert await uids() == ["booked-only", "both", "record-only"]
    await ledger.change(dataclasses.replace(both, held=False))
    assert "both" in await uids()
    await ledger.erase(key("both"), kept)
    assert await uids() == ["booked-only", "record-only"]


async def test_keys_walk_through_more_than_a_page(ledger: SqlLedger) -> None:
    await asyncio.gather(*(ledger.save(key(f"u/{n:05}"), record()) for n in range(2100)))
    seen = [k.uid for k in await samples.all_keys(ledger)]
    assert seen == [f"u/{n:05}" for n in range(2100)]
