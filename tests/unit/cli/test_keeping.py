"""What `snapshot pin`, `unpin`, `set-policy` and the filters of `snapshot list` print and ask for."""

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
