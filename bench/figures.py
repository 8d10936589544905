"""Figures of one run, and the table that people read. `bench.json` holds the same, one object per row."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.shapes import Batch, GroupReading, Reading


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One figure of both sides. `ratio` is ours over theirs."""

    name: str
    unit: str
    ours: float
    incumbent: float | None
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.incumbent if self.incumbent else None


GOALS = {
    "create_rate": ">= 2 x",
    "create_writes": "<= 8",
    "create_reads": "0",
    "delete_writes": "<= 4",
    "apiserver_cpu": "<= 35 %",
    "own_cpu": "<= 3.5",
    "memory_mib": "<= 114",
    "idle_latency": "<= 50 %",
}

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


CROWD_NAMES = {
    "first_ready_seconds": ("start of the process to the first ready", "s"),
    "start_cpu_ms": ("CPU of a start", "ms"),
    "new_seconds": ("a new one, created to ready", "s"),
    "new_cpu_ms": ("own CPU of a new one", "ms"),
    "memory_mib": ("resident memory", "MiB"),
}
CROWD_GOALS = {"first_ready_seconds": "<= 3", "new_seconds": "<= 0.1", "memory_mib": "<= 172"}
CROWD_OF_GOALS = 15_000


def rows(ours: Sequence[Batch], incumbent: Sequence[Batch], snapshots: int) -> list[Row]:
    """The median of the rounds of each side, figure by figure."""
    table = []
    for field, (title, unit) in NAMES.items():
        mine = statistics.median(getattr(batch, field) for batch in ours)
        theirs = statistics.median(getattr(batch, field) for batch in incumbent)
        table.append(Row(title.format(n=snapshots), unit, mine, theirs, GOALS.get(field, "")))
    return table


WAYS = {
    "split": ("create_rate", "create_writes", "create_reads", "delete_writes", "apiserver_cpu", "own_cpu"),
    "forgetting": ("create_rate", "delete_rate", "apiserver_cpu", "own_cpu"),
    "admission": ("create_rate", "create_writes", "apiserver_cpu", "own_cpu"),
    "admission-forgetting": ("create_rate", "delete_rate", "create_writes", "apiserver_cpu", "own_cpu"),
    "service": ("create_rate", "own_cpu", "memory_mib"),
}
"""What is told of our other ways to do the same: two roles, field owners forgotten, finalizers by the API server, the
last two at once, the whole service."""
WAYS_GOALS = {("split", "create_writes"): "<= 11", ("split", "create_reads"): "0"}


def way_rows(way: str, batch: Batch, incumbent: Sequence[Batch], snapshots: int) -> list[Row]:
    """What another way of ours cost, beside the incumbent."""
    found = []
    for field in WAYS[way]:
        title, unit = NAMES[field]
        theirs = statistics.median(getattr(batch, field) for batch in incumbent)
        goal = WAYS_GOALS.get((way, field), "")
        found.append(Row(f"{way}: {title.format(n=snapshots)}", unit, getattr(batch, field), theirs, goal))
    return found


def share_rows(ours: Sequence[Batch], incumbent: Sequence[Batch], alone: float) -> list[Row]:
    """The API server's CPU of both sides without the benchmark's own create, which stands in either figure."""
    mine = statistics.median(batch.apiserver_cpu for batch in ours) - alone
    theirs = statistics.median(batch.apiserver_cpu for batch in incumbent) - alone
    return [
        Row("API server CPU of the bench's own create, nobody works", "ms", alone, None),
        Row("API server CPU per snapshot, without that", "ms", mine, theirs),
    ]


def both_rows(ours: Batch, incumbent: Batch) -> list[Row]:
    """Finalizers by the API server on both sides: the incumbent gains by it too."""
    name = "admission on both sides: "
    return [
        Row(f"{name}API writes per create", "requests", ours.create_writes, incumbent.create_writes),
        Row(f"{name}API server CPU per snapshot", "ms", ours.apiserver_cpu, incumbent.apiserver_cpu),
    ]


def group_rows(read: GroupReading) -> list[Row]:
    """What one group cost us."""
    name = f"a group of {read.members}"
    return [
        Row(f"{name}: API writes per member, made", "requests", read.create_writes, None),
        Row(f"{name}: API writes, looked at again", "requests", read.idle_writes, None, "0"),
        Row(f"{name}: API writes per member, deleted", "requests", read.delete_writes, None),
        Row(f"{name}: own CPU per member, made", "ms", read.own_cpu, None),
    ]


def crowd_rows(readings: Iterable[Reading]) -> list[Row]:
    """One row per size and figure; the incumbent stands where it was measured."""
    sides = {(reading.side, reading.existing): reading for reading in readings}
    found = []
    for (side, existing), mine in sides.items():
        if side != "ours":
            continue
        theirs = sides.get(("incumbent", existing))
        for field, (title, unit) in CROWD_NAMES.items():
            goal = CROWD_GOALS.get(field, "") if existing == CROWD_OF_GOALS else ""
            other = None if theirs is None else getattr(theirs, field)
            found.append(Row(f"{existing:,} there: {title}", unit, getattr(mine, field), other, goal))
    return found


def write(path: Path, table: Iterable[Row]) -> None:
    """`bench.json`: a list of name, unit, ours, incumbent, ratio."""
    plain = [{**dataclasses.asdict(row), "ratio": row.ratio} for row in table]
    path.write_text(json.dumps(plain, indent=2) + "\n")


def render(table: Sequence[Row]) -> str:
    """The same as text."""
    lines = [f"{'figure':<56} {'unit':>8} {'ours':>10} {'incumbent':>10} {'ratio':>7} {'wanted':>8}"]
    for row in table:
        theirs = "-" if row.incumbent is None else f"{row.incumbent:.3g}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(f"{row.name:<56} {row.unit:>8} {row.ours:>10.3g} {theirs:>10} {ratio:>7} {row.goal:>8}")
    return "\n".join(lines)
