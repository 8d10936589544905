"""What a summary variable holds, and that it always fits."""

from __future__ import annotations

import dataclasses

from adapters.nomad.decide import summary
from bridge.model.snapshot import DeletionPolicy, SnapshotState, SnapshotStatus

LAST = summary.Last("web-data-v1", "uid-1", "deploy of version 1", "nomad job web", DeletionPolicy.DELETE)


def with_state(state: SnapshotState) -> summary.Last:
    return dataclasses.replace(LAST, status=SnapshotStatus(state))


def test_without_anything_to_tell_it_is_short() -> None:
    found = summary.items(summary.Facts("default", "web", 3))
    assert found == {
        "managed_by": "snapbridge", "job_version": "3", "problems": "none",
        "command": "snapbridge snapshot list --job web",
    }  # fmt: skip
    assert summary.is_ours(found)
    assert not summary.is_ours({"managed_by": "me"})


def test_a_volume_without_a_snapshot_says_so_and_one_that_waits_says_for_what() -> None:
    lines = [
        summary.VolumeLine("a"),
        summary.VolumeLine("b", None, "who knows"),
        summary.VolumeLine("c", LAST, "more"),
    ]
    found = summary.items(summary.Facts("default", "web", 3, lines))
    assert found["volume.a"] == "no snapshot yet"
    assert found["volume.b"] == "next: who knows"
    assert found["volume.c"].startswith("asked: web-data-v1\n")
    assert found["volume.c"].endswith("\nnext: more")


def test_it_never_grows_beyond_what_a_variable_takes() -> None:
    lines = [summary.VolumeLine(f"volume-{number}[{number}]", LAST, "ü" * 4000) for number in range(500)]
    facts = summary.Facts("default", "web", 3, lines, ["世" * 9000] * 3, ["界" * 9000], "https://x")
    assert_fits(summary.bounded(summary.items(facts)), 500)


def test_what_is_carried_over_from_before_a_restart_fits_too() -> None:
    """A refused write would be tried again for ever, and the summary stay what it was."""
    lines = [summary.VolumeLine(f"volume-{number}", with_state(SnapshotState.READY)) for number in range(300)]
    full = summary.bounded(summary.items(summary.Facts("default", "web", 3, lines, [], [], "https://x" + "y" * 60)))
    assert "more" in full
    wrong = ["世" * 9000]
    unknown = [summary.VolumeLine(one.volume) for one in lines]
    after = summary.items(summary.Facts("default", "web", 4, unknown, wrong))
    carried = summary.carried(full, [line.volume for line in lines])
    assert carried
    assert_fits(summary.bounded({**after, **carried}), 300)


def assert_fits(found: dict[str, str], volumes: int) -> None:
    """Below what Nomad takes, and nothing is left out in silence."""
    assert sum(len((key + value).encode()) for key, value in found.items()) <= 64 * 1024
    shown = [key for key in found if key.startswith("volume.")]
    assert found["more"].startswith(f"{volumes - len(shown)} more volumes")
    assert shown


def test_what_still_moves_is_followed_and_what_rests_is_not() -> None:
    for state in SnapshotState:
        rests = state in (SnapshotState.READY, SnapshotState.RETAINED, SnapshotState.GONE)
        assert summary.VolumeLine("v", with_state(state)).settled is rests, state
    assert summary.VolumeLine("v").settled
    assert not summary.VolumeLine("v", LAST).settled
    assert not summary.VolumeLine("v", with_state(SnapshotState.READY), "waits").settled


def test_only_what_rested_is_carried_over() -> None:
    old = {
        "volume.a": "ready: one",
        "volume.b": "cutting: two",
        "volume.c": "ready: three",
        "managed_by": "snapbridge",
    }
    assert summary.carried(old, ["a", "b", "d"]) == {"volume.a": "ready: one"}


def test_an_impossible_cut_time_is_left_out() -> None:
    for at in (None, 0, -5, 10**30):
        last = dataclasses.replace(LAST, status=SnapshotStatus(SnapshotState.READY, cut_at_ns=at))
        found = summary.items(summary.Facts("default", "web", 1, [summary.VolumeLine("v", last)]))
        assert "cut:" not in found["volume.v"]
