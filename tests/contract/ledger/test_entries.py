"""The contract of ports.ledger.Book for requests: booking, names, compare-and-set, lists in stable pages."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import pytest

from bridge.ledger.store import SqlLedger
from bridge.model.failure import ConflictError, InvalidError
from bridge.model.snapshot import HandleSource, SnapshotState, SnapshotStatus, Wish
from bridge.ports.ledger import EntryFilter
from tests.contract.ledger import samples
from tests.contract.ledger.samples import all_names, entry, key, status


async def test_an_entry_comes_back_as_it_was_booked(ledger: SqlLedger) -> None:
    booked = await ledger.add(entry())
    assert booked == entry(version=booked.version)
    assert await ledger.entry(key()) == booked
    assert await ledger.find("east", "default", "name-u-1") == booked
    assert await ledger.entry(key("nobody")) is None
    assert await ledger.find("east", "default", "nobody") is None
    assert await ledger.find("west", "default", "name-u-1") is None


async def test_a_booked_key_or_a_taken_name_is_a_conflict(ledger: SqlLedger) -> None:
    booked = await ledger.add(entry())
    with pytest.raises(ConflictError) as taken:
        await ledger.add(entry("u-2", name="name-u-1"))
    assert taken.value.field == "name"
    with pytest.raises(ConflictError) as again:
        await ledger.add(entry(name="other"))
    assert again.value.field == "uid"
    await ledger.add(entry("u-2", name="name-u-1", cluster="west"))
    await ledger.add(entry("u-3", name="name-u-1", namespace="other"))
    assert await ledger.entry(key()) == booked


@pytest.mark.parametrize("state", [SnapshotState.GONE, SnapshotState.RETAINED])
async def test_a_name_is_free_again_when_its_snapshot_is_out_of_our_hands(
    ledger: SqlLedger, state: SnapshotState
) -> None:
    old = await ledger.add(entry("u-1", name="n"))
    old = await ledger.change(dataclasses.replace(old, held=False, wish=Wish.ABSENT, status=status(state)))
    found = await ledger.find("east", "default", "n")
    assert found == (None if state is SnapshotState.GONE else old)
    new = await ledger.add(entry("u-2", name="n"))
    assert await ledger.find("east", "default", "n") == new
    assert await ledger.entry(key("u-1")) == old


async def test_of_many_that_want_a_name_exactly_one_gets_it(ledger: SqlLedger) -> None:
    results = await asyncio.gather(
        *(ledger.add(entry(f"u-{n}", name="wanted")) for n in range(30)), return_exceptions=True
    )
    assert sum(isinstance(r, ConflictError) for r in results) == 29
    assert await all_names(ledger) == ["wanted"]


async def test_a_change_is_compare_and_set(ledger: SqlLedger) -> None:
    first = await ledger.add(entry())
    second = await ledger.change(dataclasses.replace(first, wish=Wish.ABSENT, labels={"app": "web", "x": "y"}))
    assert second.version != first.version
    with pytest.raises(ConflictError):
        await ledger.change(dataclasses.replace(first, abandon=True))
    with pytest.raises(ConflictError):
        await ledger.change(entry("nobody", version="1"))
    assert await ledger.entry(key()) == second
    assert await all_names(ledger, EntryFilter(labels={"app": "web"})) == ["name-u-1"]
    assert await all_names(ledger, EntryFilter(labels={"app": "db"})) == []


async def test_a_new_entry_brings_no_version(ledger: SqlLedger) -> None:
    with pytest.raises(InvalidError):
        await ledger.add(entry(version="1"))


async def fill(ledger: SqlLedger) -> None:
    """Five entries that differ in what filters look at; the later, the newer."""
    rows = (
        entry("aa11", volume="data", labels={"app": "db", "tier": "gold"}),
        entry("aa%1", volume="logs", labels={"app": "db"}),
        entry("ab_1", volume="data", labels={"app": "web"}, namespace="other", driver="other.csi.example"),
        entry("cc11", volume="data", labels={}, cluster="west"),
        entry("dd11", volume="data", labels={"app": "db"}),
    )
    for index, row in enumerate(rows):
        booked = await ledger.add(dataclasses.replace(row, created_at=1000.0 + index))
        if row.key.uid == "aa%1":
            await ledger.change(dataclasses.replace(booked, status=status(SnapshotState.READY)))
        if row.key.uid == "dd11":
            await ledger.change(dataclasses.replace(booked, status=status(SnapshotState.GONE), held=False))


@pytest.mark.parametrize(
    ("which", "uids"),
    [
        (EntryFilter(), ["cc11", "ab_1", "aa%1", "aa11"]),
        (EntryFilter(cluster="west"), ["cc11"]),
        (EntryFilter(namespace="other"), ["ab_1"]),
        (EntryFilter(volume="logs"), ["aa%1"]),
        (EntryFilter(driver="other.csi.example"), ["ab_1"]),
        (EntryFilter(states=("ready",)), ["aa%1"]),
        (EntryFilter(states=("pending", "ready")), ["cc11", "ab_1", "aa%1", "aa11"]),
        (EntryFilter(states=("gone",)), []),
        (EntryFilter(labels={"app": "db"}), ["aa%1", "aa11"]),
        (EntryFilter(labels={"app": "db", "tier": "gold"}), ["aa11"]),
        (EntryFilter(labels={"app": "nothing"}), []),
        (EntryFilter(uid_prefix="aa"), ["aa%1", "aa11"]),
        (EntryFilter(uid_prefix="aa%"), ["aa%1"]),
        (EntryFilter(uid_prefix="ab_"), ["ab_1"]),
        (EntryFilter(uid_prefix="a_"), []),
        (EntryFilter(uid_prefix="AA"), []),
        (EntryFilter(cluster="east", volume="data", labels={"app": "db"}, uid_prefix="a"), ["aa11"]),
    ],
)
async def test_filters_choose_and_newest_comes_first(ledger: SqlLedger, which: EntryFilter, uids: list[str]) -> None:
    await fill(ledger)
    page = await ledger.list(which)
    assert [item.key.uid for item in page.items] == uids
    assert page.next_token == ""


async def test_pages_join_to_the_whole_list_whatever_their_size(ledger: SqlLedger) -> None:
    for number in range(23):
        # Equal instants on purpose: the order must not depend on them alone.
        await ledger.add(entry(f"u-{number:02}", created_at=float(number // 5)))
    whole = await all_names(ledger)
    assert whole == [f"name-u-{n:02}" for n in reversed(range(23))]
    for limit in (1, 2, 5, 22, 23, 24):
        assert await all_names(ledger, limit=limit) == whole


async def test_a_list_is_stable_while_others_write(ledger: SqlLedger) -> None:
    for number in range(60):
        await ledger.add(entry(f"old-{number:02}", created_at=float(number)))
    wanted = await all_names(ledger)
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            booked = await ledger.add(entry(f"new-{number}", created_at=100.0 + number))
            await ledger.change(dataclasses.replace(booked, status=status()))
            number += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(write(), name="writer")
        for _ in range(5):
            seen = await all_names(ledger, limit=7)
            assert [name for name in seen if name.startswith("name-old")] == wanted
            assert len(seen) == len(set(seen))
        stop.set()


@pytest.mark.parametrize(
    "token", ["x", "????", "W10", "WzEsMl0", "bnVsbA", "é", "W251bGwsIG51bGxd", "A" * 5000, "W05hTiwxXQ"]
)
async def test_a_strange_page_token_is_refused(ledger: SqlLedger, token: str) -> None:
    await ledger.add(entry())
    with pytest.raises(InvalidError) as error:
        await ledger.list(EntryFilter(), token=token)
    assert error.value.field == "next_token"


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_page_needs_room(ledger: SqlLedger, limit: int) -> None:
    with pytest.raises(InvalidError):
        await ledger.list(EntryFilter(), limit=limit)


async def test_a_state_that_is_none_is_refused(ledger: SqlLedger) -> None:
    with pytest.raises(InvalidError, match="there is no state 'redy'"):
        await ledger.list(EntryFilter(states=("redy",)))


@pytest.mark.slow
async def test_a_page_of_fifteen_thousand_comes_quickly(ledger: SqlLedger) -> None:
    for start in range(0, 15_000, 2_500):
        await asyncio.gather(
            *(
                ledger.add(entry(f"{n:05}", created_at=float(n), labels={"app": "db" if n % 1000 == 0 else "web"}))
                for n in range(start, start + 2_500)
            )
        )
    wanted = (
        (EntryFilter(), 100),
        (EntryFilter(labels={"app": "db"}), 15),
        (EntryFilter(uid_prefix="1499"), 10),
        (EntryFilter(volume="x"), 0),
    )
    took = []
    for which, count in wanted:
        before = time.perf_counter()
        page = await ledger.list(which)
        took.append(time.perf_counter() - before)
        assert len(page.items) == count
    print("15,000 entries, page of 100: " + ", ".join(f"{seconds * 1000:.1f} ms" for seconds in took))


@pytest.mark.parametrize("name", ["数据库-备份", "ß" * 1000, "n" * 1000, "a'b\"c;--", "💾", "​x", "\ttab", "%_%"])
async def test_strange_names_are_kept_as_they_are(ledger: SqlLedger, name: str) -> None:
    booked = await ledger.add(entry(name=name, namespace=name, volume=name, labels={name: name}, why=name))
    assert await ledger.find("east", name, name) == booked
    assert await all_names(ledger, EntryFilter(volume=name, labels={name: name})) == [name]


@pytest.mark.parametrize("bad", ["a\x00b", "\x00", "\ud800"])
async def test_what_no_store_can_keep_is_refused_by_name(ledger: SqlLedger, bad: str) -> None:
    for changes, field in (
        ({"name": bad}, "entry.name"),
        ({"why": bad}, "entry.why"),
        ({"labels": {"a": bad}}, "entry.labels.a"),
        ({"parameters": {"p": bad}}, "entry.parameters.p"),
        ({"uid": bad}, "entry.key.uid"),
    ):
        with pytest.raises(InvalidError) as error:
            await ledger.add(entry(**changes))
        assert error.value.field == field
    with pytest.raises(InvalidError):
        await ledger.save(key(bad), samples.record())
    with pytest.raises(InvalidError):
        await ledger.audit(bad, "verb", "who", {})
    with pytest.raises(InvalidError):
        await ledger.claim("scope", bad, "digest", "result")
    assert await all_names(ledger) == []
    assert await samples.all_keys(ledger) == []


async def test_a_search_for_what_cannot_be_there_is_refused(ledger: SqlLedger) -> None:
    for search in (
        ledger.load(key("\ud800")),
        ledger.find("east", "\ud800", "n"),
        ledger.list(EntryFilter(volume="\ud800")),
        ledger.drop_volume("east", "default", "\ud800"),
    ):
        with pytest.raises(InvalidError, match="not valid Unicode"):
            await search


@pytest.mark.parametrize(
    "changes", [{"created_at": float("nan")}, {"created_at": "now"}, {"held": 1}, {"labels": {"a": 1}}]
)
async def test_what_is_not_of_its_type_is_refused(ledger: SqlLedger, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        await ledger.add(entry(**changes))
    assert await all_names(ledger) == []


async def test_who_holds_a_snapshot_is_who_cut_it_and_who_took_it_over(ledger: SqlLedger) -> None:
    await ledger.add(entry("cut"))
    await ledger.save(
        key("cut"), samples.record(driver=entry().driver, handle='odd "%_ handle', ready=True, version="")
    )
    taken = {"volume": "", "source": HandleSource('odd "%_ handle')}
    for uid in ("taken", "kept", "left"):
        await ledger.add(entry(uid, **taken))
    for uid, state in (("kept", SnapshotState.RETAINED), ("left", SnapshotState.GONE)):
        booked = await ledger.entry(key(uid))
        assert booked is not None
        await ledger.change(dataclasses.replace(booked, status=SnapshotStatus(state)))
    await ledger.add(entry("other", volume="", source=HandleSource("odd")))
    found = await ledger.holders(entry().driver, 'odd "%_ handle')
    assert sorted(one.key.uid for one in found) == ["cut", "taken"]
    quick = await ledger.holders(entry().driver, 'odd "%_ handle', adopted_only=True)
    assert [one.key.uid for one in quick] == ["taken"]
    assert await ledger.holders("another.driver", 'odd "%_ handle') == []
