"""How it is learnt that a cut snapshot is ready: the best way that each shape of plugin has, on both routes."""

from __future__ import annotations

import dataclasses

import pytest

from bridge.decide import action as act
from bridge.decide import snapshot
from bridge.model.failure import Failure, FailureKind
from bridge.model.keys import snapshot_key
from bridge.model.outcome import Done, Failed
from bridge.model.plugin import Capability, PluginView, Route
from bridge.model.snapshot import (
    CutSnapshot,
    DeletionPolicy,
    HandleSource,
    Note,
    Record,
    SnapshotRequest,
    VolumeSource,
    Wish,
)

NOW = 1000.0
CUT, GET, LIST = Capability.CREATE_DELETE_SNAPSHOT, Capability.GET_SNAPSHOT, Capability.LIST_SNAPSHOTS
NOTE = Note("snapshot-u", "v", writer="me")
UNAVAILABLE = Failure(FailureKind.UNSURE, "UNAVAILABLE", "the plugin restarts")
MISSING = Failure(FailureKind.REFUSED, "NOT_FOUND", "not in the list")

INSPECT = act.Inspect("h", snapshot.Record("d", VolumeSource("v"), "n", DeletionPolicy.DELETE).secrets.inspect)
ASSUME = dataclasses.replace(INSPECT, assume_ready=True)
REPEAT = act.Create(NOTE)


def seen(able: set[Capability], route: Route, record: Record) -> snapshot.Observed:
    view = PluginView("d", True, True, frozenset({CUT, *able}), route=route)
    request = SnapshotRequest(
        snapshot_key("c", "u"), Wish.PRESENT, "ns", "one", "d", record.source, "snapshot-u", held=True
    )
    return snapshot.Observed(request, record, view, "me")


def cut(**more: object) -> Record:
    record = Record("d", VolumeSource("v"), "snapshot-u", DeletionPolicy.DELETE, note=NOTE, handle="h", polls=1)
    return dataclasses.replace(record, **more)  # type: ignore[arg-type]


def adopted() -> Record:
    return Record("d", HandleSource("h"), "snapshot-u", DeletionPolicy.DELETE, handle="h")


@pytest.mark.parametrize("route", [Route.SOCKET, Route.NODE_AGENT])
@pytest.mark.parametrize(
    ("able", "made_by_us", "taken_over"),
    [
        ({GET, LIST}, INSPECT, INSPECT),
        ({GET}, INSPECT, INSPECT),
        ({LIST}, INSPECT, INSPECT),
        (set(), REPEAT, ASSUME),
    ],
)
def test_the_plugin_itself_is_asked_in_the_best_way_that_it_has(
    able: set[Capability], made_by_us: act.Action, taken_over: act.Action, route: Route
) -> None:
    assert snapshot.decide(seen(able, route, cut()), NOW) == made_by_us
    assert snapshot.decide(seen(able, route, adopted()), NOW) == taken_over


@pytest.mark.parametrize(("able", "made_by_us", "taken_over"), [({LIST}, REPEAT, INSPECT), (set(), REPEAT, ASSUME)])
def test_an_orchestrators_api_has_no_filter_so_its_list_comes_last(
    able: set[Capability], made_by_us: act.Action, taken_over: act.Action
) -> None:
    assert snapshot.decide(seen(able, Route.ORCHESTRATOR, cut()), NOW) == made_by_us
    assert snapshot.decide(seen(able, Route.ORCHESTRATOR, adopted()), NOW) == taken_over


def test_a_list_shows_no_errors_so_each_fourth_look_asks_the_create() -> None:
    steps = [snapshot.decide(seen({LIST}, Route.SOCKET, cut(polls=polls)), NOW) for polls in range(1, 9)]
    assert [isinstance(step, act.Create) for step in steps] == [False, False, False, True] * 2


def test_a_snapshot_that_the_list_does_not_show_yet_is_asked_for_by_its_name() -> None:
    step = snapshot.decide(seen({LIST}, Route.SOCKET, cut(failure=MISSING, failures=1)), NOW)
    assert step == REPEAT


@pytest.mark.parametrize("route", list(Route))
@pytest.mark.parametrize("shown_after", [1, 4])
def test_a_source_that_is_deleted_after_the_cut_keeps_no_snapshot_from_becoming_ready(
    route: Route, shown_after: int
) -> None:
    """A last snapshot, then the volume goes: the create is refused from then on, and only the list still knows."""
    record, now, looks = cut(polls=3), NOW, 0
    for _ in range(20):
        step = snapshot.decide(seen({LIST}, route, record), now)
        if isinstance(step, act.Wait):
            now = record.retry_at
            continue
        if isinstance(step, act.Create):
            record = snapshot.fold(seen({LIST}, route, record), step, Failed(MISSING), now)
            continue
        assert isinstance(step, act.Inspect), step
        looks += 1
        answer = Done(CutSnapshot("h", "v", looks >= shown_after))
        record = snapshot.fold(seen({LIST}, route, record), step, answer, now)
        if record.ready:
            return
    raise AssertionError(f"not ready after {looks} looks at the list: {record}")


@pytest.mark.parametrize("step", [INSPECT, REPEAT])
def test_a_look_that_failed_is_repeated_on_the_plugins_own_schedule(step: act.Action) -> None:
    record = cut()
    delays = []
    for _ in range(6):
        record = snapshot.fold(seen({GET}, Route.SOCKET, record), step, Failed(UNAVAILABLE), NOW)
        delays.append(round(record.retry_at - NOW, 3))
        assert record.handle == "h"
        assert record.failure == UNAVAILABLE
    assert delays == [0.375, 0.562, 0.844, 1.266, 1.898, 2.848], "the poll's pace, not 1, 2, 4 … 300 s"


def test_a_look_that_was_refused_backs_off_like_any_error() -> None:
    record = cut()
    for _ in range(5):
        record = snapshot.fold(seen({GET}, Route.SOCKET, record), INSPECT, Failed(MISSING), NOW)
    assert record.retry_at - NOW == 16.0


def test_a_create_that_failed_before_the_cut_backs_off_like_any_error() -> None:
    record = cut(handle="", note_open=True, polls=0)
    for _ in range(5):
        record = snapshot.fold(seen({GET}, Route.SOCKET, record), REPEAT, Failed(UNAVAILABLE), NOW)
    assert record.retry_at - NOW == 16.0


def test_the_answer_that_it_is_ready_ends_the_looking() -> None:
    record = snapshot.fold(
        seen({GET}, Route.SOCKET, cut(failure=UNAVAILABLE, failures=2)),
        INSPECT,
        Done(CutSnapshot("h", "v", True)),
        NOW,
    )
    assert record.ready
    assert (record.failure, record.failures, record.polls, record.retry_at) == (None, 0, 0, 0.0)
