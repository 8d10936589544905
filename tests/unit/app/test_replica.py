"""Which election a config holds, and what a replica says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.catalog import Catalog
from bridge.app import config, replica
from bridge.app.health import ServiceHealth
from bridge.csi.registry import Registry
from bridge.csi.settings import RegistrySettings
from bridge.ledger.opening import open_ledger
from bridge.model.failure import InvalidError
from tests.support.csi_server import RealClock

ONE = "{name: east, kind: nomad, leadership: {address: 'http://10.0.0.1:7717'}}"
PLAIN = "{name: lab, kind: nomad}"
LOCAL = "{name: here, kind: standalone}"


def load(folder: Path, *clusters: str) -> config.Config:
    file = folder / "snapbridge.yaml"
    file.write_text(f"clusters: [{', '.join(clusters)}]\n")
    return config.load([str(file)], Catalog().sections(), {})


def test_a_config_without_leadership_holds_no_election(tmp_path: Path) -> None:
    assert replica.election(load(tmp_path, PLAIN, LOCAL), Catalog()) is None


def test_one_cluster_may_hold_it(tmp_path: Path) -> None:
    leadership = replica.election(load(tmp_path, PLAIN, ONE, LOCAL), Catalog())
    assert leadership is not None
    assert "nobody is known to lead yet" in leadership.why_not()
    assert leadership.leader == leadership.leader_address == leadership.trouble == ""


def test_two_may_not(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="'east' and 'west' both hold an election"):
        replica.election(load(tmp_path, ONE, ONE.replace("east", "west")), Catalog())


@pytest.mark.parametrize(
    "leadership",
    [
        "{ttl_seconds: 9}",
        "{delay_seconds: 0}",
        "{variable: 'a b'}",
        "{address: '10.0.0.1:7717'}",
        "{tll_seconds: 15}",
    ],
)
def test_what_is_wrong_in_it_is_named(tmp_path: Path, leadership: str) -> None:
    with pytest.raises(config.ConfigError) as raised:
        load(tmp_path, f"{{name: east, kind: nomad, leadership: {leadership}}}")
    assert "clusters[0].leadership." in str(raised.value)


def test_a_leader_whose_lock_lapsed_is_not_ready() -> None:
    reason = [""]
    health = ServiceHealth([], Registry(RegistrySettings(), RealClock()), fence=lambda: reason[0])
    health.started = True
    assert [check.name for check in health.checks()] == ["service"]
    reason[0] = "the lock was not renewed in time"
    (_, leadership) = health.checks()
    assert (leadership.name, leadership.sentence, leadership.fatal) == ("leadership", reason[0], True)


class Marks:
    """The part of a leadership that keeps the mark of the last leader's ledger."""

    def __init__(self) -> None:
        self.mark = ""
        self.mark_place = "the variable x"

    async def last_mark(self) -> str:
        return self.mark

    async def leave_mark(self, mark: str) -> None:
        self.mark = mark


async def test_with_another_ledger_or_an_older_copy_nobody_leads(tmp_path: Path) -> None:
    """A data_dir that is not shared: every snapshot would be nobody's."""
    settings, marks = load(tmp_path, ONE), Marks()
    own, copy, other = (tmp_path / name for name in ("own.db", "copy.db", "other.db"))

    async def lead(path: Path) -> None:
        async with open_ledger(f"sqlite:///{path}", RealClock()) as ledger:
            await replica.know_ledger(ledger, settings, marks)

    await lead(own)
    copy.write_bytes(own.read_bytes())
    await lead(own)
    left = marks.mark
    for wrong in (copy, other):
        with pytest.raises(InvalidError, match="not the one that the last leader had") as raised:
            await lead(wrong)
        assert "remove the variable x" in raised.value.hint
        assert marks.mark == left
    await lead(own)
    assert marks.mark != left
    marks.mark = ""  # as an operator does who put an older one back
    await lead(copy)
