"""A revert's journal as JSON in its operation's row, and back. Nothing is decided here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.decide.revert import Journal
from bridge.model.failure import Failure, FailureKind
from bridge.model.operation import Operation
from bridge.model.revert import Swap, Workload

JOURNAL, SWAPS = "journal", "swaps"


def dump(journal: Journal) -> str:
    """The journal as text."""
    return json.dumps(dataclasses.asdict(journal), default=lambda kind: kind.value, sort_keys=True)


def load(operation: Operation) -> Journal:
    """The journal of an operation; before its first step, what was asked for."""
    text = operation.result.get(JOURNAL)
    if not text:
        return Journal(swaps(operation.arguments[SWAPS]))
    values = json.loads(text)
    values["swaps"] = _swaps(values["swaps"])
    values["workload"] = Workload(**values["workload"]) if values["workload"] else None
    for field in ("failure", "doomed"):
        values[field] = _failure(values[field])
    return Journal(**values)


def dump_swaps(given: Sequence[Swap]) -> str:
    """Swaps as text."""
    return json.dumps([dataclasses.asdict(swap) for swap in given], sort_keys=True)


def swaps(text: str) -> tuple[Swap, ...]:
    """Swaps from text."""
    return _swaps(json.loads(text))


def _swaps(rows: Sequence[Mapping[str, Any]]) -> tuple[Swap, ...]:
    return tuple(Swap(**row) for row in rows)


def _failure(values: dict[str, Any] | None) -> Failure | None:
    return Failure(**{**values, "kind": FailureKind(values["kind"])}) if values else None
