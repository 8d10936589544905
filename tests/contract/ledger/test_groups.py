"""The contract of ports.group.GroupBook: groups booked whole, records compared and set, the barrier's one act."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bridge.ledger.store import SqlLedger
from bridge.model.failure import ConflictError, InvalidError, PinnedError
from bridge.model.group import GroupMember, GroupNote, GroupRecord, GroupStatus, Means, VolumesSource
from bridge.model.keys import Key, group_key
from bridge.model.pin import Pin
from bridge.model.plugin import Route
from bridge.model.snapshot import CutSnapshot, DeletionPolicy, SnapshotState, Wish
from bridge.ports.group import GroupEntry
from bridge.ports.ledger import Entry
from tests.contract.ledger.samples import SECRETS, entry, record

KEY = group_key("east", "g-1")
MEMBERS = ("m-1", "m-2")


def members() -> list[Entry]:
    return [entry(uid, name=f"web-{uid}", group=KEY) for uid in MEMBERS]


def group(key: Key = KEY, **changes: Any) -> GroupEntry:
    parts = tuple(
        GroupMember(one.key, one.volume, one.driver, "vol-1", one.snapshot_name, {"a": "b"}, SECRETS.create)
        for one in members()
    )
    full = GroupEntry(key, "default", "web", f"groupsnapshot-{key.uid}", parts, DeletionPolicy.DELETE, created_at=5.0)
    return dataclasses.replace(full, **changes)


def group_record(**changes: Any) -> GroupRecord:
    full = GroupRecord(
        "d", VolumesSource(("v1", "v2")), "groupsnapshot-g-1", DeletionPolicy.DELETE, SECRETS,
        GroupNote("groupsnapshot-g-1", ("v1", "v2"), writer="w"), members=(CutSnapshot("s", "v1", True, 1, 2, "g"),),
        means=Means.BARRIER, released_at=7.5, skew_seconds=0.25, skew_exact=True, route=Route.NODE_AGENT,
    )  # fmt: skip
    return dataclasses.replace(full, **changes)


async def test_a_group_comes_back_as_it_was_booked_with_its_members(ledger: SqlLedger) -> None:
    booked = await ledger.groups.add(group(), members())
    assert booked == group(version=booked.version)
    assert await ledger.groups.entry(KEY) == booked
    assert await ledger.groups.find("east", "default", "web") == booked
    assert await ledger.groups.list(cluster="east", uid_prefix="g-") == [booked]
    assert await ledger.groups.list(cluster="west") == []
    for one in members():
        found = await ledger.entry(one.key)
        assert found is not None
        assert found.group == KEY


async def test_a_taken_name_of_the_group_or_of_a_member_books_nothing(ledger: SqlLedger) -> None:
    await ledger.add(entry("other", name="web-m-2"))
    with pytest.raises(ConflictError):
        await ledger.groups.add(group(), members())
    assert await ledger.groups.entry(KEY) is None
    assert await ledger.entry(members()[0].key) is None
    await ledger.groups.add(group(), [])
    with pytest.raises(ConflictError) as taken:
        await ledger.groups.add(group(group_key("east", "g-2")), [])
    assert taken.value.field == "name"
    with pytest.raises(ConflictError) as again:
        await ledger.groups.add(group(name="another"), [])
    assert again.value.field == "uid"


@pytest.mark.parametrize("state", [SnapshotState.GONE, SnapshotState.RETAINED])
async def test_a_name_is_free_again_when_its_group_is_out_of_our_hands(
    ledger: SqlLedger, state: SnapshotState
) -> None:
    booked = await ledger.groups.add(group(), [])
    await ledger.groups.change(dataclasses.replace(booked, status=GroupStatus(state)))
    await ledger.groups.add(group(group_key("east", "g-2")), [])
    shown = [one.key.uid for one in await ledger.groups.list()]
    assert sorted(shown) == (["g-2"] if state is SnapshotState.GONE else ["g-1", "g-2"])


async def test_changes_compare_versions(ledger: SqlLedger) -> None:
    booked = await ledger.groups.add(group(), [])
    changed = await ledger.groups.change(dataclasses.replace(booked, wish=Wish.ABSENT))
    assert await ledger.groups.entry(KEY) == changed
    with pytest.raises(ConflictError):
        await ledger.groups.change(booked)


async def test_records_are_compared_and_set_and_a_condemned_one_stays_so(ledger: SqlLedger) -> None:
    groups = ledger.groups
    await groups.add(group(policy=DeletionPolicy.RETAIN), [])
    saved = await groups.save(KEY, group_record())
    assert await groups.load(KEY) == saved == group_record(version=saved.version)
    for stale in (group_record(), dataclasses.replace(saved, version="1")):
        with pytest.raises(ConflictError):
            await groups.save(KEY, stale)
    doomed = await groups.condemn(KEY, saved)
    assert doomed.condemned
    assert doomed.policy is DeletionPolicy.RETAIN, "the policy that is booked counts"
    with pytest.raises(InvalidError):
        await groups.save(KEY, dataclasses.replace(doomed, condemned=False))
    assert [key async for key in groups.keys()] == [KEY]  # noqa: SIM118 - it is no mapping
    await groups.erase(KEY, doomed, orphan="a group")
    assert await groups.load(KEY) is None
    assert (await ledger.trail(key=str(KEY)))[0].verb == "orphan"


async def test_the_barrier_opens_for_all_or_for_none(ledger: SqlLedger) -> None:
    keys = [one.key for one in members()]
    await ledger.groups.add(group(), members())
    second = await ledger.save(keys[1], record(version=""))
    notes = [(key, record(version="", condemned=False)) for key in keys]
    with pytest.raises(ConflictError):
        await ledger.groups.open(KEY, group_record(), notes)
    assert await ledger.groups.load(KEY) is None
    assert await ledger.load(keys[0]) is None
    notes[1] = (keys[1], record(version=second.version, condemned=second.condemned))
    saved = await ledger.groups.open(KEY, group_record(), notes)
    assert [await ledger.load(key) for key in keys] == list(saved)
    assert await ledger.groups.load(KEY) is not None


async def test_members_are_withdrawn_together_and_a_pin_keeps_all(ledger: SqlLedger) -> None:
    keys = [one.key for one in members()]
    await ledger.groups.add(group(), members())
    await ledger.pin(Pin(keys[1], "", "admin", "audit", 1.0))
    with pytest.raises(PinnedError):
        await ledger.groups.withdraw(keys)
    assert [(await ledger.entry(key)).wish for key in keys] == [Wish.PRESENT] * 2  # type: ignore[union-attr]
    await ledger.unpin(keys[1])
    await ledger.groups.withdraw(keys)
    await ledger.groups.withdraw(keys)
    assert [(await ledger.entry(key)).wish for key in keys] == [Wish.ABSENT] * 2  # type: ignore[union-attr]
    assert await ledger.groups.member_state(keys[0]) is SnapshotState.PENDING
    assert await ledger.groups.member_state(Key("east", "snapshot", "nobody")) is None
