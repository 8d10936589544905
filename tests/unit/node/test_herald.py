"""Drivers with a Node service are announced once, kept while unhealthy, withdrawn when gone."""

from __future__ import annotations

import asyncio

import pytest

from bridge.model.failure import ConflictError
from bridge.node import herald
from tests.support.csi_server import until
from tests.unit.node.places import Places


class Board:
    """An announcer that keeps what is announced; names in `taken` are refused."""

    def __init__(self) -> None:
        self.announced: dict[str, str] = {}
        self.taken: set[str] = set()
        self.calls: list[str] = []

    async def announce(self, driver: str, endpoint: str) -> None:
        self.calls.append(driver)
        if driver in self.taken:
            raise ConflictError(f"{driver} is announced by another process")
        self.announced[driver] = endpoint

    async def withdraw(self, driver: str) -> None:
        self.announced.pop(driver, None)

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_herald() -> None:
    places, board = Places(), Board()
    board.taken.add("taken.example")
    task = asyncio.create_task(herald.run(places, board, ("/plugins",)))
    await asyncio.sleep(0)
    places.put("a.example", "node", "/plugins/a/csi.sock")
    places.put("a.example", "controller", "/plugins/a/csi.sock")
    places.put("taken.example", "node", "/plugins/t/csi.sock")
    places.put("elsewhere.example", "node", "/plugins-of-others/csi.sock")
    places.put("controller.example", "controller", "/plugins/c/csi.sock")
    await until(lambda: board.announced == {"a.example": "/plugins/a/csi.sock"})
    tried = board.calls.count("taken.example")
    places.put("a.example", "node", "/plugins/a/csi.sock", healthy=False)
    await until(lambda: board.calls.count("taken.example") > tried)  # it has looked again
    assert board.announced == {"a.example": "/plugins/a/csi.sock"}
    assert board.calls.count("a.example") == 1
    places.rows = []
    places.tell("a.example")
    await until(lambda: board.announced == {})
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert places.listeners == []
