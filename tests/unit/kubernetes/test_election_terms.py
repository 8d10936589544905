"""What a replica that acts again may still believe: nothing that another may have changed meanwhile."""

from __future__ import annotations

from typing import Any, cast

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.contents import EARLIER_TERM, Contents
from adapters.kubernetes.events import Events
from adapters.kubernetes.world import World
from adapters.kubernetes.writer import Writer
from bridge.model.failure import ConflictError, ElsewhereError
from bridge.model.keys import snapshot_key
from bridge.service import work
from bridge.service.lane import Lane
from tests.support import memory
from tests.support import world as core
from tests.unit.kubernetes import objects

KEY = snapshot_key("c", objects.UID)
NOTED = {
    names.INTENT: '{"name":"snapshot-6f1c","volume":"vol-1","writer":"w1"}',
    names.BEING_CREATED: "yes",
}


def contents() -> Contents:
    """The ledger over caches that hold one snapshot whose create is under way. Nothing here may be written."""
    world = World()
    world.snapshots.fold(objects.snapshot())
    world.contents.fold(objects.content(metadata__annotations=NOTED))
    for cache in world.caches.values():
        cache.synced = True
    return Contents("c", world, cast("Writer", None), cast("Events", None), memory.VirtualClock())


async def test_a_note_of_ours_counts_as_anothers_in_a_new_term() -> None:
    ledger = contents()
    record = await ledger.load(KEY)
    assert record is not None
    assert record.note is not None
    assert record.note.writer == "w1"
    await ledger.save(KEY, record)
    ledger.begin_term()
    later = await ledger.load(KEY)
    assert later is not None
    assert later.note is not None
    assert later.note.writer == EARLIER_TERM


async def test_a_record_that_was_read_in_an_earlier_term_cannot_be_saved() -> None:
    ledger = contents()
    record = await ledger.load(KEY)
    assert record is not None
    ledger.begin_term()
    for write in (ledger.save, ledger.condemn, ledger.erase):
        act: Any = write
        with pytest.raises(ConflictError):
            await act(KEY, record)


async def test_without_election_versions_are_the_servers_own() -> None:
    record = await contents().load(KEY)
    assert record is not None
    assert record.version == "20"


async def test_no_plugin_is_called_once_we_may_not_act_any_more() -> None:
    """The process may have been stopped between its note and its call: that is when the fence counts."""
    small = core.World()
    lane = Lane(cast("Any", None), small.requests, small.ledger, cast("Any", memory.NoSecrets()))
    tools = work.Tools(small.plugin, small.clock, "w1")
    asked = []

    def fence(driver: str) -> str:
        asked.append(driver)
        return "standing by; leader is other_2"

    fenced = Lane(lane.orchestrator, lane.requests, lane.ledger, lane.secrets, fence=fence)
    with pytest.raises(ElsewhereError, match="leader is other_2"):
        await work.turn(core.KEY, fenced, tools)
    assert asked == ["d"]
    assert small.ledger.records[core.KEY].note_open
    assert not [what for what in small.script.done if what.startswith("create")]
    await work.turn(core.KEY, lane, tools)
    assert [what for what in small.script.done if what.startswith("create")]
