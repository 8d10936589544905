"""Cached objects -> SnapshotRequest. Pure: the same facts give the same request, and nothing is read or written.

Texts and codes of troubles are upstream's event reasons and messages, because owners search for them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from adapters.kubernetes import member, names, templates
from adapters.kubernetes.decide import wellformed
from adapters.kubernetes.facts import (
    Facts,
    is_bound,
    is_deleting,
    is_ready,
    path,
    points_back,
    seconds_of,
    snapshot_of_reference,
    static_content,
)
from bridge.model.failure import Failure, FailureKind
from bridge.model.keys import snapshot_key
from bridge.model.secret import NO_SECRET, SecretRef, SnapshotSecrets
from bridge.model.snapshot import DeletionPolicy, HandleSource, SnapshotRequest, Source, VolumeSource, Wish

Object = dict[str, Any]


class Trouble(Exception):
    """The request cannot be carried out as it stands."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.failure = Failure(FailureKind.REFUSED, code, message, hint)


@dataclasses.dataclass(frozen=True, slots=True)
class _Cut:
    """What is to be cut or taken over, and how."""

    driver: str
    source: Source
    policy: DeletionPolicy
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    secrets: SnapshotSecrets = SnapshotSecrets()
    trouble: Failure | None = None


def request(cluster: str, facts: Facts) -> SnapshotRequest:
    """The request as these facts have it."""
    if facts.snapshot is None:
        return _gone(cluster, facts)
    metadata = facts.snapshot["metadata"]
    cut = _cut(facts)
    wish = Wish.ABSENT if is_deleting(facts.snapshot) else Wish.PRESENT
    return SnapshotRequest(
        key=snapshot_key(cluster, facts.uid),
        wish=wish,
        namespace=metadata["namespace"],
        name=metadata["name"],
        driver=cut.driver,
        source=cut.source,
        snapshot_name=facts.naming.snapshot_name(facts.uid),
        policy=cut.policy,
        parameters=cut.parameters,
        secrets=cut.secrets,
        held=_held(facts.snapshot, facts.claim),
        in_use=_in_use(facts.restoring),
        trouble=cut.trouble if wish is Wish.PRESENT else None,
        volume=path(facts.snapshot, "spec", "source", "persistentVolumeClaimName") or "",
        created_at=seconds_of(metadata.get("creationTimestamp")),
        abandon=(metadata.get("annotations") or {}).get(names.ABANDON) == "true",
    )


def choose_class(facts: Facts) -> Object | None:
    """The class that counts: the one named, else the only default one of the volume's driver. Raises Trouble."""
    if facts.class_name:
        if facts.class_trouble:
            raise _class_malformed("GetSnapshotClassFailed", "get", facts.class_name, facts.class_trouble)
        if facts.klass is None:
            missing = f'volumesnapshotclass.{names.GROUP} "{facts.class_name}" not found'
            raise Trouble(
                "GetSnapshotClassFailed",
                f"Failed to get snapshot class with error {missing}",
                "Create the class, or name another one",
            )
        return facts.klass
    if facts.snapshot is not None and static_content(facts.snapshot):
        return None
    _volume(facts, "SetDefaultSnapshotClassFailed", "Failed to set default snapshot class with error")
    found = len(facts.defaults)
    if found == 1:
        wrong = wellformed.klass(facts.defaults[0])
        if wrong:
            name = facts.defaults[0]["metadata"]["name"]
            raise _class_malformed("SetDefaultSnapshotClassFailed", "set default", name, wrong)
        return facts.defaults[0]
    what = "cannot find default snapshot class" if not found else f"{found} default snapshot classes were found"
    raise Trouble(
        "SetDefaultSnapshotClassFailed",
        f"Failed to set default snapshot class with error {what}",
        f'Name a class, or mark exactly one of the driver\'s classes with {names.DEFAULT_CLASS}: "true"',
    )


def _class_malformed(code: str, verb: str, name: str, wrong: str) -> Trouble:
    text = f"Failed to {verb} snapshot class with error volumesnapshotclass {name} is malformed: {wrong}"
    return Trouble(code, text, "Correct the class, or name another one")


