"""The contract of ports.ledger.Book for what keeps a snapshot: pins, origins, handles on record, users at the cut."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from bridge.ledger import migrate, schema, sqlite
from bridge.ledger.opening import open_ledger
from bridge.ledger.store import SqlLedger
from bridge.model.failure import ConflictError, PinnedError
from bridge.model.group import GroupNote, GroupRecord, VolumesSource
from bridge.model.keys import group_key
from bridge.model.pin import Pin
from bridge.model.snapshot import (
    CutSnapshot,
    DeletionPolicy,
    HandleSource,
    SnapshotState,
    VolumeSource,
    Wish,
)
from bridge.model.volume import AccessMode, Origin, VolumeShape
from bridge.ports.ledger import EntryFilter
from tests.contract.ledger.samples import StoppedClock, entry, key, record, status

PIN = Pin(key(), "", "anna", "before the audit", 1.5)
DRIVER = "localdisk.csi.example"


async def test_a_pin_is_kept_replaced_and_let_go(ledger: SqlLedger) -> None:
    await ledger.pin(PIN)
    await ledger.pin(Pin(key(), "", "bert", "still", 2.5))
    await ledger.pin(Pin(key(), "op-7", "anna", "the revert's old snapshot", 3.5))
    await ledger.pin(Pin(key("u-2"), "", "anna"))
    found = await ledger.pins([key(), key("nobody")])
    assert [(pin.owner, pin.who, pin.pinned_at) for pin in found] == [("", "bert", 2.5), ("op-7", "anna", 3.5)]
    assert "pinned by anna (operation op-7): the revert's old snapshot" in str(found[1])
    assert await ledger.unpin(key())
    assert not await ledger.unpin(key())
    assert [pin.owner for pin in await ledger.pins([key()])] == ["op-7"]
    assert await ledger.pins([]) == []


async def test_a_pinned_entry_cannot_be_withdrawn_and_a_withdrawn_one_not_pinned(ledger: SqlLedger) -> None:
    booked = await ledger.add(entry())
    await ledger.pin(PIN)
    gone = dataclasses.replace(booked, wish=Wish.ABSENT)
    with pytest.raises(PinnedError, match="pinned by anna: before the audit") as raised:
        await ledger.change(gone)
    assert "unpin" in raised.value.hint
    kept = await ledger.entry(key())
    assert kept == booked
    await ledger.change(dataclasses.replace(booked, held=False))
    await ledger.unpin(key())
    fresh = await ledger.entry(key())
    assert fresh is not None
    await ledger.change(dataclasses.replace(fresh, wish=Wish.ABSENT))
    with pytest.raises(ConflictError, match="asked for already"):
        await ledger.pin(PIN)


async def test_a_condemned_record_cannot_be_pinned(ledger: SqlLedger) -> None:
    saved = await ledger.save(key(), record())
    await ledger.condemn(key(), saved)
    with pytest.raises(ConflictError):
        await ledger.pin(PIN)


async def test_what_was_made_of_a_snapshot_is_known_by_handles(ledger: SqlLedger) -> None:
    first = Origin("east", DRIVER, "vol-9", HandleSource("snap-1"), "op-1", 5.0)
    await ledger.put_origin(first)
    await ledger.put_origin(Origin("east", DRIVER, "vol-8", HandleSource("snap-1"), "op-2", 3.0))
    await ledger.put_origin(Origin("east", DRIVER, "vol-7", VolumeSource("vol-1"), "op-3", 3.0))
    await ledger.put_origin(first)
    assert [one.handle for one in await ledger.made_from(DRIVER, "snap-1")] == ["vol-8", "vol-9"]
    assert (await ledger.made_from(DRIVER, "snap-1"))[1] == first
    assert await ledger.made_from("other", "snap-1") == []
    assert {one.handle for one in await ledger.origins("east")} == {"vol-7", "vol-8", "vol-9"}
    assert await ledger.origins("west") == []


async def test_handles_on_record_are_told_from_the_others(ledger: SqlLedger) -> None:
    await ledger.add(entry())
    await ledger.save(key(), record(handle="cut-1"))
    await ledger.add(entry("u-2", volume="", source=HandleSource("adopted-1")))
    await ledger.add(entry("u-3", volume="data", source=HandleSource("adopted-2")))
    await ledger.add(entry("u-4", source=HandleSource("adopted-gone"), status=status(SnapshotState.GONE)))
    handles = ["cut-1", "adopted-1", "adopted-2", "adopted-gone", "foreign", ""]
    assert await ledger.recorded(DRIVER, handles) == {"cut-1", "adopted-1", "adopted-2"}
    assert await ledger.recorded("other", handles) == frozenset()
    many = [f"h-{number}" for number in range(1200)] + ["cut-1"]
    assert await ledger.recorded(DRIVER, many) == {"cut-1"}
    assert [one.key.uid for one in await ledger.holders(DRIVER, "adopted-2", adopted_only=True)] == ["u-3"]
    assert [one.key.uid for one in await ledger.holders(DRIVER, "cut-1")] == ["u-1"]
    assert await ledger.holders(DRIVER, "cut-1", adopted_only=True) == []


async def test_entries_are_listed_by_who_had_the_volume(ledger: SqlLedger) -> None:
    web = {"job": ("web", "web-canary"), "allocation": ("e3b0c442-98fc",), "node": ("n1",)}
    shape = VolumeShape(5, access_modes=(AccessMode.MULTI_NODE_READER_ONLY,), accessible=({"zone": "a"},))
    await ledger.add(entry("u-1", users=web, shape=shape))
    await ledger.add(entry("u-2", users={"job": ("db",), "node": ("n1",)}))
    await ledger.add(entry("u-3"))

    async def names(**users: str) -> list[str]:
        page = await ledger.list(EntryFilter(users=users))
        return sorted(one.key.uid for one in page.items)

    assert await names(job="web") == ["u-1"]
    assert await names(job="web-canary") == ["u-1"]
    assert await names(job="we") == []
    assert await names(node="n1") == ["u-1", "u-2"]
    assert await names(node="n1", job="db") == ["u-2"]
    assert await names(allocation="e3b0*") == ["u-1"]
    assert await names(allocation="e3b1*") == []
    assert await names(group="x") == []
    first = await ledger.entry(key())
    assert first is not None
    assert (first.users, first.shape) == (web, shape)


async def test_a_file_of_the_first_schema_is_brought_up_with_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    engine = sqlite.engine(str(file))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        command.upgrade(config, "0001")
    engine.dispose()
    adopted = '{"key": {"cluster": "east", "kind": "snapshot", "uid": "u-2"}, "namespace": "default", "name": "b", ' \
        f'"volume": "", "driver": "{DRIVER}", "source": {{"is": "HandleSource", "handle": "snap-2"}}, ' \
        '"snapshot_name": "snapshot-u-2", "policy": "Delete", "version": "2"}'  # fmt: skip
    cut = f'{{"driver": "{DRIVER}", "source": {{"is": "VolumeSource", "handle": "v"}}, "snapshot_name": "s", ' \
        '"policy": "Delete", "handle": "snap-1", "version": "3"}'  # fmt: skip
    with sqlite3.connect(file) as connection:
        connection.execute(
            "INSERT INTO requests VALUES ('east/snapshot/u-2', 'east', 'u-2', 'default', 'b', '', ?, 'Delete', "
            "'pending', 0, 1.0, 2, 2, ?)",
            (DRIVER, adopted),
        )
        connection.execute("INSERT INTO records VALUES ('east/snapshot/u-1', 'east', 0, 3, ?)", (cut,))
    connection.close()
    async with open_ledger(f"sqlite:///{file}", StoppedClock()) as ledger:
        assert await ledger.recorded(DRIVER, ["snap-1", "snap-2", "x"]) == {"snap-1", "snap-2"}
        old = await ledger.entry(key("u-2"))
        assert old is not None
        assert (old.users, old.shape) == ({}, None)
        await ledger.pin(Pin(key("u-2"), "", "anna"))


async def test_what_a_group_has_made_or_is_making_is_on_record(ledger: SqlLedger) -> None:
    note = GroupNote("groupsnapshot-g", ("vol-5", "vol-6"))
    made = GroupRecord(DRIVER, VolumesSource(("vol-5", "vol-6")), "groupsnapshot-g", DeletionPolicy.DELETE, note=note)
    first = await ledger.groups.save(group_key("east", "g"), dataclasses.replace(made, note_open=True))
    assert await ledger.open_sources(DRIVER) == {"vol-5", "vol-6"}
    assert await ledger.open_sources("other") == frozenset()
    member = CutSnapshot("member-1", "vol-5", ready=True)
    done = dataclasses.replace(first, note_open=False, handle="group-1", members=(member,))
    await ledger.groups.save(group_key("east", "g"), done)
    assert await ledger.open_sources(DRIVER) == frozenset()
    assert await ledger.recorded(DRIVER, ["member-1", "x"]) == {"member-1"}
    await ledger.save(key(), record(handle="", ready=False))
    assert await ledger.open_sources(DRIVER) == {"vol-1"}
