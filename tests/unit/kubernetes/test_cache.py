"""What the caches take in and what they ignore, and what the indexes find."""

from __future__ import annotations

import pytest

from adapters.kubernetes import claims, names, trim
from adapters.kubernetes.cache import HOT, Cache, newer
from adapters.kubernetes.world import World
from tests.unit.kubernetes import objects as o


@pytest.mark.parametrize(
    ("version", "than", "result"),
    [("10", "9", True), ("9", "10", False), ("9", "9", False), ("b", "a", True), ("a", "a", False), ("5", "x", True)],
)
def test_order_of_versions_counts_only_between_numbers(version: str, than: str, result: bool) -> None:
    assert newer(version, than) is result


def test_our_write_shows_at_once_and_the_older_news_is_ignored() -> None:
    cache = Cache(trim.whole)
    heard: list[str] = []
    cache.listen(lambda _before, after: heard.append(after["metadata"]["resourceVersion"] if after else "gone"))
    assert cache.fold(o.snapshot(metadata__resourceVersion="12"))
    assert not cache.fold(o.snapshot(metadata__resourceVersion="11"))
    assert not cache.fold(o.snapshot(metadata__resourceVersion="12"))
    assert cache.version("apps", "one") == "12"
    assert heard == ["12"]


def test_a_namesake_ends_what_was_there_before_it() -> None:
    """A list after an outage may show the new object alone: what is remembered by the old one must end with it."""
    cache = Cache(trim.whole)
    heard: list[tuple[str, str]] = []
    cache.listen(
        lambda before, after: heard.append(tuple((x or o.claim())["metadata"]["uid"] for x in (before, after)))
    )
    cache.fold(o.snapshot())
    cache.fold(o.snapshot(metadata__uid="next", metadata__resourceVersion="11"))
    assert heard == [("claim-uid", o.UID), (o.UID, "claim-uid"), ("claim-uid", "next")]
    assert cache.saw_go("apps", "one")
    assert not cache.fold(o.snapshot(metadata__resourceVersion="12"))


def test_what_is_gone_does_not_come_back() -> None:
    cache = Cache(trim.whole)
    cache.fold(o.snapshot())
    assert cache.forget("apps", "one", o.UID)
    assert not cache.fold(o.snapshot(metadata__resourceVersion="99"))
    assert cache.get("apps", "one") is None
    assert cache.fold(o.snapshot(metadata__uid="next", metadata__resourceVersion="100"))
    assert cache.by_uid(o.UID) is None


def test_what_left_a_watched_label_may_come_back_and_old_news_of_it_may_not() -> None:
    """A content whose managed-by label goes to another node and back: it leaves like one that is deleted."""
    cache = Cache(trim.whole)
    cache.fold(o.snapshot(metadata__resourceVersion="5"))
    assert cache.forget("apps", "one", o.UID, version="8")
    assert not cache.fold(o.snapshot(metadata__resourceVersion="7")), "the late answer to a write of ours"
    assert not cache.fold(o.snapshot(metadata__resourceVersion="8"))
    assert cache.fold(o.snapshot(metadata__resourceVersion="9"))
    cache.replace({}, "12")
    assert not cache.fold(o.snapshot(metadata__resourceVersion="11"))
    assert cache.fold(o.snapshot(metadata__resourceVersion="13"))
    assert cache.forget("apps", "one", o.UID)
    assert not cache.forget("apps", "one", o.UID, version="14")
    assert not cache.fold(o.snapshot(metadata__resourceVersion="99")), "a 404 is the end"


def test_taking_the_last_finalizer_off_a_deleted_object_is_its_end() -> None:
    cache = Cache(trim.whole)
    cache.fold(o.snapshot(metadata__deletionTimestamp="t"))
    cache.fold(o.snapshot(metadata__deletionTimestamp="t", metadata__finalizers=[]))
    assert len(cache) == 0


def test_a_late_delete_event_does_not_remove_the_next_object_of_that_name() -> None:
    cache = Cache(trim.whole)
    cache.fold(o.snapshot())
    cache.fold(o.snapshot(metadata__uid="next", metadata__resourceVersion="100"))
    assert not cache.forget("apps", "one", o.UID)
    assert cache.by_uid("next") is not None


