"""The standalone adapter under the contract of all orchestrators, and what is its own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pydantic
import pytest

from adapters.standalone.adapter import build
from adapters.standalone.settings import Settings
from bridge.ledger.opening import open_ledger
from bridge.ledger.store import SqlLedger
from bridge.model.failure import ConflictError, InvalidError
from bridge.model.keys import snapshot_key
from bridge.model.secret import SecretRef
from bridge.model.volume import AccessMode, Volume, VolumeMode
from bridge.ports.orchestrator import Orchestrator, SnapshotDraft
from tests.contract.ledger.samples import StoppedClock
from tests.contract.orchestrator import suite

DRIVER = "localdisk.csi.example"
SETTINGS = Settings.model_validate(
    {
        "volumes": [
            {"name": "data", "driver": DRIVER, "handle": "vol-1", "capacity": "1GiB"},
            {"name": "busy", "driver": DRIVER, "handle": "vol-2", "used_by": ["the mail server"]},
            {
                "name": "raw",
                "namespace": "web",
                "driver": DRIVER,
                "handle": "vol-3",
                "mode": "Block",
                "access_modes": ["SINGLE_NODE_WRITER", "MULTI_NODE_READER_ONLY"],
                "parameters": {"tier": "gold"},
                "secret": "file:/run/secrets/x",
            },
        ],
        "plugins": [{"name": "disk", "socket": "unix:///run/disk/csi.sock", "backend": "b", "node": "n"}],
    }
)


class StandalonePlace(suite.Place):
    """A standalone cluster whose restored volumes are kept in a ledger file."""

    def __init__(self, book: SqlLedger) -> None:
        self._book = book
        self._numbers = itertools.count(100)
        self.orchestrator: Orchestrator = build("host", SETTINGS, book)

    @property
    def known(self) -> Volume:
        return Volume("host", "default", "data", DRIVER, "vol-1", 2**30)

    @property
    def used(self) -> Volume:
        return Volume("host", "default", "busy", DRIVER, "vol-2", None, users=("the mail server",))

    async def make(self, name: str) -> Volume:
        return Volume("host", "default", name, DRIVER, f"vol-{next(self._numbers)}", 2**30)

    @contextlib.asynccontextmanager
    async def again(self) -> AsyncIterator[Orchestrator]:
        yield build("host", SETTINGS, self._book)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[StandalonePlace]:
    async with open_ledger(f"sqlite:///{tmp_path}/ledger.db", StoppedClock()) as book:
        yield StandalonePlace(book)


class TestStandalone(suite.OrchestratorContract):
    """The shared contract."""


async def test_a_configured_volume_is_as_the_config_says(place: StandalonePlace) -> None:
    assert await place.orchestrator.volumes.find("web", "raw") == Volume(
        "host",
        "web",
        "raw",
        DRIVER,
        "vol-3",
        mode=VolumeMode.BLOCK,
        access_modes=(AccessMode.SINGLE_NODE_WRITER, AccessMode.MULTI_NODE_READER_ONLY),
        parameters={"tier": "gold"},
        secret=SecretRef("file", "/run/secrets/x"),
    )


async def test_its_sockets_are_announced_under_its_name(place: StandalonePlace) -> None:
    assert place.orchestrator.ready() == "its plugins are not announced yet"
    async with suite.running(place.orchestrator) as heard:
        assert heard.sockets == {"host/disk": ("/run/disk/csi.sock", "b", "n")}
    assert (heard.keys, heard.drafts) == ([], [])


async def test_a_volume_of_the_config_is_not_forgotten_but_there(place: StandalonePlace) -> None:
    with pytest.raises(ConflictError, match="named in the config"):
        await place.orchestrator.volumes.forget("default", "data")
    with pytest.raises(ConflictError, match="in use by the mail server"):
        await place.orchestrator.volumes.forget("default", "busy")


async def test_the_config_wins_over_what_was_remembered(place: StandalonePlace, tmp_path: Path) -> None:
    async with open_ledger("sqlite://", StoppedClock()) as book:
        await book.put_volume(Volume("host", "default", "data", DRIVER, "older"))
        cluster = build("host", SETTINGS, book)
        assert (await cluster.volumes.find("default", "data")).handle == "vol-1"
        assert [v.handle for v in await cluster.volumes.list("default")] == ["vol-2", "vol-1"]


async def test_a_volume_of_another_cluster_is_refused(place: StandalonePlace) -> None:
    with pytest.raises(InvalidError):
        await place.orchestrator.volumes.register(Volume("other", "default", "x", DRIVER, "vol-9"), None)


async def test_it_has_no_durable_requests_of_its_own(place: StandalonePlace) -> None:
    with pytest.raises(InvalidError):
        await place.orchestrator.submit(SnapshotDraft("host", "default", "s"))
    with pytest.raises(InvalidError):
        await place.orchestrator.withdraw(snapshot_key("host", "u"))


@pytest.mark.parametrize(
    "section",
    [
        {"volumes": [{"name": "", "driver": "d", "handle": "h"}]},
        {"volumes": [{"name": "n" * 1025, "driver": "d", "handle": "h"}]},
        {"volumes": [{"name": "n", "driver": "d"}]},
        {"volumes": [{"name": "n", "driver": "d", "handle": "h", "capacity": 5}]},
        {"volumes": [{"name": "n", "driver": "d", "handle": "h", "access_modes": []}]},
        {"volumes": [{"name": "n", "driver": "d", "handle": "h", "access_modes": ["RWO"]}]},
        {"volumes": [{"name": "n", "driver": "d", "handle": "h", "secret": "vault:x"}]},
        {"plugins": [{"name": "p", "socket": "relative.sock"}]},
        {"plugins": [{"name": "p", "socket": "/" + "s" * 107}]},
        {"plugins": [{"name": "p", "socket": "/a"}, {"name": "p", "socket": "/b"}]},
    ],
)
def test_a_section_that_cannot_work_is_refused(section: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Settings.model_validate(section)
