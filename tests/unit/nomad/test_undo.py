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

    def __init__(self, note: str) -> None:
        self.ended: Json = {
            "id": "o-1", "state": "done", "steps": [{"name": "done", "note": note}],
            "result": {"kept": "data-before"},
        }  # fmt: skip
        self.said: list[str] = []

    def items(self, path: str, query: Json) -> list[Json]:
        return [SNAPSHOT]

    def post(self, path: str, body: Json, *, key: str) -> Json:
        return {"operation": self.ended}

    def follow(self, service: Any, operation: Json, **_: Any) -> Json:
        return operation


def undone(note: str) -> tuple[int, list[str]]:
    desk = Desk(note)
    values = {
        "job": "web", "namespace": "", "cluster": "", "to_version": None, "yes": True, "dry_run": False,
        "timeout": 1.0,
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
