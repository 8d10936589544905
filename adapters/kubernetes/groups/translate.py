"""Objects -> GroupRequest: what one VolumeGroupSnapshot asks for, in neutral words. Pure.

Codes and messages of troubles are upstream's event reasons and texts, because owners search for them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes import names as single
from adapters.kubernetes import templates
from adapters.kubernetes.decide import wellformed
from adapters.kubernetes.facts import is_deleting, path, seconds_of
from adapters.kubernetes.groups import names, selector
from adapters.kubernetes.groups.facts import (
    GroupFacts,
    Source,
    is_bound,
    is_held,
    is_ready,
    points_back,
    static_content,
)
from adapters.kubernetes.translate import Trouble, claimed_by, policy_of
from bridge.model.failure import Failure
from bridge.model.group import GroupHandleSource, GroupRequest, GroupSource, VolumesSource
from bridge.model.keys import group_key
from bridge.model.secret import NO_SECRET, SecretRef, SnapshotSecrets
from bridge.model.snapshot import DeletionPolicy, Wish

Object = dict[str, Any]
FAILED = "GroupSnapshotContentCreationFailed"


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """What is to be cut or taken over, and how."""

    driver: str
    source: GroupSource
    policy: DeletionPolicy
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    secrets: SnapshotSecrets = SnapshotSecrets()
    trouble: Failure | None = None


def request(cluster: str, facts: GroupFacts) -> GroupRequest:
    """The request as these facts have it."""
    if facts.group is None:
        return _gone(cluster, facts)
    metadata = facts.group["metadata"]
    cut = _cut(facts)
    wish = Wish.ABSENT if is_deleting(facts.group) else Wish.PRESENT
    return GroupRequest(
        key=group_key(cluster, facts.uid),
        wish=wish,
        namespace=metadata["namespace"],
        name=metadata["name"],
        driver=cut.driver,
        source=cut.source,
        group_name=facts.naming.snapshot_name(facts.uid),
        policy=cut.policy,
        parameters=cut.parameters,
        secrets=cut.secrets,
        held=_held(facts.group, facts.sources),
        in_use=facts.in_use,
        trouble=cut.trouble if wish is Wish.PRESENT else None,
        created_at=seconds_of(metadata.get("creationTimestamp")),
        abandon=(metadata.get("annotations") or {}).get(single.ABANDON) == "true",
    )


def choose_class(facts: GroupFacts) -> Object | None:
    """The class that counts: the one named, else the only default one of the first volume's driver."""
    if facts.class_name:
        if facts.class_trouble:
            raise _class_malformed("GetGroupSnapshotClassFailed", "get", facts.class_name, facts.class_trouble)
        if facts.klass is None:
            missing = f'volumegroupsnapshotclass.{names.GROUP} "{facts.class_name}" not found'
            text = f"Failed to get group snapshot class with error {missing}"
            raise Trouble("GetGroupSnapshotClassFailed", text, "Create the class, or name another one")
        return facts.klass
    if facts.group is not None and static_content(facts.group):
        return None
    prefix = "Failed to set default group snapshot class with error"
    _volumes(facts, "SetDefaultGroupSnapshotClassFailed", prefix)
    found = len(facts.defaults)
    if found == 1:
        wrong = wellformed.klass(facts.defaults[0])
        if wrong:
            name = facts.defaults[0]["metadata"]["name"]
            raise _class_malformed("SetDefaultGroupSnapshotClassFailed", "set default", name, wrong)
        return facts.defaults[0]
    what = "cannot find default group snapshot class" if not found else f"{found} default snapshot classes were found"
    hint = f'Name a class, or mark exactly one of the driver\'s group classes with {names.DEFAULT_CLASS}: "true"'
    raise Trouble("SetDefaultGroupSnapshotClassFailed", f"{prefix} {what}", hint)


