"""`make campaign`: the fault stories against upstream's pair and ours. Prints the table, writes campaign.json."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
from pathlib import Path

from tests.support import stacks
from tests.support.bed import build
from tests.support.campaign import stories
from tests.support.campaign.field import Score, field

DEFAULTS = "upstream-defaults"
KINDS = {
    "upstream": (stacks.UPSTREAM, ()),
    DEFAULTS: (stacks.UPSTREAM, stacks.DEFAULTS),
    "merged": (stacks.MERGED, ()),
    "split": (stacks.SPLIT, ()),
}
"""Upstream's pair with its limits lifted and quick retries, the same as it is by default, and ours."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--batch", type=int, default=10, help="snapshots per story")
    parser.add_argument("--stack", action="append", choices=list(KINDS), help="repeatable; all by default")
    parser.add_argument("--story", action="append", choices=[one.name for one in stories.STORIES])
    parser.add_argument("--output", type=Path, default=Path("campaign.json"))
    chosen = parser.parse_args()
    build.build(["etcd", "kube-apiserver", "kube-controller-manager", "snapshot-controller", "csi-snapshotter"])
    told = [one for one in stories.STORIES if not chosen.story or one.name in chosen.story]
    found: dict[str, dict[str, Score]] = {one.name: {} for one in told}
    for name in chosen.stack or list(KINDS):
        kind, more = KINDS[name]
        with field(kind, chosen.batch, more) as stage:
            for story in told:
                score = stories.tell(story, stage)
                found[story.name][name] = score
                print(f"{name:<10} {story.name:<24} {_words(score)}", flush=True)
    plain = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "batch": chosen.batch,
        "stories": {
            name: {stack: dataclasses.asdict(score) for stack, score in scores.items()}
            for name, scores in found.items()
        },
    }
    chosen.output.write_text(json.dumps(plain, indent=2) + "\n")
    print(table(told, found))
    print(f"written: {chosen.output}")


def table(told: list[stories.Story], found: dict[str, dict[str, Score]]) -> str:
    """Markdown: one row per story; leaked / doubled / lost / stuck of each stack."""
    names = list(next(iter(found.values())))
    lines = [f"| fault | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for story in told:
        scores = found[story.name]
        lines.append(f"| {story.what} | {' | '.join(_cell(scores[name]) for name in names)} |")
    return "\n".join(lines)


def _cell(score: Score) -> str:
    if score.clean:
        return "0"
    return ", ".join(f"**{count} {word}**" for word, count in dataclasses.asdict(score).items() if count)


def _words(score: Score) -> str:
    return ", ".join(f"{word} {count}" for word, count in dataclasses.asdict(score).items())


if __name__ == "__main__":
    main()
