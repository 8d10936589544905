"""Topology requirements, PersistentVolumes and their end."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.decide import amounts, persistent_volume, provision, topology
from adapters.kubernetes.decide.persistent_volume import Blocked, Delete, Guard, Leave
from adapters.kubernetes.decide.topology import Map, Places, Rules
from adapters.kubernetes.decide.verdict import Refusal, State
from bridge.model.volume import MadeVolume
from tests.unit.kubernetes import provisioned as given

KEYS = ["zone", "rack"]


def csi_node(name: str, keys: list[str] | None = None, driver: str = given.DRIVER) -> given.Object:
    return {
        "metadata": {"name": name},
        "spec": {"drivers": [{"name": driver, "nodeID": name, "topologyKeys": KEYS if keys is None else keys}]},
    }


def where(*nodes: str) -> Map:
    """A map of nodes named zone+rack: `a1` is zone a, rack 1."""
    return Map(
        given.DRIVER,
        {name: csi_node(name) for name in nodes},
        {name: {"zone": name[0], "rack": name[1], "os": "linux"} for name in nodes},
    )


def at(name: str) -> dict[str, str]:
    return {"zone": name[0], "rack": name[1]}


def allowed(*zones: str) -> dict[str, Any]:
    return {"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": list(zones)}]}]}


def test_late_binding_names_all_places_and_prefers_the_chosen_one() -> None:
    found = topology.require("data", given.klass(), "b1", where("c1", "b1", "a1"), Rules())
    assert found == Places((at("a1"), at("b1"), at("c1")), (at("b1"), at("c1"), at("a1")))


def test_strict_late_binding_names_the_chosen_place_alone() -> None:
    found = topology.require("data", given.klass(), "b1", where("a1", "b1"), Rules(strict=True))
    assert found == Places((at("b1"),), (at("b1"),))


def test_immediate_binding_spreads_by_the_claims_name() -> None:
    map_ = where("a1", "b1", "c1")
    firsts = [topology.require(f"data-web-{n}", given.klass(), "", map_, Rules()) for n in range(3)]
    assert all(isinstance(one, Places) for one in firsts)
    assert {one.preferred[0]["zone"] for one in firsts if isinstance(one, Places)} == {"a", "b", "c"}
    assert firsts[0] == topology.require("logs-web-0", given.klass(), "", map_, Rules())


def test_immediate_binding_without_places() -> None:
    assert topology.require("data", given.klass(), "", where("a1"), Rules(immediate=False)) == Places()
    nobody = topology.require("data", given.klass(), "", Map(given.DRIVER, {}, {}), Rules())
    assert isinstance(nobody, Refusal)
    assert "no available topology found" in nobody.message
    bare = Map(given.DRIVER, {"a1": csi_node("a1")}, {"a1": {}})
    unlabelled = topology.require("data", given.klass(), "", bare, Rules())
    assert isinstance(unlabelled, Refusal)
    assert "were not found on any nodes" in unlabelled.message


def test_allowed_places_limit_the_requirement() -> None:
    klass = given.klass(**allowed("b", "a"))
    found = topology.require("data", klass, "b1", where("a1", "b1", "c1"), Rules())
    assert found == Places(({"zone": "a"}, {"zone": "b"}), ({"zone": "b"}, {"zone": "a"}))
    immediate = topology.require("data", klass, "", where("c1"), Rules(immediate=False))
    assert isinstance(immediate, Places)
    assert immediate.requisite == ({"zone": "a"}, {"zone": "b"})
    for strict in (False, True):
        outside = topology.require("data", klass, "c1", where("a1", "c1"), Rules(strict=strict))
        assert isinstance(outside, Refusal)
        assert outside.state is State.NO_CHANGE
        assert "is not in" in outside.message


@pytest.mark.parametrize(
    ("map_", "words", "state"),
    [
        (Map(given.DRIVER, {}, {}), 'csinode.storage.k8s.io "a1" not found', State.RESCHEDULE),
        (
            Map(given.DRIVER, {"a1": csi_node("a1", driver="other.example")}, {"a1": at("a1")}),
            "no topology key found for node a1",
            State.NO_CHANGE,
        ),
        (
            Map(given.DRIVER, {"a1": csi_node("a1", keys=[])}, {"a1": at("a1")}),
            "no topology key found for node a1",
            State.NO_CHANGE,
        ),
        (
            Map(given.DRIVER, {"a1": csi_node("a1")}, {"a1": {"zone": "a"}}),
            "does not match topology keys from CSINode",
            State.NO_CHANGE,
        ),
        (Map(given.DRIVER, {"a1": csi_node("a1")}, {}), "does not match topology keys", State.NO_CHANGE),
    ],
)
def test_a_chosen_node_that_cannot_be_placed(map_: Map, words: str, state: State) -> None:
    found = topology.require("data", given.klass(), "a1", map_, Rules())
    assert isinstance(found, Refusal)
    assert words in found.message
    assert found.state is state


def test_the_same_places_in_any_order_of_nodes() -> None:
    one = topology.require("data", given.klass(), "b1", where("a1", "b1", "c1"), Rules())
    assert one == topology.require("data", given.klass(), "b1", where("c1", "a1", "b1"), Rules())


@pytest.mark.parametrize(
    ("kept", "klass", "believed"),
    [
        ({"requisite": [at("a1"), at("b1")], "preferred": [at("b1"), at("a1")]}, given.klass(), True),
        ({"requisite": [at("a1")], "preferred": [at("a1")]}, given.klass(**allowed("a")), True),
        ({"requisite": [at("c1")], "preferred": [at("c1")]}, given.klass(**allowed("a")), False),
        ({"requisite": [at("a1")], "preferred": [at("b1")]}, given.klass(), False),
        ({"requisite": [{"zone": 7}], "preferred": [{"zone": 7}]}, given.klass(), False),
        ({"requisite": [{}], "preferred": [{}]}, given.klass(), False),
        ({"requisite": "all"}, given.klass(), False),
        (None, given.klass(), False),
        ([1], given.klass(), False),
    ],
)
def test_places_on_a_claim_are_believed_only_if_they_could_be_ours(
    kept: object, klass: given.Object, believed: bool
) -> None:
    assert (topology.remembered(kept, klass) is not None) is believed


def build(
    klass: given.Object | None = None,
    options: provision.Options | None = None,
    volume: MadeVolume | None = None,
    **changes: Any,
) -> given.Object:
    claim, klass = given.claim(**changes), klass or given.klass()
    options = options or provision.Options(given.DRIVER)
    outline = provision.outline(claim, klass, options, frozenset())
    assert isinstance(outline, provision.Outline)
    made = persistent_volume.Made(claim, klass, outline, volume or MadeVolume("vol-1", 2 << 30, {"k": "v"}), "me")
    return persistent_volume.build(made, options)


def test_a_persistent_volume() -> None:
    klass = given.klass(
        mountOptions=["noatime"],
        parameters={
            "csi.storage.k8s.io/fstype": "xfs",
            "csi.storage.k8s.io/provisioner-secret-name": "s",
            "csi.storage.k8s.io/provisioner-secret-namespace": "n",
        },
    )
    volume = MadeVolume("vol-1", 2 << 30, {"k": "v"}, accessible=({"zone": "b"},))
    assert build(klass, volume=volume) == {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": given.NAME,
            "annotations": {
                names.PROVISIONED_BY: given.DRIVER,
                names.VOLUME_DELETION_SECRET_NAME: "s",
                names.VOLUME_DELETION_SECRET_NAMESPACE: "n",
            },
            "finalizers": [names.VOLUME_FINALIZER],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "2Gi"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": "apps",
                "name": "data",
                "uid": given.UID,
                "resourceVersion": "7",
            },
            "csi": {
                "driver": given.DRIVER,
                "volumeHandle": "vol-1",
                "volumeAttributes": {"k": "v", names.PROVISIONER_IDENTITY: "me"},
                "fsType": "xfs",
            },
            "storageClassName": "fast",
            "mountOptions": ["noatime"],
            "persistentVolumeReclaimPolicy": "Delete",
            "volumeMode": "Filesystem",
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]
                }
            },
        },
    }


def test_places_become_terms_of_which_one_must_hold() -> None:
    terms = topology.affinity([{"zone": "a", "rack": "1"}, {}, {"zone": "b"}])
    assert terms is not None
    assert terms["required"]["nodeSelectorTerms"] == [
        {
            "matchExpressions": [
                {"key": "rack", "operator": "In", "values": ["1"]},
                {"key": "zone", "operator": "In", "values": ["a"]},
            ]
        },
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]},
    ]
    assert topology.affinity([]) is None


def test_an_unknown_capacity_is_the_one_that_was_asked() -> None:
    found = build(volume=MadeVolume("vol-1", 0))
    assert found["spec"]["capacity"] == {"storage": "1Gi"}
    assert "nodeAffinity" not in found["spec"]
    assert found["metadata"]["annotations"][names.VOLUME_DELETION_SECRET_NAME] == ""


def test_read_only_many_alone_is_marked_where_the_role_is_told_to() -> None:
    told = provision.Options(given.DRIVER, publish_readonly=True)
    many = {"spec__accessModes": ["ReadOnlyMany"]}
    assert build(options=told, **many)["spec"]["csi"]["readOnly"] is True
    assert "readOnly" not in build(**many)["spec"]["csi"]
    both = {"spec__accessModes": ["ReadOnlyMany", "ReadWriteOnce"]}
    assert "readOnly" not in build(options=told, **both)["spec"]["csi"]


def test_a_block_volume_has_no_file_system() -> None:
    options = provision.Options(given.DRIVER, default_fs_type="ext4")
    assert build(options=options)["spec"]["csi"]["fsType"] == "ext4"
    assert "fsType" not in build(options=options, spec__volumeMode="Block")["spec"]["csi"]


RELEASED = {"status__phase": "Released"}
GONE = {"metadata__deletionTimestamp": "2026-11-21T12:00:00Z"}
BARE = {"metadata__finalizers": []}
RETAIN = {"spec__persistentVolumeReclaimPolicy": "Retain"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Leave()),
        (RELEASED, Delete("vol-1")),
        ({**RELEASED, **RETAIN}, Guard(())),
        ({**RELEASED, **RETAIN, **BARE}, Leave()),
        ({**RELEASED, "metadata__annotations": {names.PROVISIONED_BY: "other.example"}}, Leave()),
        ({**RELEASED, "metadata__annotations": {}}, Delete("vol-1")),
        ({**RELEASED, "spec__csi__driver": "other.example"}, Leave()),
        ({**RELEASED, **GONE}, Delete("vol-1")),
        ({**RELEASED, **GONE, **BARE}, Leave()),
        (BARE, Guard((names.VOLUME_FINALIZER,))),
        ({**BARE, **GONE}, Leave()),
        ({**BARE, "status__phase": "Pending"}, Leave()),
        (GONE, Leave()),
        ({"status__phase": "Failed"}, Leave()),
        ({**RELEASED, "spec__csi__volumeHandle": ""}, Blocked("invalid CSI PV")),
    ],
)
def test_the_end_of_a_persistent_volume(changes: dict[str, Any], expected: object) -> None:
    assert persistent_volume.reclaim(given.volume(**changes), given.DRIVER) == expected


def test_what_stands_in_the_way_of_a_deletion() -> None:
    volume = given.volume(**RELEASED)
    attached = persistent_volume.reclaim(volume, given.DRIVER, attached_to=["n2", "n1"])
    assert attached == Blocked(f"persistentvolume {given.NAME} is still attached to node n1")
    shared = persistent_volume.reclaim(volume, given.DRIVER, sharing=["pv-2"])
    assert isinstance(shared, Blocked)
    assert "pv-2, which is to stay" in shared.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1Gi", 1 << 30), ("1.5Gi", 3 << 29), ("100M", 10**8), ("1e9", 10**9), ("0.1", 1), ("1500m", 2), ("5", 5)],
)
def test_amounts(text: str, expected: int) -> None:
    assert amounts.parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "1e999", "x" * 100, "1iG"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="no amount"):
        amounts.parse_bytes(text)