def _class_malformed(code: str, verb: str, name: str, wrong: str) -> Trouble:
    text = f"Failed to {verb} group snapshot class with error volumegroupsnapshotclass {name} is malformed: {wrong}"
    return Trouble(code, text, "Correct the class, or name another one")


def _gone(cluster: str, facts: GroupFacts) -> GroupRequest:
    """Only the content is left."""
    content = facts.content
    assert content is not None
    reference = path(content, "spec", "volumeGroupSnapshotRef") or {}
    cut = from_content(facts, content)
    return GroupRequest(
        key=group_key(cluster, facts.uid),
        wish=Wish.GONE,
        namespace=str(reference.get("namespace") or ""),
        name=str(reference.get("name") or content["metadata"]["name"]),
        driver=cut.driver,
        source=cut.source,
        group_name=facts.naming.snapshot_name(facts.uid),
        policy=cut.policy,
        parameters=cut.parameters,
        secrets=cut.secrets,
        in_use=facts.in_use,
        created_at=seconds_of(content["metadata"].get("creationTimestamp")),
    )


def _cut(facts: GroupFacts) -> Cut:
    group, content = facts.group, facts.content
    assert group is not None
    try:
        if content is not None and is_bound(content, group):
            return from_content(facts, content)
        return _to_adopt(facts) if static_content(group) else _to_make(facts)
    except Trouble as trouble:
        return _in_trouble(facts, trouble.failure)


def _in_trouble(facts: GroupFacts, trouble: Failure) -> Cut:
    """As much as is known: the driver says whose business the trouble is."""
    found = [path(source.volume, "spec", "csi") or {} for source in facts.sources]
    driver = next((csi["driver"] for csi in found if csi.get("driver")), "") or (facts.klass or {}).get("driver")
    driver = driver or path(facts.content, "spec", "driver") or ""
    handles = tuple(str(csi["volumeHandle"]) for csi in found if csi.get("volumeHandle"))
    adopted = path(facts.content, "spec", "source", "groupSnapshotHandles")
    source: GroupSource = handles_of(adopted) if adopted else VolumesSource(handles)
    return Cut(driver, source, DeletionPolicy.DELETE, trouble=trouble)


def from_content(facts: GroupFacts, content: Object) -> Cut:
    """The content is made: it, not the class, says what and for how long."""
    spec = content["spec"]
    parameters: dict[str, str] = {}
    secrets = annotated_secrets(content)
    trouble: Failure | None = None
    try:
        if facts.klass is not None:
            given = facts.klass.get("parameters") or {}
            parameters = templates.driver_parameters(given) | _metadata(facts, content)
            from_class = templates.group_secrets(given, template_names(content))
            secrets = dataclasses.replace(from_class, delete=secrets.delete or from_class.delete)
        elif facts.class_name:
            choose_class(facts)
    except templates.TemplateError as error:
        trouble = _creation_failed(str(error)).failure
    except Trouble as missing:
        trouble = missing.failure
    return Cut(spec["driver"], content_source(content), policy_of(spec), parameters, secrets, trouble)


def _to_adopt(facts: GroupFacts) -> Cut:
    """A pre-provisioned group that is not bound yet."""
    group, content = facts.group, facts.content
    assert group is not None
    if content is None:
        raise Trouble(
            "GroupSnapshotContentMissing",
            "VolumeGroupSnapshotContent is missing",
            "Create the content that the group names",
        )
    handles = path(content, "spec", "source", "groupSnapshotHandles")
    if not handles:
        raise Trouble(
            "GroupSnapshotContentMismatch",
            "VolumeGroupSnapshotContent is dynamically provisioned while expecting a pre-provisioned one",
        )
    if not points_back(content, group):
        raise _misbound(content, group)
    klass = choose_class(facts)
    if klass is not None:
        _same_driver(klass, content["spec"]["driver"], content["metadata"]["name"], group)
    secrets = annotated_secrets(content)
    if klass is not None:
        from_class = _class_secrets(klass, template_names(content))
        secrets = dataclasses.replace(from_class, delete=secrets.delete or from_class.delete)
    spec = content["spec"]
    return Cut(spec["driver"], handles_of(handles), policy_of(spec), {}, secrets)


