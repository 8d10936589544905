"""What `snapshot list --foreign` and `snapshot adopt` print and ask for."""

from __future__ import annotations

import json

import pytest

from bridge.cli import exits
from bridge.cli.snapshot_foreign import name_for
from bridge.model.snapshot import CutSnapshot
from bridge.model.view import ForeignSnapshot
from bridge.model.volume import Volume
from tests.support.desk import DRIVER

DB = Volume("east", "default", "db", DRIVER, "vol-db")


@pytest.fixture
def held(server):
    server.desk.foreign = [
        ForeignSnapshot(DRIVER, CutSnapshot("snap/1[0]", "vol-db", True, 1 << 30, 1_763_000_000 * 10**9), (DB,)),
        ForeignSnapshot(DRIVER, CutSnapshot("snap-2", "vol-x", True)),
    ]
    return server


def test_foreign_snapshots_are_listed_and_a_plugin_that_cannot_list_is_told_without_an_error(run, held):
    result = run("snapshot", "list", "--foreign")
    assert result.code == 0
    assert "snap/1[0]" in result.out
    assert "east/default/db" in result.out
    assert "'rbd.csi.ceph.com' cannot list: records only" in result.err
    found = json.loads(run("snapshot", "list", "--foreign", "--driver", DRIVER, "--json").out)
    assert [item["handle"] for item in found["items"]] == ["snap/1[0]", "snap-2"]
    assert (
        run("snapshot", "list", "--foreign", "--cluster", "east", "--limit", "1", "-o", "name").out == "snap/1[0]\n"
    )
    of_db = run("snapshot", "list", "--foreign", "--driver", DRIVER, "--volume", "db", "-o", "name")
    assert of_db.out == "snap/1[0]\n"
    for words in (("--job", "web"), ("--state", "ready"), ("-l", "a=b"), ("--node", "n1"), ("REF",)):
        assert run("snapshot", "list", "--foreign", *words).code == exits.USAGE
    only = run("snapshot", "list", "--foreign", "--driver", "rbd.csi.ceph.com")
    assert (only.code, only.out) == (0, "")


def test_a_volume_whose_driver_nobody_knows_does_not_stop_the_list(run, held):
    held.desk._volumes.append(Volume("east", "default", "lost", "", "vol-lost"))
    found = run("snapshot", "list", "--foreign", "--cluster", "east", "-o", "name")
    assert (found.code, found.out) == (0, "snap/1[0]\nsnap-2\n"), found.err


def test_adopting_one(run, held):
    result = run("snapshot", "adopt", "snap/1[0]", "mine", "--driver", DRIVER, "--volume", "db", "--why", "audit")
    assert result.out == "snapshot east/default/mine adopted\n"
    (draft,) = held.desk.drafts
    assert (draft.adopt_handle, draft.volume, draft.policy.value) == ("snap/1[0]", "db", "Retain")
    run("snapshot", "adopt", "snap-2", "--driver", DRIVER, "--policy", "Delete")
    assert (held.desk.drafts[1].name, held.desk.drafts[1].policy.value) == ("adopted-snap-2", "Delete")


def test_adopting_all_of_a_driver_after_a_dry_run(run, held):
    dry = run("snapshot", "adopt", "--foreign", "--driver", DRIVER, "--all", "--dry-run")
    assert "adopted-snap-1-0" in dry.out
    assert held.desk.drafts == []
    result = run("snapshot", "adopt", "--foreign", "--driver", DRIVER, "--all")
    assert result.code == 0
    assert result.out.count("adopted\n") == 2
    assert [(draft.adopt_handle, draft.volume) for draft in held.desk.drafts] == [("snap/1[0]", "db"), ("snap-2", "")]
    again = run("snapshot", "adopt", "--foreign", "--driver", DRIVER, "--all")
    assert (again.code, again.out, again.err) == (0, "", "Nothing to adopt.\n")


def test_one_of_several_that_cannot_be_adopted_is_told_and_the_others_are(run, held):
    held.desk.add("adopted-snap-1-0")
    result = run("snapshot", "adopt", "--foreign", "--driver", DRIVER, "--all")
    assert result.code == exits.PARTIAL
    assert "snap/1[0]: " in result.err
    assert result.out == "snapshot east/default/adopted-snap-2 adopted\n"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("snap-2",),
        ("--foreign", "--driver", DRIVER),
        ("--foreign", "--all"),
        ("snap-2", "--foreign", "--all", "--driver", DRIVER),
        ("snap-2", "--all", "--driver", DRIVER),
    ],
)
def test_halves_of_a_wish_are_refused(run, held, words):
    assert run("snapshot", "adopt", *words).code == exits.USAGE
    assert held.desk.drafts == []


def test_names_for_handles_of_every_kind():
    assert name_for("///") == "adopted-snapshot"
    assert len(name_for("x" * 1000)) < 253
