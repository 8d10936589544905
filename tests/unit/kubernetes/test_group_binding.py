"""The cluster half's table for groups: upstream's delete rows 2-x, finalizer rows 3-x, readiness rows 4-x and 8-x."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from adapters.kubernetes.decide import group_binding as binding
from adapters.kubernetes.groups import names
from adapters.kubernetes.groups.facts import GroupFacts
from tests.unit.kubernetes.objects import Object, changed
from tests.unit.kubernetes.test_group_translate import UID, content, facts, group, klass, source

GOING = "2026-11-21T12:00:00Z"
MARK = {names.BEING_DELETED: "yes"}
SAID = {
    "volumeGroupSnapshotHandle": "g-1",
    "readyToUse": True,
    "creationTime": "2026-11-21T12:00:01Z",
    "volumeSnapshotInfoList": [{"volumeHandle": "vol-1", "snapshotHandle": "s-1", "readyToUse": True}],
}
TOLD = {
    "boundVolumeGroupSnapshotContentName": names.content_name(UID),
    "readyToUse": True,
    "creationTime": "2026-11-21T12:00:01Z",
}
READY = group(status=TOLD)
CUT = content(status=SAID)
LEAVING = group(metadata__deletionTimestamp=GOING)
KEPT = content(spec__deletionPolicy="Retain", status=SAID)


def view(given: GroupFacts, **more: Any) -> binding.View:
    return dataclasses.replace(binding.View(given), **more)


def marked(item: Object, **changes: Any) -> Object:
    return changed({**item, "metadata": {**item["metadata"], "annotations": MARK}}, changes)


UNHELD = source(1, claim__metadata__finalizers=[])
ROWS: list[tuple[str, binding.View, type]] = [
    ("3-1 no finalizer", view(facts(group=group(metadata__finalizers=[]))), binding.Hold),
    ("a claim is not held", view(facts(sources=(UNHELD,))), binding.HoldClaims),
    ("all is held", view(facts()), binding.Create),
    ("in trouble with claims held", view(facts(klass=None), claims_stray=True), binding.DropClaims),
    ("in trouble, not told", view(facts(klass=None)), binding.Publish),
    ("3-2 content without a finalizer", view(facts(content=content(metadata__finalizers=[]))), binding.Amend),
    ("bound, nothing said", view(facts(content=content())), binding.Publish),
    ("cut, members not seen to", view(facts(content=CUT)), binding.Members),
    ("4-1 ready is copied", view(facts(content=CUT), members_done=True), binding.Publish),
    ("4-2 ready, claims held", view(facts(group=READY, content=CUT), members_done=True, claims_stray=True),
     binding.DropClaims),
    ("8-1 nothing new", view(facts(group=READY, content=CUT), members_done=True), binding.Rest),
    ("2-1 a member is in use", view(facts(group=LEAVING, content=CUT, in_use="restored")), binding.Pending),
    ("content not looked for", view(facts(group=LEAVING), content_known=False), binding.Look),
    ("members stay", view(facts(group=LEAVING, content=CUT), members_stay=True), binding.LetMembersGo),
    ("2-2 not marked", view(facts(group=LEAVING, content=CUT)), binding.Amend),
    ("2-3 marked, Delete", view(facts(group=LEAVING, content=marked(CUT))), binding.Delete),
    ("being deleted", view(facts(group=LEAVING, content=marked(CUT, metadata__deletionTimestamp=GOING))),
     binding.Rest),
    ("2-4 Retain", view(facts(group=LEAVING, content=marked(KEPT))), binding.Release),
    ("Retain, claims held", view(facts(group=LEAVING, content=marked(KEPT)), claims_stray=True), binding.DropClaims),
    ("never bound", view(facts(group=LEAVING)), binding.Release),
    ("3-3 released", view(facts(group=group(metadata__deletionTimestamp=GOING, metadata__finalizers=[]))),
     binding.Rest),
    ("alone, unprotected", view(GroupFacts(UID, content=content(metadata__finalizers=[]))), binding.Amend),
    ("alone", view(GroupFacts(UID, content=CUT)), binding.Rest),
    ("alone and going", view(GroupFacts(UID, content=marked(CUT, metadata__deletionTimestamp=GOING))), binding.Rest),
]  # fmt: skip


@pytest.mark.parametrize(("row", "seen", "step"), ROWS, ids=[row[0] for row in ROWS])
def test_row(row: str, seen: binding.View, step: type) -> None:
    found = binding.decide(seen)
    assert type(found) is step, found


def test_a_new_content_is_complete_and_has_no_mark_of_the_driver_half() -> None:
    step = binding.decide(view(facts()))
    assert isinstance(step, binding.Create)
    assert step.body["metadata"]["finalizers"] == [names.CONTENT_FINALIZER]
    assert not step.body["metadata"]["annotations"]
    assert step.body["spec"]["volumeGroupSnapshotRef"]["uid"] == UID


def test_8_2_what_became_ready_is_told_once_with_upstreams_events() -> None:
    news = binding.copied(group(), CUT)
    assert news is not None
    assert [event.reason for event in news.events] == ["GroupSnapshotCreated", "GroupSnapshotReady"]
    assert news.status == TOLD
    assert binding.copied(READY, CUT) is None


def test_8_3_an_error_is_copied_and_cleared_and_the_bound_name_stays() -> None:
    failing = content(status={"error": {"message": "no room", "time": GOING}})
    news = binding.copied(group(status={"boundVolumeGroupSnapshotContentName": "first"}), failing)
    assert news is not None
    assert news.status["error"]["message"] == "no room"
    assert news.status["boundVolumeGroupSnapshotContentName"] == "first"
    cleared = binding.copied(group(status=news.status), CUT)
    assert cleared is not None
    assert "error" not in cleared.status


def test_claims_are_needed_while_a_cut_may_come_and_not_in_trouble() -> None:
    assert binding.needs_claims(facts())
    assert binding.needs_claims(facts(content=content()))
    assert not binding.needs_claims(facts(klass=None))
    assert not binding.needs_claims(facts(group=READY, content=CUT))
    assert not binding.needs_claims(facts(group=LEAVING))
    assert binding.needs_claims(facts(group=LEAVING, content=content()))
    assert binding.needs_claims(facts(klass=klass()))


FAILED = content(status={"readyToUse": False, "error": {"message": "no", "time": GOING}})


@pytest.mark.parametrize(
    ("given", "failed"),
    [
        (facts(content=FAILED), True),
        (facts(content=content()), False),
        (facts(content=CUT), False),
        (facts(content=content(status={**SAID, "error": {"message": "later"}})), False),
        (facts(content=content(metadata__annotations={names.BEING_CREATED: "yes"}, status=FAILED["status"])), False),
        (facts(), False),
        (facts(group=None, content=FAILED), False),
    ],
)
def test_whether_a_cut_has_failed_for_certain(given: GroupFacts, failed: bool) -> None:
    assert binding.has_failed(given) is failed


def test_a_group_that_has_failed_for_certain_needs_no_claim_that_is_deleted() -> None:
    """Upstream's trap of single snapshots (#1305), of which upstream's groups have none: they hold no claims."""
    going = source(1, claim__metadata__deletionTimestamp=GOING).claim
    stays = source(2).claim
    assert going is not None
    assert stays is not None
    assert not binding.needs_claim(facts(content=FAILED), going)
    assert binding.needs_claim(facts(content=FAILED), stays), "for the next try"
    assert binding.needs_claim(facts(content=content()), going), "the cut may be under way"
    told = group(status={"readyToUse": False, "error": FAILED["status"]["error"],
                         "boundVolumeGroupSnapshotContentName": names.content_name(UID)})  # fmt: skip
    assert isinstance(binding.decide(view(facts(group=told, content=FAILED), claims_stray=True)), binding.DropClaims)
    assert isinstance(binding.decide(view(facts(group=told, content=FAILED))), binding.Rest)
