"""The cluster half's decision over one VolumeGroupSnapshot and its content: what is known -> one next step. Pure.

The sibling of `binding.py`: it makes contents, members and statuses, and never decides what happens on a backend.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes import names as single
from adapters.kubernetes.decide.bound_status import Event, News
from adapters.kubernetes.facts import is_deleting, path
from adapters.kubernetes.groups import names, shape, status, translate
from adapters.kubernetes.groups.facts import (
    GroupFacts,
    group_of_reference,
    is_bound,
    is_held,
    is_ready,
    static_content,
)
from adapters.kubernetes.translate import Trouble, policy_of
from bridge.model.group import GroupHandleSource, GroupRecord, GroupRequest, GroupStatus
from bridge.model.snapshot import DeletionPolicy, SnapshotState

Object = dict[str, Any]
_HERE = "here"
"""This half serves one cluster; its keys never leave it."""


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """All that one decision may know."""

    facts: GroupFacts
    now: float = 0.0
    content_known: bool = True
    """Of a content that is absent: whether that is certain, and no lag of ours."""
    members_done: bool = False
    """Whether this turn has seen to the members as the content has them now."""
    members_stay: bool = False
    """Whether a member's deletion has not been asked for yet."""
    claims_stray: bool = False
    """Whether a claim of the namespace is held that nobody but this group may need."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Write the group with our finalizer and, where a default was chosen, its class."""

    body: Object


@dataclasses.dataclass(frozen=True, slots=True)
class HoldClaims:
    """Put our finalizer on each source claim."""


@dataclasses.dataclass(frozen=True, slots=True)
class DropClaims:
    """Take our finalizer off the claims that nobody needs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Create:
    """Create the content."""

    body: Object


@dataclasses.dataclass(frozen=True, slots=True)
class Amend:
    """Write the content. `reason` is the event's if the server refuses."""

    body: Object
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Members:
    """Have each member's objects say what the content says."""


@dataclasses.dataclass(frozen=True, slots=True)
class LetMembersGo:
    """Ask for the end of each member, so that nothing can begin to read it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Publish:
    """Write the group's status, then tell of it."""

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
    """Write the group without our finalizer."""

    body: Object


