"""Both halves in any order, late news, crashes, and owners who change their minds: it ends in the right place."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from adapters.kubernetes import names
from adapters.kubernetes.decide import binding
from tests.unit.kubernetes import split_world
from tests.unit.kubernetes.split_world import KINDS

OWNER = ("delete the snapshot", "set retain", "delete the class", "delete the claim", "delete the content")
ACTIONS = (
    *("cluster half",) * 8,
    *("driver half",) * 6,
    *(f"hear {kind}" for kind in KINDS),
    "cluster half dies",
    "driver half dies",
    "reply is lost",
    "time passes",
    *OWNER,
)


class Story:
    """A world and what was done to it."""

    def __init__(self) -> None:
        self.server = split_world.Server()
        self.backend = split_world.Backend()
        self.cluster_half = split_world.ClusterHalf(self.server)
        self.driver_half = split_world.DriverHalf(self.server, self.backend)
        self.done: set[str] = set()
        self.retained = False
        """Whether the policy was changed before the content's deletion began."""

    def tell(self, action: str) -> None:
        match action.split():
            case ["cluster", "half"]:
                self.cluster_half.act()
            case ["driver", "half"]:
                self._driver_half_acts()
            case ["hear", kind]:
                self.cluster_half.hear(kind)
            case ["cluster", "half", "dies"]:
                self.cluster_half.start()
            case ["driver", "half", "dies"]:
                self.driver_half.start()
            case ["time", "passes"]:
                self.cluster_half.waited_seconds = 5.0
            case ["reply", *_]:
                self.driver_half.loses_the_next_reply = True
            case _:
                self.done.add(action)
                self._owner(action)
        assert self.backend.made <= 1, "a snapshot was cut twice"

    def _driver_half_acts(self) -> None:
        before = self.backend.made
        self.driver_half.act()
        claim = self.server.get("claim")
        if self.backend.made > before and not self.done - {"set retain"}:
            assert claim is not None
            assert names.CLAIM_FINALIZER in claim["metadata"]["finalizers"], "cut from a claim that was not held"

    def _owner(self, action: str) -> None:
        if action == "set retain":
            content = self.server.get("content")
            if content is not None:
                self.retained |= not content["metadata"].get("deletionTimestamp")
                self.server.put("content", {**content, "spec": {**content["spec"], "deletionPolicy": "Retain"}})
            return
        self.server.delete({"delete the class": "klass"}.get(action, action.rsplit(" ", 1)[1]))

    def end(self) -> None:
        """Let both halves work until nothing happens any more."""
        quiet = 0
        for _ in range(120):
            before = self.server.writes, self.backend.made, self.backend.deleted
            for kind in KINDS:
                self.cluster_half.hear(kind)
            step = self.cluster_half.act()
            self._driver_half_acts()
            moved = before != (self.server.writes, self.backend.made, self.backend.deleted)
            quiet = 0 if moved or not isinstance(step, binding.Rest | binding.Wait) else quiet + 1
            if quiet == 3:
                return
        raise AssertionError("it does not come to rest")

    def holds(self) -> None:
        """What must be true at the end, whatever happened."""
        content, snapshot, claim = (self.server.get(kind) for kind in ("content", "snapshot", "claim"))
        cut = len(self.backend.cuts)
        assert claim is None or claim["metadata"]["finalizers"] == [], "the claim is still held"
        if "delete the claim" in self.done:
            assert claim is None
        if content is None and "set retain" not in self.done:
            assert cut == 0, "a snapshot leaked"
        if self.retained and content is None:
            assert "delete the content" in self.done, "a content that was to be kept is gone"
        if self.retained and self.backend.made:
            assert self.backend.deleted == 0, "a snapshot that was to be kept was deleted"
        if "delete the snapshot" in self.done:
            assert snapshot is None, "the VolumeSnapshot is stuck"
            return
        assert snapshot is not None
        assert self.backend.deleted == 0, "nobody asked for a deletion"
        if "delete the content" in self.done:
            return
        stopped = bool(self.done & {"delete the class", "delete the claim"}) and content is None
        ready = (snapshot.get("status") or {}).get("readyToUse") is True
        assert ready is not stopped
        assert cut == (not stopped)
        if stopped:
            assert snapshot["status"]["error"]["message"]


@hypothesis.given(st.lists(st.sampled_from(ACTIONS), max_size=60))
@hypothesis.settings(max_examples=400, deadline=None)
def test_whatever_happens_it_ends_in_the_right_place(actions: list[str]) -> None:
    hypothesis.note(", ".join(actions))
    story = Story()
    for action in actions:
        if action not in OWNER or action not in story.done:
            story.tell(action)
    story.end()
    story.holds()


def test_the_plain_way_costs_no_more_than_it_must() -> None:
    """Ours: hold, claim, content, cut, readiness, claim. The driver half's: two marks, two statuses.

    Of one that is ready at once there is one status less on each side.
    """
    story = Story()
    story.end()
    story.holds()
    assert story.server.writes == 10


def test_after_a_deletion_nothing_is_left() -> None:
    story = Story()
    story.end()
    before = story.server.writes
    story.tell("delete the snapshot")
    story.end()
    story.holds()
    assert story.backend.deleted == 1
    assert story.server.get("content") is None
    # The owner's own DELETE, then: mark, DELETE and release of ours, two of the driver half.
    assert story.server.writes - before == 6


def test_a_snapshot_that_never_was_cut_leaves_no_hold() -> None:
    story = Story()
    story.tell("delete the class")
    story.end()
    story.holds()
    assert names.CLAIM_FINALIZER not in str(story.server.objects)