def test_a_new_list_drops_what_it_lacks_but_not_our_younger_writes() -> None:
    cache = Cache(trim.whole)
    cache.fold(o.snapshot())
    cache.fold(o.snapshot(metadata__name="young", metadata__uid="y", metadata__resourceVersion="60"))
    cache.replace({}, "50")
    assert cache.get("apps", "one") is None
    assert cache.get("apps", "young") is not None
    assert cache.synced


def test_readers_get_copies() -> None:
    cache = Cache(trim.whole)
    cache.fold(o.snapshot())
    found = cache.get("apps", "one")
    assert found is not None
    found["metadata"]["name"] = "changed"
    again = cache.get("apps", "one")
    assert again is not None
    assert again["metadata"]["name"] == "one"


def with_source() -> World:
    """A world with all that a snapshot of the claim needs."""
    world = World()
    world.classes.fold(o.klass())
    world.claims.fold(o.claim())
    world.volumes.fold(o.volume())
    return world


def test_indexes_follow_changes() -> None:
    world = with_source()
    world.snapshots.fold(o.snapshot())
    assert claims.needed(world, "apps", "data", "somebody else")
    assert not claims.needed(world, "apps", "data", o.UID)
    world.snapshots.fold(o.snapshot(metadata__resourceVersion="11", status={"readyToUse": True}))
    assert world.snapshots.count("open-by-claim", "apps/data") == 0
    assert not claims.needed(world, "apps", "data", "somebody else")


def test_a_snapshot_in_trouble_holds_no_claim_for_its_finalizers_alone() -> None:
    """They may be there from its first instant, when nobody had looked at it yet."""
    world = with_source()
    world.classes.fold(o.klass(metadata__name="other", metadata__uid="other-class", driver="other.example"))
    wrong = o.snapshot(spec__volumeSnapshotClassName="other")
    world.snapshots.fold(wrong)
    assert names.SOURCE_FINALIZER in wrong["metadata"]["finalizers"]
    assert not claims.needed(world, "apps", "data", "somebody else"), "its class is another driver's"
    bound = {"metadata__name": names.content_name(o.UID), "status": {}}
    world.contents.fold(o.content(**bound))
    assert claims.needed(world, "apps", "data", "somebody else"), "its cut may be under way"


@pytest.mark.parametrize("field", ["dataSource", "dataSourceRef"])
@pytest.mark.parametrize(("namespace", "wanted"), [("", "apps/one"), ("web", "web/one")])
def test_a_pending_claim_names_the_snapshot_it_waits_for(field: str, namespace: str, wanted: str) -> None:
    world = World()
    source = {"kind": "VolumeSnapshot", "apiGroup": names.GROUP, "name": "one"}
    if namespace:
        source["namespace"] = namespace
    waiting = o.claim(metadata__name="restored", status__phase="Pending", spec={field: source})
    world.claims.fold(waiting)
    assert world.restoring(*wanted.split("/")) == ("apps/restored",)
    world.claims.fold(
        {**waiting, "metadata": {**waiting["metadata"], "resourceVersion": "6"}, "status": {"phase": "Bound"}}
    )
    assert world.restoring(*wanted.split("/")) == ()


def test_an_event_wakes_only_what_it_concerns() -> None:
    world = World()
    for cache in world.caches.values():
        cache.replace({}, "1")
    woken: list[str] = []
    world.listen(woken.append)
    world.snapshots.fold(o.snapshot())
    assert woken == [o.UID]
    woken.clear()
    world.classes.fold(o.klass(metadata__name="unrelated"))
    world.claims.fold(o.claim(metadata__name="other", metadata__uid="x"))
    assert woken == []
    world.classes.fold(o.klass())
    world.claims.fold(o.claim())
    world.volumes.fold(o.volume())
    world.contents.fold(o.content())
    assert woken == [o.UID] * 4
    woken.clear()
    world.snapshots.fold(o.snapshot(metadata__resourceVersion="11", status={"readyToUse": True}))
    woken.clear()
    world.classes.fold(o.klass(metadata__resourceVersion="4"))
    world.volumes.fold(o.volume(metadata__resourceVersion="9"))
    assert woken == []


