"""Nomad's wire forms and the model's values, on recorded answers."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from adapters.nomad import wire
from bridge.model.plugin import Capability
from bridge.model.secret import NO_SECRET
from bridge.model.snapshot import HandleSource, VolumeSource
from bridge.model.volume import AccessMode, NewVolume, VolumeMode

RECORDINGS = pathlib.Path(__file__).parents[2] / "contract" / "recordings" / "nomad-2.0.6-dev"


def recorded(file: str, name: str) -> Any:
    for case in json.loads((RECORDINGS / file).read_text()):
        if case["name"] == name:
            return case["response"]["body"]
    raise AssertionError(f"no recording {file}: {name}")


def test_a_volume_in_use() -> None:
    row = recorded("volumes.json", "get a volume in use")
    volume = wire.volume("east", row, NO_SECRET)
    assert (volume.namespace, volume.name, volume.driver) == ("default", "data", "hostpath.csi.k8s.io")
    assert volume.handle == row["ExternalID"]
    assert volume.capacity_bytes == 10485760
    assert volume.access_modes == (AccessMode.SINGLE_NODE_WRITER,)
    assert volume.mode is VolumeMode.FILESYSTEM
    assert len(volume.users) == 1
    assert volume.users[0].startswith("allocation b778ba27-7925-ac7e-41fa-cc9281c83efb (app/g")
    assert volume.users[0].endswith("writes")


def test_a_row_of_the_list() -> None:
    row = recorded("volumes.json", "list CSI volumes (one, claimed by a running job)")[0]
    volume = wire.volume("east", row, NO_SECRET)
    assert (volume.name, volume.driver) == ("data", "hostpath.csi.k8s.io")
    assert volume.users == ("1 allocations write",)


def test_a_claim_of_an_allocation_in_no_list_is_still_a_claim() -> None:
    row = {"ID": "v", "WriteAllocs": {"aaaa": None}, "Allocations": []}
    assert wire.users(row) == ("allocation aaaa (in no list: a stuck claim?) writes",)


def test_capabilities_of_a_healthy_plugin_only() -> None:
    healthy = wire.capabilities(recorded("plugins.json", "get a healthy monolith plugin"))
    assert {Capability.CREATE_DELETE_SNAPSHOT, Capability.LIST_SNAPSHOTS, Capability.CLONE_VOLUME} <= healthy
    assert Capability.PUBLISH_UNPUBLISH_VOLUME not in healthy
    assert (
        wire.capabilities(recorded("plugins.json", "get a plugin whose job is stopped (unhealthy, counts 0)"))
        == set()
    )


def test_a_snapshot_answer() -> None:
    row = recorded("snapshots.json", "create a snapshot of a volume in use")["Snapshots"][0]
    cut = wire.snapshot(row)
    assert (cut.handle, cut.source_handle, cut.ready) == (row["ID"], row["ExternalSourceVolumeID"], True)
    assert cut.cut_at_ns == row["CreateTime"] * 10**9
    assert cut.size_bytes == 10485760
    blank = wire.snapshot({"ID": "s", "SizeBytes": 0, "CreateTime": 0, "IsReady": False})
    assert (blank.size_bytes, blank.cut_at_ns, blank.ready) == (None, None, False)


@pytest.mark.parametrize("bad", ["a/b", "", ".", ".."])
def test_ids_that_nomads_api_cannot_reach(bad: str) -> None:
    assert wire.unreachable_id(bad)


@pytest.mark.parametrize("good", ["pa[0]", "data", "a b", "a%b", "a.b"])
def test_ids_that_it_can(good: str) -> None:
    assert wire.unreachable_id(good) == ""


def test_secrets_in_a_header() -> None:
    assert wire.secrets_header({}) == ({}, "")
    assert wire.secrets_header({"user": "u", "pass": "a=b"}) == ({"X-Nomad-CSI-Secrets": "user=u,pass=a=b"}, "")
    for bad in ({"k": "hunter,2"}, {"a,b": "x"}, {"a=b": "x"}, {"k": "x\ny"}, {"": "x"}):
        header, trouble = wire.secrets_header(bad)
        assert header == {}
        assert trouble
        assert "hunter" not in trouble


def test_the_body_of_a_create() -> None:
    new = NewVolume(
        "restore-1", "d", HandleSource("s1"), 1 << 20, 0, VolumeMode.BLOCK, (AccessMode.MULTI_NODE_READER_ONLY,)
    )
    body = wire.new_volume(new, "hostpath", "default", {"k": "v"})
    assert (body["ID"], body["Name"]) == ("snapbridge-new-restore-1", "restore-1")
    assert (body["SnapshotID"], body["Secrets"]) == ("s1", {"k": "v"})
    assert "CloneID" not in body
    assert body["RequestedCapabilities"] == [
        {"AccessMode": "multi-node-reader-only", "AttachmentMode": "block-device"}
    ]
    clone = wire.new_volume(NewVolume("c", "d", VolumeSource("v1")), "p", "default", {})
    assert clone["CloneID"] == "v1"
    assert "SnapshotID" not in clone


def test_a_registrations_name_is_no_other_handles() -> None:
    assert wire.fresh_name("data", "h1") != wire.fresh_name("data", "h2")
    assert wire.fresh_name("data", "h1") == wire.fresh_name("data", "h1")


def test_who_has_a_volume_as_labels() -> None:
    row = {
        "ID": "data", "WriteAllocs": {"a1": None}, "ReadAllocs": {"a2": None, "stuck": None},
        "Allocations": [
            {"ID": "a1", "JobID": "web", "TaskGroup": "g", "NodeName": "n1"},
            {"ID": "a2", "JobID": "batch", "TaskGroup": "g", "NodeName": "n2"},
            {"ID": "gone", "JobID": "old", "TaskGroup": "g", "NodeName": "n3"},
        ],
    }  # fmt: skip
    assert wire.user_labels(row) == {
        "allocation": ("a1", "a2", "stuck"), "job": ("batch", "web"), "group": ("g",), "node": ("n1", "n2"),
    }  # fmt: skip
    assert wire.user_labels({"ID": "free", "WriteAllocs": None, "Allocations": None}) == {}


def test_places_of_a_volume_go_both_ways() -> None:
    row = {"ID": "data", "Topologies": [None, {"Segments": {"zone": "a"}}, {"Segments": None}]}
    assert wire.topologies(row) == ({"zone": "a"},)
    new = NewVolume("n", "d", HandleSource("s"), requisite=({"zone": "a"},), preferred=({"zone": "b"},))
    assert wire.new_volume(new, "p", "default", {})["RequestedTopologies"] == {
        "Required": [{"Segments": {"zone": "a"}}], "Preferred": [{"Segments": {"zone": "b"}}],
    }  # fmt: skip
    assert "RequestedTopologies" not in wire.new_volume(NewVolume("n", "d"), "p", "default", {})
