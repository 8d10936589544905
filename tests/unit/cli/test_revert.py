"""What `snapshot revert` and `op acknowledge` print, ask for and end with."""

from __future__ import annotations

import json

from bridge.cli import exits


def test_a_dry_run_shows_who_is_stopped_and_the_steps(run, server):
    server.desk.add("good")
    shown = run("snapshot", "revert", "good", "--dry-run")
    assert shown.code == 0
    assert shown.out.splitlines() == [
        "Stopped for about 15 s: job web: group g (1)",
        "  1. make a new volume from the snapshot 'good' of 'db'",
        "  2. stop it",
        "  3. start it again",
    ]
    assert json.loads(run("snapshot", "revert", "good", "--dry-run", "--json").out)["keeps"] == ["db-before-UID"]
    assert "revert_snapshot" not in server.desk.calls


def test_off_a_terminal_it_wants_a_yes(run, server):
    server.desk.add("good")
    refused = run("snapshot", "revert", "good")
    assert refused.code == exits.USAGE
    assert "--yes" in refused.err
    assert "revert_snapshot" not in server.desk.calls


def test_it_waits_and_says_what_is_kept_and_how_to_let_it_go(run, server):
    server.desk.add("good")
    done = run("snapshot", "revert", "good", "--yes", "--wait")
    assert (done.code, done.out) == (0, "volume db reverted to east/default/good\n")
    assert "db-before-5eed" in done.err
    operation = run("op", "list", "-o", "name").out.split()[0]
    assert f"snapbridge op acknowledge {operation} --delete" in done.err

    refused = run("op", "acknowledge", operation, "--delete")
    assert refused.code == exits.USAGE
    assert "db-before-5eed" in refused.err
    kept = run("op", "acknowledge", operation)
    assert kept.out == f"revert {operation} acknowledged; db-before-5eed is yours to keep\n"
    assert run("op", "acknowledge", operation).code == exits.CONFLICT


def test_without_waiting_it_is_told_that_nothing_is_done_yet(run, server):
    server.desk.add("good")
    asked = run("snapshot", "revert", "good", "--yes")
    assert asked.out.startswith("revert of ")
    assert asked.out.endswith(" requested\n")
    assert "not done yet" in asked.err


def test_a_snapshot_that_is_not_ready_is_refused(run, server):
    server.desk.add("early", ready=False)
    assert run("snapshot", "revert", "early", "--yes").code == exits.CONFLICT
