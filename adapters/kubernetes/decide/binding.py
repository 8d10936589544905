"""The cluster half's decision over one VolumeSnapshot and its content: what is known -> one next step. Pure.

It never talks to a driver and never decides what happens on a backend: that is the driver half's, which it speaks
with only through the content (upstream's snapshot-controller and csi-snapshotter share the work in the same way).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes import member, names, shape, translate
from adapters.kubernetes.decide import bound_status
from adapters.kubernetes.decide.bound_status import News
from adapters.kubernetes.facts import (
    Facts,
    is_bound,
    is_deleting,
    is_ready,
    path,
    snapshot_of_reference,
    static_content,
)
from bridge.model.snapshot import DeletionPolicy, HandleSource, Record, SnapshotRequest

Object = dict[str, Any]

PATIENCE_SECONDS = 1.0
"""A content that says nothing yet is not told of before: a quick cut then costs one status write instead of two."""
PENDING_SECONDS = 30.0
_HERE = "here"
"""This half serves one cluster; its keys never leave it."""


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """All that one decision may know."""

    facts: Facts
    now: float = 0.0
    waited_seconds: float = 0.0
    """For how long its content has been seen without any news."""
    content_known: bool = True
    """Of a content that is absent: whether that is certain, and no lag of ours."""
    content_name: str = ""
    """What its content is or would be called."""
    claim_shared: bool = False
    """Whether another snapshot needs the hold on the claim."""
    claim_left: bool = False
    """Whether the claim has refused to change in this turn: then it is left for the next one."""
    shared_with: tuple[str, ...] = ()
    """Other contents that are to stay, of the same snapshot on the backend."""
    kept_by_group: str = ""
    """Why its group keeps it; empty for no member, or when the group is gone."""
    source_mode: bool = True
    """Whether a new content names the source's volume mode."""
    node: str = ""
    """The node whose driver half is to serve a new content; empty where one serves all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Write the VolumeSnapshot with our finalizers and, where a default was chosen, its class."""

    body: Object


@dataclasses.dataclass(frozen=True, slots=True)
class HoldClaim:
    """Put our finalizer on the source claim."""


@dataclasses.dataclass(frozen=True, slots=True)
class DropClaim:
    """Take our finalizer off the source claim."""


@dataclasses.dataclass(frozen=True, slots=True)
class Create:
    """Create the content."""

    body: Object


@dataclasses.dataclass(frozen=True, slots=True)
class Amend:
    """Write the content. `reason` is the event's if the server refuses."""

    body: Object
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Publish:
    """Write the VolumeSnapshot's status, then tell of it."""

    news: News