@dataclasses.dataclass(frozen=True, slots=True)
class Pending:
    """Something keeps it from being deleted: say so, and look again."""

    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do until something changes."""


Step = (
    Hold | HoldClaims | DropClaims | Create | Amend | Members | LetMembersGo | Publish | Delete | Look | Release
    | Pending | Rest
)  # fmt: skip


def decide(view: View) -> Step:
    """The one next step."""
    group, content = view.facts.group, view.facts.content
    if group is None:
        return _alone(content)
    if is_deleting(group):
        return _deleting(view, group)
    if content is not None and is_bound(content, group):
        return _bound(view, group, content)
    return _unbound(view, group)


def creating(group: Object) -> Event:
    """What is told when the content has been made."""
    metadata = group["metadata"]
    text = f"Waiting for a group snapshot {metadata['namespace']}/{metadata['name']} to be created by the CSI driver."
    return Event("CreatingGroupSnapshot", text)


def _alone(content: Object | None) -> Step:
    """A content whose group is not there is left alone: it may be a copy from another cluster."""
    if content is None or is_deleting(content) or not group_of_reference(content):
        return Rest()
    held = shape.with_finalizer(content)
    return Rest() if held is content else Amend(held)


def _unbound(view: View, group: Object) -> Step:
    """It has no content of its own yet: find it, or make it."""
    facts = view.facts
    request = translate.request(_HERE, facts)
    if request.trouble is not None:
        if view.claims_stray:
            return DropClaims()
        state = GroupStatus(SnapshotState.FAILING, failure=request.trouble)
        told = status.tell(group, None, state, view.now)
        if told.status is None:
            return Rest()
        events = (Event(told.reason, told.message, warning=True),) if told.reason else ()
        return Publish(News(told.status, events))
    held = held_group(facts)
    if held is not None:
        return Hold(held)
    if isinstance(request.source, GroupHandleSource):
        assert facts.content is not None
        return Amend(shape.bound_content(facts.content, facts), "GroupSnapshotBindFailed")
    if not request.held:
        return HoldClaims()
    return Create(shape.new_content(_record(request), facts))


def _bound(view: View, group: Object, content: Object) -> Step:
    """Its content is there: keep both protected, have the members, and tell what the content says."""
    if not is_deleting(content):
        bound = _bound_again(view.facts, group, content)
        if bound is not None:
            return bound
    if not is_held(group):
        held = held_group(view.facts)
        assert held is not None
        return Hold(held)
    if path(content, "status", "volumeGroupSnapshotHandle") and not view.members_done and not is_deleting(content):
        return Members()
    news = copied(group, content)
    if news is not None:
        return Publish(news)
    done = is_ready(group) or has_failed(view.facts)
    return DropClaims() if done and view.claims_stray else Rest()


def _bound_again(facts: GroupFacts, group: Object, content: Object) -> Step | None:
    named = path(group, "spec", "volumeGroupSnapshotClassName")
    if static_content(group) and named and not path(content, "spec", "volumeGroupSnapshotClassName"):
        return Amend(shape.bound_content(content, facts), "GroupSnapshotBindFailed")
    held = shape.with_finalizer(content)
    return None if held is content else Amend(held)


def _deleting(view: View, group: Object) -> Step:
    """The members first, then the content, and the group last."""
    facts, content = view.facts, view.facts.content
    if not is_held(group):
        return DropClaims() if view.claims_stray else Rest()
    if content is None and not view.content_known:
        return Look(static_content(group) or names.content_name(facts.uid))
    own = content if is_bound(content, group) else None
    if facts.in_use and not (own is not None and is_deleting(own) and names.BEING_DELETED in _notes(own)):
        return Pending(facts.in_use)
    if view.members_stay:
        return LetMembersGo()
    if own is not None:
        step = _take_down(group, own)
        if step is not None:
            return step
    if view.claims_stray:
        return DropClaims()
    kept = [name for name in group["metadata"]["finalizers"] if name != names.BOUND_FINALIZER]
    return Release({**group, "metadata": {**group["metadata"], "finalizers": kept}})


def _take_down(group: Object, content: Object) -> Step | None:
    """What is left to do about the content; None when the group may go."""
    wanted = {names.BEING_DELETED: "yes"}
    if (group["metadata"].get("annotations") or {}).get(single.ABANDON) == "true":
        wanted[single.ABANDON] = "true"
    held = content if is_deleting(content) else shape.with_finalizer(content)
    if held is not content or any(_notes(content).get(key) != value for key, value in wanted.items()):
        metadata = {**held["metadata"], "annotations": {**_notes(content), **wanted}}
        return Amend({**held, "metadata": metadata}, "GroupSnapshotContentObjectDeleteError")
    if policy_of(content["spec"]) is DeletionPolicy.RETAIN:
        return None
    return Rest() if is_deleting(content) else Delete(content)


def copied(group: Object, content: Object) -> News | None:
    """What the content's status changes about the group's; None when nothing does. The bound name is never lost."""
    said: Object = content.get("status") or {}
    before: Object = group.get("status") or {}
    after = dict(before)
    after.setdefault("boundVolumeGroupSnapshotContentName", content["metadata"]["name"])
    after["readyToUse"] = said.get("readyToUse") is True
    if said.get("creationTime"):
        after["creationTime"] = said["creationTime"]
    message = path(said, "error", "message")
    if not message:
        after.pop("error", None)
    elif path(before, "error", "message") != message:
        after["error"] = dict(said["error"])
    if after == before:
        return None
    return News(after, _events(group, before, after))


def _events(group: Object, before: Object, after: Object) -> tuple[Event, ...]:
    place = f"{group['metadata']['namespace']}/{group['metadata']['name']}"
    found = []
    if after.get("creationTime") and not before.get("creationTime"):
        text = f"GroupSnapshot {place} was successfully created by the CSI driver."
        found.append(Event("GroupSnapshotCreated", text))
    if after["readyToUse"] and before.get("readyToUse") is not True:
        found.append(Event("GroupSnapshotReady", f"GroupSnapshot {place} is ready to use."))
    return tuple(found)


def held_group(facts: GroupFacts) -> Object | None:
    """The group with our finalizer, and with its class where a default was chosen; None when it has them."""
    group = facts.group
    assert group is not None
    if is_held(group):
        return None
    metadata = group["metadata"]
    finalizers = [*(metadata.get("finalizers") or ()), names.BOUND_FINALIZER]
    held = {**group, "metadata": {**metadata, "finalizers": finalizers}}
    if not facts.class_name:
        try:
            klass = translate.choose_class(facts)
        except Trouble:
            klass = None
        if klass is not None:
            held["spec"] = {**group["spec"], "volumeGroupSnapshotClassName": klass["metadata"]["name"]}
    return held


def needs_claims(facts: GroupFacts) -> bool:
    """Whether this group needs the hold on its claims: while a cut may come or be under way."""
    group, content = facts.group, facts.content
    if group is None or is_ready(group) or static_content(group) or not is_held(group):
        return False
    if content is not None and is_bound(content, group):
        return path(content, "status", "readyToUse") is not True
    return not is_deleting(group) and translate.request(_HERE, facts).trouble is None


def needs_claim(facts: GroupFacts, claim: Object) -> bool:
    """Whether it needs the hold on this one of its claims: one that has failed for certain keeps none from going."""
    return needs_claims(facts) and not (is_deleting(claim) and has_failed(facts))


def has_failed(facts: GroupFacts) -> bool:
    """Whether its cut was refused, and none may be under way."""
    group, content = facts.group, facts.content
    if group is None or content is None or not is_bound(content, group):
        return False
    notes = _notes(content)
    begun = names.BEING_CREATED in notes or single.INTENT in notes
    return bool(path(content, "status", "error")) and not (
        begun or path(content, "status", "volumeGroupSnapshotHandle")
    )


def _record(request: GroupRequest) -> GroupRecord:
    return GroupRecord(
        driver=request.driver,
        source=request.source,
        group_name=request.group_name,
        policy=request.policy,
        secrets=request.secrets,
    )


def _notes(content: Object) -> Object:
    return content["metadata"].get("annotations") or {}
