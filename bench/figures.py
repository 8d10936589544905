"""Figures of one run, and the table that people read. `bench.json` holds the same, one object per row."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One figure of both sides. `ratio` is ours over theirs."""

    name: str
    unit: str
    ours: float
    incumbent: float | None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.incumbent if self.incumbent else None


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What one batch on one side cost. Times in seconds, CPU in milliseconds per snapshot."""

    create_rate: float
    delete_rate: float
    create_writes: float
    create_reads: float
    delete_writes: float
    delete_reads: float
    apiserver_cpu: float
    own_cpu: float
    driver_cpu: float
    memory_mib: float
    idle_latency: float


NAMES = {
    "create_rate": ("snapshots created and ready, {n} at once", "1/s"),
    "delete_rate": ("snapshots deleted, {n} at once", "1/s"),
    "create_writes": ("API writes per create", "requests"),
    "create_reads": ("API reads (GET and LIST) per create", "requests"),
    "delete_writes": ("API writes per delete", "requests"),
    "delete_reads": ("API reads per delete", "requests"),
    "apiserver_cpu": ("API server CPU per snapshot (create)", "ms"),
    "own_cpu": ("own CPU per snapshot (create)", "ms"),
    "driver_cpu": ("driver CPU per snapshot (create)", "ms"),
    "memory_mib": ("resident memory at the end", "MiB"),
    "idle_latency": ("one snapshot, idle system: created to ready", "s"),
}


def rows(ours: Sequence[Batch], incumbent: Sequence[Batch], snapshots: int) -> list[Row]:
    """The median of the rounds of each side, figure by figure."""
    table = []
    for field, (title, unit) in NAMES.items():
        mine = statistics.median(getattr(batch, field) for batch in ours)
        theirs = statistics.median(getattr(batch, field) for batch in incumbent)
        table.append(Row(title.format(n=snapshots), unit, mine, theirs))
    return table


def write(path: Path, table: Iterable[Row]) -> None:
    """`bench.json`: a list of name, unit, ours, incumbent, ratio."""
    plain = [{**dataclasses.asdict(row), "ratio": row.ratio} for row in table]
    path.write_text(json.dumps(plain, indent=2) + "\n")


def render(table: Sequence[Row]) -> str:
    """The same as text."""
    lines = [f"{'figure':<52} {'unit':>8} {'ours':>10} {'incumbent':>10} {'ratio':>7}"]
    for row in table:
        theirs = "-" if row.incumbent is None else f"{row.incumbent:.3g}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(f"{row.name:<52} {row.unit:>8} {row.ours:>10.3g} {theirs:>10} {ratio:>7}")
    return "\n".join(lines)