def _to_make(facts: GroupFacts) -> Cut:
    """A dynamic group that has no content of its own yet."""
    group, content = facts.group, facts.content
    assert group is not None
    metadata = group["metadata"]
    if content is not None:
        raise _not_mine(content, group)
    was_cut = path(group, "status", "creationTime") or is_ready(group)
    if was_cut and path(group, "status", "boundVolumeGroupSnapshotContentName"):
        # It was cut once. Cutting anew would give other data under the old name.
        raise Trouble(
            "GroupSnapshotContentMissing",
            "VolumeGroupSnapshotContent is missing",
            "The group was made and its content object has vanished: restore that object, or delete the group",
        )
    klass = choose_class(facts)
    volumes = _volumes(facts, FAILED, "failed to create group snapshot content with error")
    assert klass is not None
    for volume in volumes:
        _same_driver(klass, volume["spec"]["csi"]["driver"], volume["metadata"]["name"], group)
    given = klass.get("parameters") or {}
    own = templates.Names(names.content_name(facts.uid), metadata["namespace"], metadata["name"])
    try:
        parameters = templates.driver_parameters(given) | names.metadata(
            facts.naming, metadata["namespace"], metadata["name"], own.content
        )
    except templates.TemplateError as error:
        raise _creation_failed(str(error)) from error
    handles = dict.fromkeys(str(volume["spec"]["csi"]["volumeHandle"]) for volume in volumes)
    return Cut(
        klass["driver"],
        VolumesSource(tuple(handles)),
        DeletionPolicy(klass["deletionPolicy"]),
        parameters,
        _class_secrets(klass, own),
    )


def _volumes(facts: GroupFacts, code: str, prefix: str) -> list[Object]:
    """The CSI volumes behind all selected claims, each bound both ways. Raises Trouble for the first that is not."""
    assert facts.group is not None
    chosen = path(facts.group, "spec", "source", "selector")
    if chosen is None:
        text = "Exactly one of Selector and VolumeGroupSnapshotContentName should be specified"
        raise Trouble("GroupSnapshotValidationError", text)
    try:
        selector.check(chosen)
    except selector.SelectorError as error:
        raise Trouble("GroupSnapshotValidationError", str(error), "Make the group anew: it is immutable") from error
    if not facts.sources:
        shown = selector.text(chosen)
        raise Trouble(code, f"{prefix} label selector {shown} for group snapshot not applied to any PVC")
    found = []
    for source in facts.sources:
        what = _what_is_wrong(source, facts.group)
        if what:
            raise Trouble(code, f"{prefix} {what}")
        assert source.volume is not None
        found.append(source.volume)
    return found


def _what_is_wrong(source: Source, group: Object) -> str:
    """Why this claim's volume cannot be cut; empty when it can."""
    claim, volume = source.claim, source.volume
    assert claim is not None
    name = claim["metadata"]["name"]
    if is_deleting(claim) and single.CLAIM_FINALIZER not in (claim["metadata"].get("finalizers") or ()):
        called = group["metadata"]["name"]
        return f"cannot add finalizer on claim [{name}] for group snapshot [{called}]: claim is being deleted"
    if path(claim, "status", "phase") != "Bound":
        return f"the PVC {name} is not yet bound to a PV, will not attempt to take a group snapshot"
    if volume is None:
        called = path(claim, "spec", "volumeName")
        return f'failed to retrieve PV {called} from the API server: "persistentvolumes \\"{called}\\" not found"'
    if not claimed_by(volume, claim):
        return "claim in dataSource not bound or invalid"
    if not path(volume, "spec", "csi", "volumeHandle"):
        metadata = group["metadata"]
        place = f"{metadata['namespace']}/{metadata['name']}"
        return f"cannot snapshot a non-CSI volume for group snapshot {place}: {volume['metadata']['name']}"
    return ""


