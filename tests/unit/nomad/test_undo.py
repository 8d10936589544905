"""`snapbridge nomad undo` ends with 0 only when the version runs with its data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from adapters.nomad.commands import undo
from bridge.ports.commands import Call, Exit, Json, StopError

SNAPSHOT: Json = {
    "uid": "s-1", "name": "data-v3", "volume": "data", "ready": True, "createdAt": "2026-01-01T00:00:00Z",
    "cutAt": "2026-01-01T00:00:00Z",
    "labels": {"run": "r", "job": "web", "job_version": "3", "job_created": "7"},
}  # fmt: skip


class Desk:
    """A service with one snapshot of one run, whose revert ends with this note."""

    def __init__(self, note: str, snapshots: tuple[Json, ...] = (SNAPSHOT,)) -> None:
        self.snapshots = snapshots
        self.asked: list[tuple[str, Json]] = []
        self.queries: list[Json] = []
        self.ended: Json = {
            "id": "o-1", "state": "done", "steps": [{"name": "done", "note": note}],
            "result": {"kept": "data-before"},
        }  # fmt: skip
        self.said: list[str] = []

    def items(self, path: str, query: Json) -> list[Json]:
        self.queries.append(query)
        return list(self.snapshots)

    def post(self, path: str, body: Json, *, key: str) -> Json:
        self.asked.append((path, body))
        return {"operation": self.ended}

    def follow(self, service: Any, operation: Json, **_: Any) -> Json:
        return operation


def undone(note: str, desk: Desk | None = None, **given: Any) -> tuple[int, list[str]]:
    desk = desk or Desk(note)
    values = {
        "job": "web", "namespace": "", "cluster": "", "to_version": None, "yes": True, "dry_run": False,
        "timeout": 1.0, **given,
    }  # fmt: skip
    terminal = SimpleNamespace(follow=desk.follow, say=desk.said.append, note=lambda _text: None)
    call = SimpleNamespace(values=values, environ={}, connect=lambda: desk, terminal=terminal)
    return undo.COMMAND.run(cast(Call, call)), desk.said  # type: ignore[misc]


def test_the_version_with_its_data_is_0() -> None:
    code, said = undone("")
    assert code == Exit.DONE
    assert "what its version 3 was" in said[0]


def test_a_job_that_somebody_else_stopped_or_started_is_not() -> None:
    with pytest.raises(StopError) as stop:
        undone("job web was stopped by somebody else and is left so")
    assert stop.value.code == Exit.PARTIAL
    assert "was stopped by somebody else" in stop.value.message
    assert "data-before" in stop.value.hint


def labelled(uid: str, created: str, **labels: str) -> Json:
    return {**SNAPSHOT, "uid": uid, "createdAt": created, "labels": {**SNAPSHOT["labels"], **labels}}


def test_version_0_is_a_version_and_the_newest_run_of_it_counts() -> None:
    rows = (
        labelled("old", "2026-01-01", job_version="0", run="a"),
        labelled("new", "2026-01-03", job_version="0", run="b"),
        labelled("other", "2026-01-09", job_version="1", run="c"),
    )
    desk = Desk("", rows)
    assert undone("", desk, to_version=0)[0] == Exit.DONE
    ((path, body),) = desk.asked
    assert (path, body["version"]) == ("/v1/snapshots/new/revert", "0@7")
    with pytest.raises(StopError, match="no snapshots of version 4") as stop:
        undone("", Desk("", rows), to_version=4)
    assert stop.value.code == Exit.NOT_FOUND


def test_labels_that_people_have_put_on_are_no_run() -> None:
    theirs = {**SNAPSHOT, "uid": "theirs", "createdAt": "2026-02-01", "labels": {"job": "web", "run": "mine"}}
    desk = Desk("", (theirs, SNAPSHOT))
    assert undone("", desk)[0] == Exit.DONE
    assert desk.asked[0][0] == "/v1/snapshots/s-1/revert"
    with pytest.raises(StopError, match="there are no snapshots that") as stop:
        undone("", Desk("", (theirs,)))
    assert stop.value.code == Exit.NOT_FOUND


def test_a_job_whose_id_no_selector_can_hold() -> None:
    desk = Desk("", (SNAPSHOT, labelled("its", "2026-01-02", job="a,b")))
    assert undone("", desk, job="a,b")[0] == Exit.DONE
    assert desk.queries == [{"namespace": "default"}]
    assert desk.asked[0][0] == "/v1/snapshots/its/revert"