def _gone(cluster: str, facts: Facts) -> SnapshotRequest:
    """Only the content is there: it is left, or it is a pre-provisioned one that waits for its VolumeSnapshot.

    The latter is looked up on the backend, as upstream does: its owner may rely on its status, and may delete it.
    """
    content = facts.content
    assert content is not None
    waits = not snapshot_of_reference(content) and bool(path(content, "spec", "source", "snapshotHandle"))
    wish = Wish.PRESENT if waits and not is_deleting(content) else Wish.GONE
    reference = path(content, "spec", "volumeSnapshotRef") or {}
    cut = _from_content(facts, content)
    return SnapshotRequest(
        key=snapshot_key(cluster, facts.uid),
        wish=wish,
        held=wish is Wish.PRESENT,  # An object that nobody uses needs no hold.
        namespace=str(reference.get("namespace") or ""),
        name=str(reference.get("name") or content["metadata"]["name"]),
        driver=cut.driver,
        source=cut.source,
        snapshot_name=facts.naming.snapshot_name(facts.uid),
        policy=cut.policy,
        parameters=cut.parameters,
        secrets=cut.secrets,
        created_at=seconds_of(content["metadata"].get("creationTimestamp")),
    )


def _cut(facts: Facts) -> _Cut:
    snapshot, content = facts.snapshot, facts.content
    assert snapshot is not None
    source = snapshot["spec"]["source"]
    try:
        if content is not None and is_bound(content, snapshot):
            return _from_content(facts, content)
        if source.get("persistentVolumeClaimName") and source.get("volumeSnapshotContentName"):
            raise _two_sources()
        if static_content(snapshot):
            return _to_adopt(facts)
        return _to_make(facts)
    except Trouble as trouble:
        return _in_trouble(facts, trouble.failure)


def _in_trouble(facts: Facts, trouble: Failure) -> _Cut:
    """As much as is known: the driver says whose business the trouble is."""
    driver = path(facts.volume, "spec", "csi", "driver") or (facts.klass or {}).get("driver")
    driver = driver or path(facts.content, "spec", "driver") or ""
    handle = path(facts.volume, "spec", "csi", "volumeHandle") or ""
    adopted = path(facts.content, "spec", "source", "snapshotHandle")
    source: Source = HandleSource(adopted) if adopted else VolumeSource(handle)
    return _Cut(driver, source, DeletionPolicy.DELETE, trouble=trouble)


def _from_content(facts: Facts, content: Object) -> _Cut:
    """The content is made: it, not the class, says what and for how long."""
    spec = content["spec"]
    parameters: dict[str, str] = {}
    secrets = annotated_secrets(content)
    trouble: Failure | None = None
    try:
        if facts.klass is not None:
            given = facts.klass.get("parameters") or {}
            parameters = templates.driver_parameters(given) | metadata_parameters(facts, content["metadata"]["name"])
            from_class = templates.secrets(given, _template_names(content))
            inspect = from_class.inspect or secrets.inspect
            secrets = dataclasses.replace(from_class, delete=secrets.delete, inspect=inspect)
        elif facts.class_name:
            choose_class(facts)
    except templates.TemplateError as error:
        trouble = _creation_failed(str(error)).failure
    except Trouble as missing:
        trouble = missing.failure
    if facts.snapshot is not None and not is_ready(facts.snapshot) and trouble is None and facts.klass is not None:
        trouble = _wrong_driver(facts.klass, spec["driver"])
    return _Cut(spec["driver"], content_source(content), policy_of(spec), parameters, secrets, trouble)


def _to_adopt(facts: Facts) -> _Cut:
    """A pre-provisioned snapshot that is not bound yet."""
    snapshot, content = facts.snapshot, facts.content
    assert snapshot is not None
    if content is None:
        raise Trouble(
            "SnapshotContentMissing", "VolumeSnapshotContent is missing", "Create the content that the snapshot names"
        )
    handle = path(content, "spec", "source", "snapshotHandle")
    if not handle:
        raise Trouble(
            "SnapshotContentMismatch",
            "VolumeSnapshotContent is dynamically provisioned while expecting a pre-provisioned one",
        )
    if not points_back(content, snapshot):
        raise _misbound(content, snapshot)
    klass = choose_class(facts)
    if klass is not None:
        wrong = _wrong_driver(klass, content["spec"]["driver"])
        if wrong is not None:
            return _in_trouble(facts, wrong)
    spec = content["spec"]
    secrets = annotated_secrets(content)
    if klass is not None:
        secrets = dataclasses.replace(_class_secrets(klass, _template_names(content)), delete=secrets.delete)
    return _Cut(spec["driver"], HandleSource(handle), policy_of(spec), {}, secrets)


