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


class Overlap:
    """The tests of one module's stage. `close` waits for all that were begun."""

    def __init__(self, stage: object) -> None:
        self.stage = stage
        self._pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="story")
        self._begun: dict[str, concurrent.futures.Future[Any]] = {}

    def result(self, item: pytest.Function) -> None:
        """Begin all of the group that need not be alone, if that has not happened yet, and end as this one ends."""
        if item.nodeid not in self._begun:
            for other in item.session.items:
                if isinstance(other, pytest.Function) and self._belongs(other, item):
                    self._begun[other.nodeid] = self._pool.submit(other.obj, stage=self.stage, **_own(other))
        self._begun[item.nodeid].result(_SECONDS)

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
