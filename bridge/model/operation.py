"""Operations: work that takes longer than one answer, as people and the API see it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from bridge.model.failure import Failure


class OperationState(enum.Enum):
    """Where an operation stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One finished or current step, in order. `at` is seconds since the epoch."""

    name: str
    at: float
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One create, delete or restore. `target` is the key or name of what it works on, `result` its outcome."""

    id: str
    verb: str
    cluster: str
    namespace: str
    target: str
    state: OperationState
    created_at: float
    updated_at: float
    asked_by: str = ""
    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    result: Mapping[str, str] = dataclasses.field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    failure: Failure | None = None
    version: str = ""