def _to_make(facts: Facts) -> _Cut:
    """A dynamic snapshot that has no content of its own yet."""
    snapshot, content = facts.snapshot, facts.content
    assert snapshot is not None
    metadata = snapshot["metadata"]
    if content is not None:
        raise _not_mine(content, snapshot)
    if member.is_made_by_group(snapshot):
        raise Trouble(
            "SnapshotContentMissing",
            "VolumeSnapshotContent is missing",
            "It is a member of a group snapshot and is never cut alone: restore its content object, or delete it",
        )
    if _was_bound(snapshot):
        # It was cut once. Cutting anew would give other data under the old name.
        raise Trouble(
            "SnapshotContentMissing",
            "VolumeSnapshotContent is missing",
            "The snapshot was made and its content object has vanished: restore that object, or delete the snapshot",
        )
    klass = choose_class(facts)
    csi = _volume(facts, "SnapshotContentCreationFailed", "Failed to create snapshot content with error")
    assert klass is not None
    wrong = _wrong_driver(klass, csi["driver"])
    if wrong is not None:
        return _in_trouble(facts, wrong)
    given = klass.get("parameters") or {}
    own = templates.Names(names.content_name(facts.uid), metadata["namespace"], metadata["name"])
    try:
        parameters = templates.driver_parameters(given) | metadata_parameters(facts, own.content)
    except templates.TemplateError as error:
        raise _creation_failed(str(error)) from error
    secrets = _class_secrets(klass, own)
    return _Cut(
        csi["driver"],
        VolumeSource(csi["volumeHandle"]),
        DeletionPolicy(klass["deletionPolicy"]),
        parameters,
        dataclasses.replace(secrets, inspect=secrets.inspect or secrets.create),
    )


def metadata_parameters(facts: Facts, content_name: str) -> dict[str, str]:
    """What a plugin is told beside the class's parameters, where the naming wants it."""
    reference = facts.snapshot["metadata"] if facts.snapshot else path(facts.content, "spec", "volumeSnapshotRef")
    given = reference or {}
    return facts.naming.metadata(str(given.get("namespace") or ""), str(given.get("name") or ""), content_name)


def _volume(facts: Facts, code: str, prefix: str) -> Object:
    """The CSI half of the bound volume behind the snapshot's claim. Raises Trouble."""
    assert facts.snapshot is not None
    name = path(facts.snapshot, "spec", "source", "persistentVolumeClaimName") or ""
    claim, volume = facts.claim, facts.volume
    metadata = facts.snapshot["metadata"]
    if not name:
        raise _two_sources()
    if claim is None:
        what = f'failed to retrieve PVC {name} from the lister: "persistentvolumeclaim \\"{name}\\" not found"'
    elif is_deleting(claim) and names.CLAIM_FINALIZER not in (claim["metadata"].get("finalizers") or ()):
        what = f"cannot add finalizer on claim [{name}] for snapshot [{metadata['name']}]: claim is being deleted"
    elif path(claim, "status", "phase") != "Bound":
        what = f"the PVC {name} is not yet bound to a PV, will not attempt to take a snapshot"
    elif volume is None:
        called = path(claim, "spec", "volumeName")
        what = f'failed to retrieve PV {called} from the API server: "persistentvolumes \\"{called}\\" not found"'
    elif not claimed_by(volume, claim):
        what = "claim in dataSource not bound or invalid"
    elif not path(volume, "spec", "csi", "volumeHandle"):
        what = f"cannot find CSI PersistentVolumeSource for volume {volume['metadata']['name']}"
    else:
        csi: Object = volume["spec"]["csi"]
        return csi
    raise Trouble(code, f"{prefix} {what}")


def _two_sources() -> Trouble:
    """Both sources, or neither."""
    return Trouble(
        "SnapshotValidationError",
        "Exactly one of PersistentVolumeClaimName and VolumeSnapshotContentName should be specified",
    )


def claimed_by(volume: Object, claim: Object) -> bool:
    """Whether the volume is bound to this claim."""
    reference = path(volume, "spec", "claimRef") or {}
    own = claim["metadata"]
    named = reference.get("name") == own["name"] and reference.get("namespace") == own["namespace"]
    return bool(named and reference.get("uid") in (None, "", own["uid"]))


