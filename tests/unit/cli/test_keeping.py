"""What `snapshot pin`, `unpin`, `set-policy`, `volume clone` and the filters of `snapshot list` print and ask for."""

from __future__ import annotations

import json

from bridge.cli import exits


def test_a_pin_is_told_where_somebody_wants_to_delete(run, server):
    server.desk.add("kept")
    assert run("snapshot", "pin", "kept", "--reason", "the audit").out == "snapshot east/default/kept pinned\n"
    refused = run("snapshot", "delete", "kept", "--yes")
    assert refused.code == exits.CONFLICT
    assert "pinned by local: the audit" in refused.err
    assert "unpin" in refused.err
    assert "pinned by local: the audit" in run("snapshot", "list", "-o", "wide").out
    assert "Pinned:" in run("snapshot", "describe", "kept").out
    assert run("snapshot", "unpin", "kept").out == "snapshot east/default/kept unpinned\n"
    assert run("snapshot", "unpin", "kept").out == "snapshot east/default/kept was not pinned\n"
    assert run("snapshot", "delete", "kept", "--yes").code == 0


def test_create_with_a_pin(run, server):
    run("snapshot", "create", "db", "a", "--pin", "--why", "release 7")
    assert (server.desk.drafts[0].pin, server.desk.drafts[0].why) == (True, "release 7")


def test_set_policy(run, server):
    server.desk.add("one")
    result = run("snapshot", "set-policy", "one", "retain")
    assert result.out == "snapshot east/default/one has the deletion policy Retain\n"
    assert json.loads(run("snapshot", "set-policy", "one", "Delete", "--json").out)["deletionPolicy"] == "Delete"
    assert run("snapshot", "set-policy", "one", "Keep").code == exits.USAGE


def test_list_by_who_had_the_volume(run, server):
    for name in ("mine", "other"):
        server.desk.add(name)
    server.desk.show_users(
        "mine", {"job": ("web",), "allocation": ("e3b0c442-98fc-1c14-9afb-f4c8996fb924",), "node": ("n1",)}
    )
    for words in (("--job", "web"), ("--node", "n1"), ("--allocation", "e3b0c442"), ("--used-by", "node=n1")):
        found = json.loads(run("snapshot", "list", *words, "--json").out)["items"]
        assert [item["name"] for item in found] == ["mine"], words
    assert run("snapshot", "list", "--job", "db").err == "No snapshots found.\n"
    wide = run("snapshot", "list", "-o", "wide", "--job", "web").out
    assert "job=web" in wide
    refused = run("snapshot", "list", "--job", "a,b")
    assert refused.code == exits.USAGE
    assert "comma" in refused.err


def test_a_restore_with_every_option(run, server):
    server.desk.add("good")
    run(
        "snapshot", "restore", "good", "--as", "again", "--size", "3Gi", "--access-mode", "multi-node-multi-writer",
        "--attachment-mode", "block-device", "--parameter", "pool=b", "--topology", "zone=a,rack=7",
        "--topology", "zone=b", "--secret", "env:CEPH",
    )  # fmt: skip
    (wish,) = server.desk.wishes
    assert [mode.value for mode in wish.access_modes] == ["MULTI_NODE_MULTI_WRITER"]
    assert (wish.mode.value, wish.capacity_bytes, dict(wish.parameters)) == ("Block", 3 << 30, {"pool": "b"})
    assert [dict(place) for place in wish.topology] == [{"zone": "a", "rack": "7"}, {"zone": "b"}]
    assert str(wish.secret) == "env:CEPH"


def test_a_restore_that_is_smaller_than_its_snapshot_is_refused(run, server):
    server.desk.add("good")
    refused = run("snapshot", "restore", "good", "--as", "again", "--size", "1Mi")
    assert refused.code == exits.USAGE
    assert "less than the snapshot" in refused.err
    assert run("snapshot", "restore", "good", "--as", "again", "--topology", "zone").code == exits.USAGE
    refused = run("snapshot", "restore", "good", "--as", "again", "--secret", "plain")
    assert refused.code == exits.USAGE
    assert "secret: not a secret reference" in refused.err


def test_clone(run, server):
    result = run("volume", "clone", "db", "--as", "db-test", "--size", "20Gi", "--wait")
    assert result.out == "volume db-test cloned from db\n"
    (wish,) = server.desk.wishes
    assert (wish.cluster, wish.namespace, wish.volume, wish.like.name) == ("east", "default", "db", "db-test")
    assert run("volume", "clone", "data[0]", "--as", "x").code == exits.NOT_FOUND


def test_abandoning_an_operation(run, server):
    server.desk.by_hand = True
    server.desk.add("good")
    operation = json.loads(run("snapshot", "restore", "good", "--as", "again", "--json").out)["id"]
    result = run("op", "abandon", operation, "--yes")
    assert result.out == "restore east/snapshot/" + server.desk.view("good").key.uid + " will end\n"
    assert f"op watch {operation}" in result.err
    server.desk.advance()
    assert "it was abandoned (ABANDONED)" in run("op", "watch", operation).err
    assert run("op", "abandon", operation, "--yes").code == exits.CONFLICT
