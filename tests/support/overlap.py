"""Tests that mostly wait run at the same time: each begins with the first of its group, and is reported in its turn.

A group is one module; a test of it is a plain function or method that takes `stage` and its own parameters, and no
other fixture.
"""

from __future__ import annotations

import concurrent.futures
from typing import Any

import pytest

ALONE = "alone"
_AT_ONCE = 32
_SECONDS = 150.0
_TOLD = (AssertionError, LookupError, RuntimeError)
"""How a scenario fails."""


class Overlap:
    """The tests of one module's stage. `close` waits for all that were begun.

    `forgiving`: a test that fails is run once more, by itself. For stacks with a half of upstream's, whose own races
    (decisions on old news, changes missed until a resync) are not ours to fail on.
    """

    def __init__(self, stage: object, *, forgiving: bool) -> None:
        self.stage = stage
        self.repeated: list[str] = []
        """What was run again: it may have left something."""
        self._forgiving = forgiving
        self._pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="story")
        self._begun: dict[str, concurrent.futures.Future[Any]] = {}

    def result(self, item: pytest.Function) -> None:
        """Begin all of the group that need not be alone, if that has not happened yet, and end as this one ends."""
        if item.nodeid not in self._begun:
            for other in item.session.items:
                if isinstance(other, pytest.Function) and self._belongs(other, item):
                    self._begun[other.nodeid] = self._pool.submit(other.obj, stage=self.stage, **_own(other))
        try:
            self._begun[item.nodeid].result(_SECONDS)
        except _TOLD as error:
            self._again(item, error)

    def alone(self, item: pytest.Function) -> None:
        """Run a test when nothing else runs."""
        self.settle()
        try:
            item.obj(stage=self.stage, **_own(item))
        except _TOLD as error:
            self._again(item, error)

    def _again(self, item: pytest.Function, error: Exception) -> None:
        if not self._forgiving:
            raise error
        self.repeated.append(item.nodeid)
        print(f"once more, after: {error}")
        item.obj(stage=self.stage, **_own(item))

    def settle(self) -> None:
        """Wait until all that were begun have ended, whichever way."""
        concurrent.futures.wait(self._begun.values(), _SECONDS)

    def close(self) -> None:
        self.settle()
        self._pool.shutdown()

    def _belongs(self, other: pytest.Function, item: pytest.Function) -> bool:
        if other.get_closest_marker(ALONE) is not None or other.nodeid in self._begun:
            return False
        return "stage" in other.fixturenames and other.getparent(pytest.Module) is item.getparent(pytest.Module)


def _own(item: pytest.Function) -> dict[str, Any]:
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}