def _wrong_driver(klass: Object, driver: str) -> Failure | None:
    """A class of another driver would hand one driver's volume to another. Upstream does not look."""
    if klass.get("driver") == driver:
        return None
    return _creation_failed(
        f"the class {klass['metadata']['name']} is of driver {klass.get('driver')}, the volume of driver {driver}",
        "Name a class of the volume's driver",
    ).failure


def _not_mine(content: Object, snapshot: Object) -> Trouble:
    if not path(content, "spec", "source", "snapshotHandle"):
        return _misbound(content, snapshot)
    called = content["metadata"]["name"]
    return Trouble(
        "SnapshotContentMismatch",
        f"VolumeSnapshotContent {called} is pre-provisioned while expecting a dynamically provisioned one",
    )


def _was_bound(snapshot: Object) -> bool:
    """Whether its status tells of a snapshot that was cut, under a content of its own."""
    was_cut = path(snapshot, "status", "creationTime") or is_ready(snapshot)
    return bool(was_cut and path(snapshot, "status", "boundVolumeSnapshotContentName"))


def _misbound(content: Object, snapshot: Object) -> Trouble:
    if is_ready(snapshot) or _was_bound(snapshot):
        text = "VolumeSnapshotContent is not bound to the VolumeSnapshot correctly"
        return Trouble("SnapshotMisbound", text)
    called = content["metadata"]["name"]
    return Trouble("SnapshotContentMisbound", f"VolumeSnapshotContent [{called}] is bound to a different snapshot")


def _creation_failed(what: str, hint: str = "") -> Trouble:
    return Trouble("SnapshotContentCreationFailed", f"Failed to create snapshot content with error {what}", hint)


def _class_secrets(klass: Object, given: templates.Names) -> SnapshotSecrets:
    try:
        return templates.secrets(klass.get("parameters") or {}, given)
    except templates.TemplateError as error:
        text = f"failed to get input parameters to create snapshot {given.snapshot}: {error}"
        raise _creation_failed(text) from error


def _template_names(content: Object) -> templates.Names:
    reference = path(content, "spec", "volumeSnapshotRef") or {}
    return templates.Names(
        content["metadata"]["name"], str(reference.get("namespace") or ""), str(reference.get("name") or "")
    )


def content_source(content: Object) -> Source:
    """What a content was made from."""
    source = content["spec"]["source"]
    handle = source.get("snapshotHandle")
    return HandleSource(handle) if handle else VolumeSource(source.get("volumeHandle") or "")


def policy_of(spec: Object) -> DeletionPolicy:
    """A content's policy; anything but Delete keeps the data."""
    return DeletionPolicy.DELETE if spec.get("deletionPolicy") == "Delete" else DeletionPolicy.RETAIN


def annotated_secrets(content: Object) -> SnapshotSecrets:
    """The secret that the content itself names for its deletion; upstream uses it for the create too."""
    notes = content["metadata"].get("annotations") or {}
    name, namespace = notes.get(names.DELETION_SECRET_NAME), notes.get(names.DELETION_SECRET_NAMESPACE)
    reference = SecretRef("k8s", f"{namespace}/{name}") if name and namespace else NO_SECRET
    return SnapshotSecrets(create=reference, delete=reference, inspect=reference)


def _held(snapshot: Object, claim: Object | None) -> bool:
    """Whether the snapshot, and while it is not ready its claim, carry our finalizers.

    One finalizer on the snapshot suffices: the second one follows the policy only for upstream's readers, so
    that a later change of the policy costs no write. A deleted object takes no new finalizer.
    """
    held = snapshot["metadata"].get("finalizers") or ()
    if is_deleting(snapshot):
        return any(finalizer in held for finalizer in names.RELEASED_FINALIZERS)
    if names.SOURCE_FINALIZER not in held:
        return False
    if is_ready(snapshot) or claim is None or is_deleting(claim):
        return True
    return names.CLAIM_FINALIZER in (claim["metadata"].get("finalizers") or ())


def _in_use(restoring: tuple[str, ...]) -> str:
    if not restoring:
        return ""
    return f"Snapshot is being used to restore a PVC: {', '.join(restoring)}"
