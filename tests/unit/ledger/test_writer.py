"""The writer's thread: gathering, isolation, order, cancelled callers, a store that fails, the end."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bridge.ledger import sqlite
from bridge.ledger.reader import Reader
from bridge.ledger.writer import Writer
from bridge.model.failure import ConflictError, NotFoundError, UnavailableError


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    path = str(tmp_path / "a.db")
    made = Writer(sqlite.engine(path), functools.partial(sqlite.explain, path=path))
    made.start()
    await made.run(lambda c: c.exec_driver_sql("CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT)"))
    yield made
    await made.close()


def put(x: int, y: str = "") -> functools.partial[None]:
    return functools.partial(_put, x=x, y=y)


def _put(connection: sa.Connection, x: int, y: str) -> None:
    connection.exec_driver_sql("INSERT INTO t VALUES (?, ?)", (x, y))


def _all(connection: sa.Connection) -> list[int]:
    return [row.x for row in connection.exec_driver_sql("SELECT x FROM t ORDER BY x")]


async def blocked(writer: Writer) -> tuple[threading.Event, asyncio.Future[bool]]:
    """A write that the thread has begun, and that ends when the event is set."""
    begun, gate = threading.Event(), threading.Event()

    def write(_connection: sa.Connection) -> bool:
        begun.set()
        return gate.wait(60)

    blocker = asyncio.ensure_future(writer.run(write))
    assert await asyncio.to_thread(begun.wait, 30)
    return gate, blocker


async def test_writes_that_wait_together_are_committed_together(writer: Writer) -> None:
    gate, blocker = await blocked(writer)
    waiting = [asyncio.ensure_future(writer.run(put(n))) for n in range(100)]
    await asyncio.sleep(0)
    before = writer.commits
    gate.set()
    await asyncio.gather(blocker, *waiting)
    assert writer.commits - before == 2
    assert await writer.run(_all) == list(range(100))


async def test_a_write_that_raises_leaves_nothing_and_its_neighbours_stay(writer: Writer) -> None:
    def half_done(connection: sa.Connection) -> None:
        _put(connection, 1000, "")
        raise NotFoundError("no")

    results = await asyncio.gather(
        *(writer.run(half_done if n % 3 == 0 else put(n)) for n in range(30)), return_exceptions=True
    )
    assert [isinstance(r, NotFoundError) for r in results] == [n % 3 == 0 for n in range(30)]
    assert await writer.run(_all) == [n for n in range(30) if n % 3]


async def test_a_write_that_the_store_refuses_is_its_own_loss_only(writer: Writer) -> None:
    await writer.run(put(7))
    results = await asyncio.gather(*(writer.run(put(n)) for n in range(15)), return_exceptions=True)
    assert [n for n, r in enumerate(results) if isinstance(r, ConflictError)] == [7]
    assert await writer.run(_all) == list(range(15))


async def test_a_bug_in_a_write_reaches_the_one_who_asked_and_the_writer_lives(writer: Writer) -> None:
    with pytest.raises(ZeroDivisionError):
        await writer.run(lambda c: 1 // 0)
    await writer.run(put(1))
    assert await writer.run(_all) == [1]


async def test_writes_keep_the_order_in_which_they_were_asked(writer: Writer) -> None:
    seen: list[int] = []
    await asyncio.gather(*(writer.run(lambda c, n=n: seen.append(n)) for n in range(600)))  # type: ignore[misc]
    assert seen == list(range(600))


async def test_a_caller_that_is_cancelled_harms_nobody(writer: Writer) -> None:
    gate, blocker = await blocked(writer)
    cancelled = asyncio.ensure_future(writer.run(put(1)))
    other = asyncio.ensure_future(writer.run(put(2)))
    await asyncio.sleep(0)
    cancelled.cancel()
    gate.set()
    await asyncio.gather(blocker, other)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert 2 in await writer.run(_all)


async def test_a_full_store_is_said_and_works_again_when_there_is_room(writer: Writer) -> None:
    pages = await writer.run(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())
    await writer.run(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {(pages or 0) + 4}"))
    results = await asyncio.gather(*(writer.run(put(n, "y" * 1000)) for n in range(60)), return_exceptions=True)
    kept = [n for n, r in enumerate(results) if r is None]
    full = [r for r in results if isinstance(r, UnavailableError)]
    assert kept
    assert len(kept) + len(full) == 60
    assert "is full" in str(full[0])
    assert await writer.run(_all) == kept
    await writer.run(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 100000"))
    await writer.run(put(1000))
    assert await writer.run(_all) == [*kept, 1000]


async def test_the_end_waits_for_what_was_asked(tmp_path: Path) -> None:
    path = str(tmp_path / "b.db")
    explain = functools.partial(sqlite.explain, path=path)
    writer = Writer(sqlite.engine(path), explain)
    writer.start()
    await writer.run(lambda c: c.exec_driver_sql("CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT)"))
    asked = [asyncio.ensure_future(writer.run(put(n))) for n in range(300)]
    await asyncio.sleep(0)
    await writer.close()
    await asyncio.gather(*asked)
    with pytest.raises(UnavailableError, match="closed"):
        await writer.run(_all)
    reader = Reader(sqlite.engine(path, read_only=True), explain)
    assert await reader.run(_all) == list(range(300))
    with pytest.raises(UnavailableError, match="read-only"):
        await reader.run(put(1))
    await reader.close()
    with pytest.raises(UnavailableError, match="closed"):
        await reader.run(_all)


async def test_a_store_that_cannot_be_opened_fails_each_caller(tmp_path: Path) -> None:
    path = str(tmp_path / "no" / "such" / "place.db")
    writer = Writer(sqlite.engine(path), functools.partial(sqlite.explain, path=path))
    writer.start()
    for _ in range(2):
        with pytest.raises(UnavailableError, match="cannot be opened"):
            await writer.run(_all)
    await writer.close()
