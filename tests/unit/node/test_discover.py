"""Sockets are found by pattern, kept through a short absence, and dropped after a long one."""

from __future__ import annotations

import os
from pathlib import Path

from bridge.node.discover import Finder
from bridge.node.settings import AgentSettings
from tests.unit.node.places import Places


class HandClock:
    """A clock that a test moves by hand."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def test_finder(tmp_path: Path) -> None:
    places, clock = Places(), HandClock()
    settings = AgentSettings(
        "n", patterns=(f"{tmp_path}/plugins/*/csi.sock", f"{tmp_path}/state/csi/plugins/*/csi.sock")
    )
    finder = Finder(settings, places, clock)
    await finder.scan()
    assert places.sockets == {}
    first = tmp_path / "plugins" / "a" / "csi.sock"
    second = tmp_path / "state" / "csi" / "plugins" / "b" / "csi.sock"
    for path in (first, second):
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / "plugins" / "linked").symlink_to(second.parent)
    await finder.scan()
    assert set(places.sockets.values()) == {str(first), str(tmp_path / "plugins" / "linked" / "csi.sock")}
    (tmp_path / "plugins" / "linked").unlink()
    os.unlink(first)
    clock.time += 9
    await finder.scan()
    assert str(first) in places.sockets
    clock.time += 9
    first.touch()
    await finder.scan()
    os.unlink(first)
    await finder.scan()
    clock.time += 9
    await finder.scan()
    assert str(first) in places.sockets
    clock.time += 2
    await finder.scan()
    assert set(places.sockets.values()) == {str(second)}
