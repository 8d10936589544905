"""What another controller acts on: left out of lists, never called missing, never told as gone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridge.ledger.opening import open_ledger
from bridge.model.failure import ElsewhereError, NotFoundError
from bridge.model.keys import Key, snapshot_key
from bridge.model.snapshot import SnapshotRequest, SnapshotStatus
from bridge.ports.ledger import EntryFilter
from bridge.ports.orchestrator import Traits
from bridge.service.catalogue import Catalogue
from bridge.service.lane import Lane
from tests.support import memory
from tests.support.standalone import ADMIN, SmallCluster

THEIRS = snapshot_key("c", "theirs-1")


class ForeignRequests:
    """The `Requests` port of a cluster in which another controller acts."""

    async def observe(self, key: Key) -> SnapshotRequest | None:
        if key == THEIRS:
            raise ElsewhereError("driver d: another controller holds the lease")
        return None

    async def keys(self) -> AsyncIterator[Key]:
        yield THEIRS

    async def hold(self, request: SnapshotRequest) -> None:
        raise AssertionError("nothing may be written")

    async def release(self, request: SnapshotRequest) -> None:
        raise AssertionError("nothing may be written")

    async def publish(self, request: SnapshotRequest, status: SnapshotStatus) -> None:
        raise AssertionError("nothing may be written")


class DurableCluster(SmallCluster):
    traits = Traits(durable_requests=True)


async def test_it_is_not_listed_and_not_called_missing() -> None:
    async with open_ledger("sqlite://", memory.VirtualClock()) as ledger:
        lane = Lane(DurableCluster(), ForeignRequests(), ledger, memory.NoSecrets())
        found = Catalogue({"c": lane}, ledger)
        page = await found.page(ADMIN, EntryFilter(), limit=10, token="")
        assert page.items == ()
        with pytest.raises(ElsewhereError, match="another controller"):
            await found.find(ADMIN, "theirs-1", whole=True)
        with pytest.raises(NotFoundError):
            await found.find(ADMIN, "nobodys", whole=True)