def test_managed_fields_are_not_kept() -> None:
    kept = trim.whole(o.snapshot(metadata__managedFields=[{"manager": "x"}]))
    assert "managedFields" not in kept["metadata"]
    assert kept["spec"] == o.snapshot()["spec"]


def test_what_is_not_wanted_is_not_kept_and_may_come_back() -> None:
    known = Cache(trim.whole, keep=lambda item: item.get("driver") == "mine")
    heard: list[tuple[bool, bool]] = []
    known.listen(lambda before, after: heard.append((before is not None, after is not None)))
    metadata = {"name": "a", "uid": "u1"}
    steps = [("others", "1"), ("mine", "2"), ("others", "3"), ("mine", "4")]
    kept = []
    for driver, version in steps:
        known.fold({"metadata": {**metadata, "resourceVersion": version}, "driver": driver})
        kept.append(len(known))
    assert kept == [0, 1, 0, 1]
    assert heard == [(False, True), (True, False), (False, True)]


def test_a_shared_cache_reads_an_object_once_per_version_and_notices_a_hand_on_it() -> None:
    cache = Cache(trim.whole, shared=True)
    cache.fold(o.snapshot(metadata__resourceVersion="5"))
    first = cache.get("apps", "one")
    assert first is not None
    assert cache.get("apps", "one") is first
    assert cache.by_uid(o.UID) is first
    cache.fold(o.snapshot(metadata__resourceVersion="6"))
    second = cache.get("apps", "one")
    assert second is not None
    assert second is not first
    second["metadata"]["finalizers"] = ["mine"]
    with pytest.raises(AssertionError, match="somebody changed"):
        cache.get("apps", "one")


def test_a_shared_cache_keeps_few_objects_read() -> None:
    cache = Cache(trim.whole, shared=True)
    cache.replace({}, "0")
    for number in range(HOT + 5):
        cache.fold(o.snapshot(metadata__name=f"s{number}", metadata__uid=f"u{number}", metadata__resourceVersion="5"))
    assert len(cache._hot) == HOT
    assert cache.get("apps", "s0") == cache.get("apps", "s0")
    assert len(cache._hot) == HOT


def test_a_write_of_a_turn_wakes_others_and_not_the_turn_itself() -> None:
    world = World()
    for one in world.caches.values():
        one.replace({}, "0")
    woken: list[str] = []
    world.listen(woken.append)
    waiting = o.snapshot(
        metadata__uid="waiting", metadata__name="two", spec__source={"volumeSnapshotContentName": "snapcontent-6f1c"}
    )
    world.snapshots.fold(waiting)
    woken.clear()
    world.contents.fold(o.content(metadata__resourceVersion="27"), own=True)
    assert woken == ["waiting"]
    woken.clear()
    world.contents.fold(o.content(metadata__resourceVersion="28"))
    assert sorted(woken) == sorted([o.UID, "waiting"])


def test_field_owners_are_forgotten_on_demand_but_not_of_what_is_applied() -> None:
    trimmed = trim.forgetting(trim.whole)
    updated = {"manager": "somebody", "operation": "Update", "fieldsV1": {"f:spec": {}}}
    created = o.snapshot(metadata__managedFields=[updated])
    assert trimmed(created)["metadata"]["managedFields"] == [{}]
    assert created["metadata"]["managedFields"] == [updated]
    applied = o.snapshot(metadata__managedFields=[updated, {**updated, "operation": "Apply"}])
    assert "managedFields" not in trimmed(applied)["metadata"]
    notes = {trim.LAST_APPLIED: "{}"}
    assert (
        "managedFields"
        not in trimmed(o.snapshot(metadata__managedFields=[updated], metadata__annotations=notes))["metadata"]
    )
    assert "managedFields" not in trimmed(o.snapshot())["metadata"]
