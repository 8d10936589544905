"""How `snapbridge nomad run` ends for a version that has no deployment to follow: by its evaluations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from adapters.nomad.commands import run
from adapters.nomad.commands.operator import Operator
from bridge.ports.commands import Call, Exit, Json, StopError

JOB: Json = {"ID": "nightly", "Namespace": "default", "Type": "batch"}


class Agent:
    """An agent with this one job, whose last version was registered at index 20."""

    def __init__(self, *statuses: str) -> None:
        self.evaluations = [{"JobModifyIndex": 20, "Status": status} for status in statuses]

    def get(self, path: str, query: Json, what: str) -> Any:
        if path.endswith("/deployment"):
            return None
        if path.endswith("/evaluations"):
            return [{"JobModifyIndex": 7, "Status": "blocked"}, *self.evaluations]
        return {**JOB, "Version": 3, "JobModifyIndex": 20, "ModifyIndex": 23}


def told(*statuses: str) -> int:
    values = {"detach": False, "timeout": 0.2}
    terminal = SimpleNamespace(say=lambda _text: None, note=lambda _text: None)
    call = SimpleNamespace(values=values, terminal=terminal)
    return run._tell(cast(Call, call), cast(Operator, Agent(*statuses)), JOB)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PLACED_SECONDS", -1.0)
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.01)


@pytest.mark.parametrize("statuses", [("complete",), ("complete", "canceled"), ("failed", "complete")])
def test_a_version_that_was_placed_is_done(statuses: tuple[str, ...]) -> None:
    assert told(*statuses) == Exit.DONE


@pytest.mark.parametrize(
    ("statuses", "code", "words"),
    [
        (("complete", "blocked"), Exit.FAILED, "its evaluation is blocked"),
        (("failed",), Exit.FAILED, "its evaluation is failed"),
        (("complete", "pending"), Exit.TIMED_OUT, "not healthy after 0.2 s"),
        ((), Exit.TIMED_OUT, "not healthy after 0.2 s"),
    ],
)
def test_a_version_that_was_not_is_no_success(statuses: tuple[str, ...], code: Exit, words: str) -> None:
    with pytest.raises(StopError, match=words) as stop:
        told(*statuses)
    assert stop.value.code == code
