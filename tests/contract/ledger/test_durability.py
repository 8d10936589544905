"""What was acknowledged survives kill -9 in the midst of writing, however often."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from pathlib import Path

from bridge.ledger.opening import open_ledger
from tests.contract.ledger.samples import StoppedClock, key

ROUNDS = 5


async def write_and_kill(url: str, lines_before_the_kill: int) -> list[list[str]]:
    """Everything that a writer acknowledged up to the moment it was killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contract.ledger.acknowledging_writer", url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lines: list[bytes] = []
    try:
        async with asyncio.timeout(60):
            while len(lines) < lines_before_the_kill:
                line = await process.stdout.readline()
                assert line, f"the writer ended by itself after {len(lines)} lines"
                lines.append(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    lines += (await process.stdout.read()).splitlines(keepends=True)
    assert await process.wait() == -9
    return [line.decode().split() for line in lines if line.endswith(b"\n")]


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        file = tmp_path / f"ledger-{number}.db"
        acknowledged = await write_and_kill(f"sqlite:///{file}", 100 + 137 * number)
        async with open_ledger(f"sqlite:///{file}", StoppedClock()) as ledger:
            for what, uid, version in acknowledged:
                found = await (ledger.entry(key(uid)) if what == "entry" else ledger.load(key(uid)))
                assert found is not None, f"{what} {uid} was acknowledged and is lost"
                assert int(found.version) >= int(version)
        with contextlib.closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_killed_writer_can_be_followed_by_another_on_the_same_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    first = await write_and_kill(url, 60)
    async with open_ledger(url, StoppedClock()) as ledger:
        keys = {k.uid async for k in ledger.keys()}  # noqa: SIM118 - a ledger is no mapping
        assert {uid for _, uid, _ in first} <= keys
        newest = max(int(version) for _, _, version in first)
        booked = await ledger.entry(key("0-0"))
        assert booked is not None
        assert int((await ledger.change(booked)).version) > newest
