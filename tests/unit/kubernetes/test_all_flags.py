"""`snapbridge kubernetes all` takes the flags of both programs in whose place it stands; they do what they say."""

from __future__ import annotations

from typing import Any, cast

import pytest

from adapters.kubernetes import adapter, claims, names
from adapters.kubernetes.client import Client
from adapters.kubernetes.roles.table import Table
from adapters.kubernetes.settings import Settings
from bridge.model.failure import InvalidError
from bridge.model.keys import snapshot_key
from bridge.model.snapshot import DeletionPolicy, Record, VolumeSource
from bridge.ports.role import RolePlan
from tests.support.memory import VirtualClock
from tests.unit.kubernetes import objects as o
from tests.unit.kubernetes.test_controller_flags import UPSTREAM

BESIDE = (
    "--csi-address=/csi/csi.sock", "--timeout=30s", "--extra-create-metadata", "--node-deployment=false",
    "--snapshot-name-prefix=shot", "--groupsnapshot-name-prefix=shots", "--groupsnapshot-name-uuid-length=8",
    "--leader-election-labels=team:storage",
)  # fmt: skip


class Server:
    """Takes every object, and remembers the last."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}

    async def create(self, _resource: names.Resource, _namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        self.made = {**body, "metadata": {**body["metadata"], "uid": "u", "resourceVersion": "30"}}
        return self.made


def cluster(ways: adapter.Ways | None = None, server: Server | None = None) -> adapter.Cluster:
    client = cast(Client, server or Server())
    return adapter.Cluster(Settings(), client, cluster="c", clock=VirtualClock(), ways=ways)


def test_the_flags_of_both_programs_are_taken() -> None:
    both = [word for word in UPSTREAM if "distributed" not in word]
    plan = Table().plan("all", [*both, *BESIDE])
    assert isinstance(plan, RolePlan)
    assert plan.http_address == ":9809"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--node-deployment"], "--node-deployment"),
        (["--enable-distributed-snapshotting=true"], "--enable-distributed-snapshotting"),
        (["--groupsnapshot-name-uuid-length=0"], "--groupsnapshot-name-uuid-length"),
        (["--http-endpoint=:1", "--metrics-address=:2"], "--metrics-address"),
        (["--leader-election-labels=storage"], "--leader-election-labels"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(words: list[str], field: str) -> None:
    with pytest.raises(InvalidError) as refused:
        Table().plan("all", words)
    assert refused.value.field == field
    assert refused.value.hint


def test_the_old_flag_for_metrics_serves_the_pages() -> None:
    for role in ("all", "sidecar", "provisioner"):
        plan = Table().plan(role, ["--metrics-address=:8081"])
        assert isinstance(plan, RolePlan)
        assert plan.http_address == ":8081"


def test_with_the_gate_off_no_group_is_looked_at() -> None:
    assert cluster().joined().groups is not None
    without = cluster(adapter.Ways(groups=False))
    assert without.joined().groups is None
    assert "group" not in without.ready()
    for cache in without.world.caches.values():
        cache.synced = True
    assert without.on_record(o.DRIVER).handles == frozenset()
    assert not claims.needed(without.world, "apps", "data", "")


def test_groups_are_named_as_the_flags_say() -> None:
    naming = names.Naming("shots", 8)
    assert cluster(adapter.Ways(group_naming=naming)).groups.world.naming == naming
    assert cluster().groups.world.naming.prefix == "groupsnapshot"


@pytest.mark.parametrize("noted", [True, False])
async def test_the_volume_mode_is_noted_unless_conversion_is_allowed(noted: bool) -> None:
    server = Server()
    made = cluster(adapter.Ways(source_mode=noted), server)
    for resource, item in (
        (names.SNAPSHOTS, o.snapshot()),
        (names.CLAIMS, o.claim()),
        (names.VOLUMES, o.volume()),
        (names.CLASSES, o.klass()),
    ):
        made.world.caches[resource].fold(item)
    for cache in made.world.caches.values():
        cache.synced = True
    record = Record(driver=o.DRIVER, source=VolumeSource("vol-1"), snapshot_name="n", policy=DeletionPolicy.DELETE)
    await made.ledger.save(snapshot_key("c", o.UID), record)
    assert ("sourceVolumeMode" in server.made["spec"]) is noted
    assert server.made["spec"]["source"] == {"volumeHandle": "vol-1"}
