"""The ledgers that the contract is run for. A new one (PostgreSQL) joins by one more row in LEDGERS."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bridge.ledger.opening import open_ledger
from bridge.ledger.store import SqlLedger
from tests.contract.ledger.samples import StoppedClock

LEDGERS: dict[str, Callable[[Path], str]] = {
    "sqlite-file": lambda directory: f"sqlite:///{directory}/ledger.db",
    "sqlite-memory": lambda directory: "sqlite://",
}


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture(params=sorted(LEDGERS))
async def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: StoppedClock) -> AsyncIterator[SqlLedger]:
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(open_ledger(LEDGERS[request.param](tmp_path), clock))
