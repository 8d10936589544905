"""Another stack takes over in the middle of a batch of fifty: nothing is lost, nothing doubles, nothing is left.

Each pair is tried both ways: the second stack takes over while the first cuts, and the first takes over while the
second deletes. The driver is slowed down, and answers no more than half of the batch before the other stack's turn,
so that there is a middle.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import stacks
from tests.support import stage as stages
from tests.support.faultproxy import faults
from tests.support.stage import Claim, Stage, finalizers, status

pytestmark = pytest.mark.slow

BATCH = 50
CLAIMS = 5
MIDDLE = 12
"""After so many are done, the other stack takes over."""
CALL_SECONDS = 0.25
DRIVER = "upgrade.interop.test"
PAIRS = [(first, second) for first in stacks.WHOLE for second in stacks.WHOLE if first is not second]


class Field:
    """One driver and its claims, and whichever stack is at work."""

    def __init__(self, stage: Stage, cluster: Any) -> None:
        self.stage = stage
        self._admin = cluster.admin
        self.claims: list[Claim] = [stage.claim() for _ in range(CLAIMS)]

    def take_over(self, kind: stacks.Kind) -> None:
        """Stop whatever is at work; then start this one."""
        if self.stage.kind is not kind or not all(one.running for one in self.stage.stack.processes):
            stack = stacks.Stack(kind, self._admin, self.stage.proxy.listen)
            self.stage.replace(stack)
            stack.start()

    def slow_down(self) -> None:
        for method in ("CreateSnapshot", "DeleteSnapshot"):
            self.stage.proxy.script(method, faults.delay(CALL_SECONDS), times=None)

    def stop_beyond_the_middle(self, method: str) -> threading.Event:
        """Let the calls of a method for half of the batch pass; the others stand still until the event is set."""
        go_on, passed = threading.Event(), set[str]()

        def beyond(asked: Any) -> bool:
            name = str(getattr(asked, "name", "") or getattr(asked, "snapshot_id", ""))
            if len(passed) < BATCH // 2:
                passed.add(name)
            return name not in passed

        self.stage.proxy.script(method, faults.hold(go_on), times=None, when=beyond)
        return go_on

    def ask_for_batch(self) -> list[str]:
        names = [self.stage.fresh("batch") for _ in range(BATCH)]
        for number, name in enumerate(names):
            self.stage.snapshot(self.claims[number % CLAIMS], name=name)
        return names

    def ready(self, names: list[str]) -> int:
        return sum(bool(status(self.stage.of("snapshots", name)).get("readyToUse")) for name in names)

    def gone(self, names: list[str]) -> int:
        return sum(self.stage.of("snapshots", name) is None for name in names)

    def all_are_ready_once(self, names: list[str]) -> None:
        """Fifty ready, fifty on the backend, and each of them is one that a content names."""
        self.stage.until("all are ready", lambda: self.ready(names) == BATCH)
        self.stage.until("all contents are seen with their handles", lambda: all(map(self._handle, names)))
        handles = [self._handle(name) for name in names]
        assert len(set(handles)) == BATCH
        assert sorted(handles) == sorted(self.stage.backend())

    def nothing_is_left(self, names: list[str]) -> None:
        """No object, no snapshot, no finalizer on a claim."""
        self.stage.until("all are gone", lambda: self.gone(names) == BATCH)
        self.stage.until("no content is left", lambda: not self._contents())
        self.stage.until("the claims are free", lambda: not any(self._held(claim) for claim in self.claims))
        assert self.stage.backend() == []

    def _handle(self, name: str) -> str:
        """What its content is told to be on the backend; empty before both are heard of."""
        bound = str(status(self.stage.of("snapshots", name)).get("boundVolumeSnapshotContentName"))
        return str(status(self.stage.of("contents", bound)).get("snapshotHandle") or "")

    def _contents(self) -> list[Any]:
        return [one for one in self.stage.seen.all("volumesnapshotcontents") if one["spec"]["driver"] == DRIVER]

    def _held(self, claim: Claim) -> bool:
        return stages.CLAIM in finalizers(self.stage.of("claims", claim.name))


@pytest.fixture(scope="module")
def field(interop_cluster: Any) -> Iterator[Field]:
    cluster = interop_cluster
    with stages.standing(stacks.UPSTREAM, cluster.admin, cluster.seen, cluster.backstage, DRIVER) as stage:
        yield Field(stage, cluster)


@pytest.fixture(autouse=True)
def _quiet(field: Field) -> Iterator[None]:
    yield
    field.stage.proxy.clear()


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda kind: kind.name)
def test_another_stack_takes_over_in_the_middle_of_a_batch(
    field: Field, first: stacks.Kind, second: stacks.Kind
) -> None:
    field.take_over(first)
    field.slow_down()
    go_on = field.stop_beyond_the_middle("CreateSnapshot")
    names = field.ask_for_batch()
    field.stage.until("the middle of the creates", lambda: field.ready(names) >= MIDDLE)
    assert field.ready(names) < BATCH
    go_on.set()
    field.take_over(second)
    field.all_are_ready_once(names)
    go_on = field.stop_beyond_the_middle("DeleteSnapshot")
    for name in names:
        field.stage.delete("snapshots", name)
    field.stage.until("the middle of the deletes", lambda: field.gone(names) >= MIDDLE)
    assert field.gone(names) < BATCH
    go_on.set()
    field.take_over(first)
    field.nothing_is_left(names)


@pytest.mark.parametrize(
    ("first", "second"),
    [(stacks.UPSTREAM, stacks.MERGED), (stacks.MERGED, stacks.SPLIT), (stacks.SPLIT, stacks.UPSTREAM)],
    ids=lambda kind: kind.name,
)
def test_another_stack_finishes_what_a_killed_one_had_cut_and_not_told(
    field: Field, first: stacks.Kind, second: stacks.Kind
) -> None:
    """kill -9 of the driver half when the driver has cut and nobody has heard of it; then the rest of the stack."""
    field.take_over(first)
    struck = threading.Event()

    def kill() -> None:
        if not struck.is_set():
            field.stage.stack.kill_driver_half()
            struck.set()

    field.stage.proxy.script("CreateSnapshot", faults.crash(kill), after_effect=True, skip=MIDDLE)
    names = field.ask_for_batch()
    assert struck.wait(60)
    field.stage.stack.kill()
    cut = set(field.stage.backend())
    told = {status(one).get("snapshotHandle") for one in field.stage.seen.all("volumesnapshotcontents")}
    assert cut - told, "the driver holds one that no content names"
    field.take_over(second)
    field.all_are_ready_once(names)
    assert cut <= set(field.stage.backend())
    for name in names:
        field.stage.delete("snapshots", name)
    field.nothing_is_left(names)