@dataclasses.dataclass(frozen=True, slots=True)
class Delete:
    """Delete the content in exactly this version: the policy that was read is then the one that counts."""

    content: Object


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """Ask the server whether there is a content of this name."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Release:
    """Write the VolumeSnapshot without our finalizers."""

    body: Object


@dataclasses.dataclass(frozen=True, slots=True)
class Pending:
    """Something keeps it from being deleted: say so, and look again."""

    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Look again after so long."""

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do until something changes."""


Step = Hold | HoldClaim | DropClaim | Create | Amend | Publish | Delete | Look | Release | Pending | Wait | Rest


def decide(view: View) -> Step:
    """The one next step."""
    snapshot, content = view.facts.snapshot, view.facts.content
    if snapshot is None:
        return _alone(content)
    if is_deleting(snapshot):
        return _deleting(view, snapshot)
    if content is not None and is_bound(content, snapshot):
        return _bound(view, snapshot, content)
    return _unbound(view, snapshot)


def needs_claim(facts: Facts) -> bool:
    """Whether this snapshot needs the hold on its claim: while a cut may come or be under way.

    Upstream holds until the snapshot is ready, so that one that never can be keeps its claim for ever. Here a request
    in trouble holds nothing, one whose cut has failed for certain holds no claim that is being deleted, and one whose
    content is being deleted before its cut holds none.
    """
    snapshot, content = facts.snapshot, facts.content
    if snapshot is None or is_ready(snapshot) or member.is_made_by_group(snapshot):
        return False
    if not path(snapshot, "spec", "source", "persistentVolumeClaimName"):
        return False
    if content is None or not is_bound(content, snapshot):
        return not is_deleting(snapshot) and translate.request(_HERE, facts).trouble is None
    if path(content, "status", "readyToUse") is True:
        return False
    if _may_be_under_way(content):
        return True
    failed = path(content, "status", "error") and facts.claim is not None and is_deleting(facts.claim)
    return not (failed or is_deleting(content))


def _may_be_under_way(content: Object) -> bool:
    """Whether the driver half has called, or the snapshot is cut."""
    notes = content["metadata"].get("annotations") or {}
    return bool(names.BEING_CREATED in notes or names.INTENT in notes or path(content, "status", "snapshotHandle"))


def _alone(content: Object | None) -> Step:
    """A content whose VolumeSnapshot is not there is left alone: it may be a copy from another cluster.

    Only the finalizer is put on, as upstream does: without it a delete of the object would strand the data.
    """
    if content is None or is_deleting(content) or not snapshot_of_reference(content):
        return Rest()
    return Rest() if _is_protected(content) else Amend(_protected(content), "")


def _unbound(view: View, snapshot: Object) -> Step:
    """It has no content of its own yet: find it, or make it."""
    facts = view.facts
    if member.is_made_by_group(snapshot) and not bound_status.was_told(snapshot):
        return Rest()  # Its group is about to make its content; nothing is ever cut for it alone.
    request = translate.request(_HERE, facts)
    if request.trouble is not None:
        if _claim_is_to_go(view):
            return DropClaim()
        news = bound_status.in_trouble(snapshot, request.trouble, view.now)
        return Publish(news) if news is not None else Rest()
    held = shape.held_snapshot(facts)
    if held is not None:
        return Hold(held)
    if isinstance(request.source, HandleSource):
        assert facts.content is not None
        return Amend(shape.bound_content(facts.content, facts), "SnapshotBindFailed")
    if not _claim_is_held(facts):
        return HoldClaim()
    return Create(_new_content(view, request))


def _bound(view: View, snapshot: Object, content: Object) -> Step:
    """Its content is there: keep both protected, and tell what the content says."""
    facts = view.facts
    if not is_deleting(content):
        if _lacks_class(snapshot, content):
            return Amend(shape.bound_content(content, facts), "SnapshotBindFailed")
        if not _is_protected(content):
            return Amend(_protected(content), "")
    if names.SOURCE_FINALIZER not in (snapshot["metadata"].get("finalizers") or ()):
        held = shape.held_snapshot(facts)
        assert held is not None
        return Hold(held)
    if _claim_is_to_take(view, content):
        return HoldClaim()
    trouble = None if is_ready(snapshot) else translate.request(_HERE, facts).trouble
    news = bound_status.copied(snapshot, content, trouble, view.now)
    if news is not None:
        left = PATIENCE_SECONDS - view.waited_seconds
        if left > 0 and bound_status.is_silent(snapshot, content, trouble):
            return Wait(left)
        return Publish(news)
    return DropClaim() if _claim_is_to_go(view) else Rest()


def _deleting(view: View, snapshot: Object) -> Step:
    """Mark the content, delete it if its policy says so, and let go last."""
    facts = view.facts
    finalizers = list(snapshot["metadata"].get("finalizers") or ())
    kept = [name for name in finalizers if name not in names.RELEASED_FINALIZERS]
    if kept == finalizers:
        return DropClaim() if _claim_is_to_go(view) else Rest()
    if view.kept_by_group:
        return Pending(view.kept_by_group)
    content = facts.content
    if content is None:
        if not view.content_known:
            return Look(view.content_name)
    elif is_bound(content, snapshot):
        step = _take_down(view, snapshot, content)
        if step is not None:
            return step
    if _claim_is_to_go(view, leaving=True):
        return DropClaim()
    return Release({**snapshot, "metadata": {**snapshot["metadata"], "finalizers": kept}})


def _take_down(view: View, snapshot: Object, content: Object) -> Step | None:
    """What is left to do about the content; None when the VolumeSnapshot may go."""
    if view.facts.restoring:
        return Pending(f"Snapshot is being used to restore a PVC: {', '.join(view.facts.restoring)}")
    deletes = translate.policy_of(content["spec"]) is DeletionPolicy.DELETE
    if deletes and view.shared_with:
        return Pending(f"Snapshot is also held by VolumeSnapshotContent {', '.join(view.shared_with)}")
    marked = _marked(snapshot, content)
    if marked is not None:
        return Amend(marked, "SnapshotContentObjectDeleteError")
    if not deletes:
        return None
    return Rest() if is_deleting(content) else Delete(content)


# -- objects -----------------------------------------------------------------------------------------------------


def _is_protected(content: Object) -> bool:
    return names.CONTENT_FINALIZER in (content["metadata"].get("finalizers") or ())


def _protected(content: Object) -> Object:
    finalizers = [*(content["metadata"].get("finalizers") or ()), names.CONTENT_FINALIZER]
    return {**content, "metadata": {**content["metadata"], "finalizers": finalizers}}


def _lacks_class(snapshot: Object, content: Object) -> bool:
    named = path(snapshot, "spec", "volumeSnapshotClassName")
    return bool(static_content(snapshot) and named and not path(content, "spec", "volumeSnapshotClassName"))


def _marked(snapshot: Object, content: Object) -> Object | None:
    """The content with the marks that let the driver half delete it, held until it has; None when it has them."""
    notes = dict(content["metadata"].get("annotations") or {})
    wanted = {names.BEING_DELETED: "yes"}
    if (snapshot["metadata"].get("annotations") or {}).get(names.ABANDON) == "true":
        wanted[names.ABANDON] = "true"
    held = content if is_deleting(content) or _is_protected(content) else _protected(content)
    if held is content and all(notes.get(key) == value for key, value in wanted.items()):
        return None
    return {**held, "metadata": {**held["metadata"], "annotations": {**notes, **wanted}}}


def _new_content(view: View, request: SnapshotRequest) -> Object:
    """The content, complete in one write: held, bound by uid, with the class's policy, driver and secret."""
    record = Record(
        driver=request.driver,
        source=request.source,
        snapshot_name=request.snapshot_name,
        policy=request.policy,
        secrets=request.secrets,
    )
    content = shape.new_content(record, view.facts)
    if not view.source_mode:
        content["spec"].pop("sourceVolumeMode", None)
    if view.node:
        content["metadata"]["labels"] = {names.MANAGED_BY: view.node}
    return content


# -- the claim ---------------------------------------------------------------------------------------------------


def _claim_is_held(facts: Facts) -> bool:
    return names.CLAIM_FINALIZER in (path(facts.claim, "metadata", "finalizers") or ())


def _claim_is_to_take(view: View, content: Object) -> bool:
    """A hold that was lost while the cut may still be to come."""
    facts = view.facts
    if facts.claim is None or is_deleting(facts.claim) or _claim_is_held(facts) or view.claim_left:
        return False
    return not path(content, "status", "snapshotHandle") and needs_claim(facts)


def _claim_is_to_go(view: View, *, leaving: bool = False) -> bool:
    if view.claim_left or not _claim_is_held(view.facts) or view.claim_shared:
        return False
    return leaving or not needs_claim(view.facts)
