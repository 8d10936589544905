"""`snapbridge group …`: what the commands print and do, over the desk in memory."""

from __future__ import annotations

import json


def made(run, *more):
    return run("group", "create", "web", "--volume", "db", "--volume", "logs", *more)


def test_create_says_what_it_has_done_and_how_far_apart(run):
    result = made(run, "--wait", "--max-skew", "2s")
    assert result.code == 0, result.err
    assert result.out == "group east/default/web ready: 2 volumes, cut 0.004 s apart\n"


def test_create_without_wait_says_that_it_is_only_on_record(run):
    result = made(run)
    assert result.out == "group east/default/web requested\n"
    assert "not cut yet" in result.err


def test_the_volumes_are_named_or_their_user_is(run):
    for words in ((), ("--volume", "db", "--job", "web")):
        result = run("group", "create", "web", *words)
        assert result.code == 2
        assert "--job" in result.err
    assert run("group", "create", "web", "--job", "nobody").code == 4


def test_list_and_describe_show_the_group_and_its_snapshots(run):
    made(run, "--wait")
    table = run("group", "list").out.splitlines()
    assert table[0].split()[:5] == ["ID", "CLUSTER", "NAMESPACE", "NAME", "VOLUMES"]
    assert table[1].split()[3:8] == ["web", "2", "ready", "true", "barrier"]
    assert run("get", "groups").out.splitlines()[0] == table[0]
    shown = run("describe", "group", "web").out
    assert "barrier" in shown
    assert "0.004 s" in shown
    assert "web-db" in shown
    found = json.loads(run("group", "describe", "east/default/web", "-o", "json").out)
    assert [one["volume"] for one in found["members"]] == ["db", "logs"]
    listed = json.loads(run("snapshot", "list", "-l", "group=web", "-o", "json").out)
    assert len(listed["items"]) == 2


def test_delete_takes_the_name_or_the_whole_uid(run):
    made(run, "--wait")
    uid = json.loads(run("group", "describe", "web", "-o", "json").out)["uid"]
    assert run("group", "delete", uid[:6]).code != 0
    result = run("group", "delete", "web")
    assert result.code == 0, result.err
    assert result.out == "group east/default/web deleted\n"
    assert run("group", "describe", "web").code != 0
    assert json.loads(run("snapshot", "list", "-o", "json").out)["items"] == []