def _metadata(facts: GroupFacts, content: Object) -> dict[str, str]:
    reference = path(content, "spec", "volumeGroupSnapshotRef") or {}
    place = str(reference.get("namespace") or ""), str(reference.get("name") or "")
    return names.metadata(facts.naming, *place, content["metadata"]["name"])


def _same_driver(klass: Object, driver: str, volume: str, group: Object) -> None:
    if klass.get("driver") == driver:
        return
    place = f"{group['metadata']['namespace']}/{group['metadata']['name']}"
    raise _creation_failed(
        f"Volume CSI driver ({driver}) mismatch with VolumeGroupSnapshotClass ({klass.get('driver')}) "
        f"{place}: {volume}",
        "Select claims of one driver only, and name a class of that driver",
    )


def _not_mine(content: Object, group: Object) -> Trouble:
    called = content["metadata"]["name"]
    if not points_back(content, group):
        return _misbound(content, group)
    return Trouble(
        "GroupSnapshotContentMismatch",
        f"VolumeGroupSnapshotContent {called} is pre-provisioned while expecting a dynamically provisioned one",
    )


def _misbound(content: Object, group: Object) -> Trouble:
    if is_ready(group):
        text = "VolumeGroupSnapshotContent is not bound to the VolumeGroupSnapshot correctly"
        return Trouble("GroupSnapshotMisbound", text)
    called = content["metadata"]["name"]
    text = f"VolumeGroupSnapshotContent [{called}] is bound to a different group snapshot"
    return Trouble("GroupSnapshotContentMisbound", text)


def _creation_failed(what: str, hint: str = "") -> Trouble:
    return Trouble(FAILED, f"failed to create group snapshot content with error {what}", hint)


def _class_secrets(klass: Object, given: templates.Names) -> SnapshotSecrets:
    try:
        return templates.group_secrets(klass.get("parameters") or {}, given)
    except templates.TemplateError as error:
        text = f"failed to get input parameters to create group snapshot {given.snapshot}: {error}"
        raise _creation_failed(text) from error


def template_names(content: Object) -> templates.Names:
    """What the templates of a content's secrets may insert."""
    reference = path(content, "spec", "volumeGroupSnapshotRef") or {}
    return templates.Names(
        content["metadata"]["name"], str(reference.get("namespace") or ""), str(reference.get("name") or "")
    )


def handles_of(given: Object) -> GroupHandleSource:
    """The source of a pre-provisioned content."""
    members = given.get("volumeSnapshotHandles") or ()
    return GroupHandleSource(str(given.get("volumeGroupSnapshotHandle") or ""), tuple(str(one) for one in members))


def content_source(content: Object) -> GroupSource:
    """What a content was made from."""
    source = content["spec"]["source"]
    given = source.get("groupSnapshotHandles")
    return handles_of(given) if given else VolumesSource(tuple(source.get("volumeHandles") or ()))


def annotated_secrets(content: Object) -> SnapshotSecrets:
    """The secret that the content itself names for its deletion; upstream uses it for the create too."""
    notes = content["metadata"].get("annotations") or {}
    name, namespace = notes.get(names.DELETION_SECRET_NAME), notes.get(names.DELETION_SECRET_NAMESPACE)
    reference = SecretRef("k8s", f"{namespace}/{name}") if name and namespace else NO_SECRET
    return SnapshotSecrets(create=reference, delete=reference, inspect=reference)


def _held(group: Object, sources: tuple[Source, ...]) -> bool:
    """Whether the group, and while it is not ready each of its claims, carry our finalizers."""
    if is_deleting(group) or not is_held(group):
        return is_held(group)
    if is_ready(group):
        return True
    claims = (source.claim for source in sources if source.claim is not None)
    return all(
        is_deleting(claim) or single.CLAIM_FINALIZER in (claim["metadata"].get("finalizers") or ())
        for claim in claims
    )
