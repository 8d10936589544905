"""Stories of the fault campaign on our stacks, with small batches: nothing leaked, doubled, lost or stuck.

`make campaign` tells all of them, on upstream's pair too; docs/reliability.md has its table.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import stacks
from tests.support.campaign import stories
from tests.support.campaign.field import Field, field

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

MERGED = ("etcd-slow", "watch-cut", "conflicts", "throttled", "answers-lost", "plugin-killed", "all-killed")
SPLIT = (
    "answers-lost",
    "internal",
    "lost-then-refused",
    "killed-at-cut",
    "killed-at-cut-deleted",
    "cluster-half-killed",
)
BY_NAME = {story.name: story for story in stories.STORIES}


def _quick(kind: stacks.Kind) -> Iterator[Field]:
    with field(kind, batch=4) as made:
        made.storm_seconds, made.patience_seconds = 1.5, 100.0
        yield made


@pytest.fixture(scope="module")
def merged() -> Iterator[Field]:
    yield from _quick(stacks.MERGED)


@pytest.fixture(scope="module")
def split() -> Iterator[Field]:
    yield from _quick(stacks.SPLIT)


@pytest.mark.parametrize("name", MERGED)
def test_one_process_leaves_nothing_behind(merged: Field, name: str) -> None:
    assert stories.tell(BY_NAME[name], merged).clean


@pytest.mark.parametrize("name", SPLIT)
def test_two_halves_leave_nothing_behind(split: Field, name: str) -> None:
    assert stories.tell(BY_NAME[name], split).clean
