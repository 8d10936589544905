"""`make bench`: prints the table, writes bench.json and the plots.

`--snapshots N --rounds R` make it longer; `--crowds 1000,15000` chooses how many finished snapshots to start with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import figures, plots
from bench.groups import Groups
from bench.kubernetes import Bench
from bench.scale import Crowd
from bench.shapes import Batch, Reading
from tests.support import localdisk
from tests.support.bed import build, controlplane

COMPARED = figures.CROWD_OF_GOALS
"""The number of finished snapshots with which the incumbent is measured too."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--snapshots", type=int, default=200, help="at once, per batch")
    parser.add_argument("--rounds", type=int, default=3, help="batches per side, in turn")
    parser.add_argument(
        "--defaults", type=int, default=20, help="at once, for the incumbent as it comes; 0: not at all"
    )
    parser.add_argument(
        "--crowds", default="1000,5000,15000,50000", help="numbers of finished snapshots; empty: none"
    )
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    parser.add_argument("--plots", type=Path, help="a folder for SVG files")
    chosen = parser.parse_args()
    sizes = [int(size) for size in chosen.crowds.split(",") if size]
    build.build(["etcd", "kube-apiserver", "kube-controller-manager", "snapshot-controller", "csi-snapshotter"])
    with controlplane.running() as plane, localdisk.start_localdisk(mode="directory") as driver:
        bench = Bench(plane, driver)
        bench.prepare()
        table, ours = _batches(bench, chosen.snapshots, chosen.rounds)
        if chosen.defaults:
            rate = bench.default_rate(chosen.defaults)
            table.append(
                figures.Row("snapshots created, the incumbent with its defaults", "1/s", ours, rate, ">= 100 x")
            )
        table += figures.group_rows(Groups(bench).read())
        readings = _crowds(bench, sizes) if sizes else []
    table += figures.crowd_rows(readings)
    print(figures.render(table))
    figures.write(chosen.output, table)
    if chosen.plots:
        _plot(chosen.plots, table, readings)
    print(f"written: {chosen.output}")


def _batches(bench: Bench, snapshots: int, rounds: int) -> tuple[list[figures.Row], float]:
    """The rows of the batches, and our rate of creation."""
    ours: list[Batch] = []
    theirs: list[Batch] = []
    bench.alone(snapshots)  # The first batch meets a server that is not warm yet.
    alone = bench.alone(snapshots)
    for number in range(rounds):
        with bench.ours() as contender:
            ours.append(bench.batch(contender, snapshots, number))
        with bench.theirs() as contender:
            theirs.append(bench.batch(contender, snapshots, number))
        print(f"round {number + 1} of {rounds} done", flush=True)
    table = figures.rows(ours, theirs, snapshots)
    rate = table[0].ours
    table += figures.share_rows(ours, theirs, alone)
    batches: dict[str, Batch] = {}
    for way in (bench.split, bench.forgetting, bench.admission, bench.admission_forgetting, bench.service):
        with way() as contender:
            batch = batches[contender.name] = bench.batch(contender, snapshots, 0)
            table += figures.way_rows(contender.name, batch, theirs, snapshots)
    with bench.theirs_with_admission() as contender:
        table += figures.both_rows(batches["admission"], bench.batch(contender, snapshots, 0))
    return table, rate


def _crowds(bench: Bench, sizes: list[int]) -> list[Reading]:
    """From the smallest to the largest; the incumbent at one of them."""
    crowd = Crowd(bench)
    readings = []
    for size in sorted(sizes):
        readings.append(crowd.read("ours", size))
        if size == COMPARED:
            readings.append(crowd.read("incumbent", size))
        print(f"{size} finished snapshots: done", flush=True)
    return readings


def _plot(folder: Path, table: list[figures.Row], readings: list[Reading]) -> None:
    wanted = list(figures.NAMES.values())
    names = {title.split(",")[0] for title, _ in wanted}
    rows = [row for row in table if row.name.split(",")[0] in names and row.incumbent is not None]
    titled = [(f"{row.name} ({row.unit})", row.ours, row.incumbent or 0.0) for row in rows]
    plots.bars(folder / "batches.svg", "Batches, both sides in one run", titled)
    mine = [reading for reading in readings if reading.side == "ours"]
    for field, (title, unit) in figures.CROWD_NAMES.items():
        line = [(float(reading.existing), float(getattr(reading, field))) for reading in mine]
        if len(line) > 1:
            plots.lines(folder / f"{field.replace('_', '-')}.svg", title, unit, {"snapbridge": line})


if __name__ == "__main__":
    main()
