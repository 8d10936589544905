"""`make bench`: prints the table and writes bench.json. `--snapshots N --rounds R` make it longer."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import figures
from bench.kubernetes import Bench
from tests.support import localdisk
from tests.support.bed import build, controlplane


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--snapshots", type=int, default=200, help="at once, per batch")
    parser.add_argument("--rounds", type=int, default=2, help="batches per side, in turn")
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    chosen = parser.parse_args()
    build.build(["etcd", "kube-apiserver", "kube-controller-manager", "snapshot-controller", "csi-snapshotter"])
    ours, theirs = [], []
    with controlplane.running() as plane, localdisk.start_localdisk(mode="directory") as driver:
        bench = Bench(plane, driver)
        bench.prepare()
        for number in range(chosen.rounds):
            with bench.ours() as contender:
                ours.append(bench.batch(contender, chosen.snapshots, number))
            with bench.theirs() as contender:
                theirs.append(bench.batch(contender, chosen.snapshots, number))
            print(f"round {number + 1} of {chosen.rounds} done", flush=True)
    table = figures.rows(ours, theirs, chosen.snapshots)
    print(figures.render(table))
    figures.write(chosen.output, table)
    print(f"written: {chosen.output}")


if __name__ == "__main__":
    main()
