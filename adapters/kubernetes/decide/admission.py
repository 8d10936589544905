"""Whether a snapshot object may become what somebody wants to make of it. Pure: it knows objects and no server.

The rules and their messages are those of the definitions' own validation, for clusters whose definitions lack it;
and one more that a definition cannot have, because it compares classes with each other: one default per driver.
What was wrong already and stays as it was is let through: a finalizer must be able to come off any object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

Object = dict[str, Any]
Path = tuple[str, ...]
Check = Callable[[Object | None, Object], bool]

SNAPSHOT_GROUP = "snapshot.storage.k8s.io"
GROUP_SNAPSHOT_GROUP = "groupsnapshot.storage.k8s.io"


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """What is wrong, and with which field. `text` is what the one who asks is shown."""

    field: str
    message: str

    @property
    def text(self) -> str:
        """Field and message in one line."""
        return f"{self.field}: {self.message}"


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """`holds` tells of the object before (None at its creation) and after whether the rule is kept."""

    path: Path
    message: str
    holds: Check
    compares: bool
    """Whether it looks at the change, not at the object alone."""
    volume_mode: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One kind of snapshot object."""

    group: str
    name: str
    plural: str
    rules: tuple[Rule, ...] = ()
    default_mark: str = ""
    """For classes: the annotation that makes one the default of its driver."""
    default_noun: str = ""


def refusals(kind: Kind, before: Object | None, after: Object, *, volume_mode: bool = True) -> list[Refusal]:
    """Every rule that the change breaks; empty when it may be made. `before` is None for a creation.

    Without `volume_mode` a content's sourceVolumeMode may be changed, as upstream's flag says.
    """
    found = []
    for rule in kind.rules:
        if rule.volume_mode and not volume_mode:
            continue
        if rule.holds(before, after):
            continue
        was_so_before = not rule.compares and before is not None and not rule.holds(None, before)
        if not was_so_before:
            found.append(Refusal(".".join(rule.path), rule.message))
    return found


def becomes_default(kind: Kind, before: Object | None, after: Object) -> bool:
    """Whether a class is to be its driver's default and was not."""
    if not _is_default(kind, after):
        return False
    return before is None or not _is_default(kind, before) or before.get("driver") != after.get("driver")


def second_default(kind: Kind, after: Object, defaults: Sequence[str]) -> Refusal | None:
    """`defaults` are the names of the classes that are the default of this driver now."""
    own = _value(after, ("metadata", "name"))
    others = [name for name in defaults if name != own]
    if not others:
        return None
    driver = after.get("driver")
    remedy = f"kubectl annotate {kind.name.lower()} {others[0]} {kind.default_mark}-"
    return Refusal(
        f"metadata.annotations[{kind.default_mark}]",
        f"default {kind.default_noun} class: {', '.join(others)} already exists for driver: {driver}; "
        f"take the mark off that one first ({remedy}), or do not mark this one",
    )


def default_drivers(kind: Kind, klass: Object) -> tuple[str, ...]:
    """The driver that a class is the default of: none or one."""
    return (str(klass.get("driver") or ""),) if _is_default(kind, klass) else ()


def kind_of(group: str, plural: str) -> Kind | None:
    """The kind that a group's resource is of; None when it is no snapshot object."""
    return next((kind for kind in KINDS if (kind.group, kind.plural) == (group, plural)), None)


def _is_default(kind: Kind, klass: Object) -> bool:
    if not kind.default_mark:
        return False
    return bool(_value(klass, ("metadata", "annotations", kind.default_mark)) == "true")


def _value(item: Object | None, path: Path) -> Any:
    value: Any = item
    for field in path:
        if not isinstance(value, dict):
            return None
        value = value.get(field)
    return value


def _has(item: Object | None, path: Path) -> bool:
    return _value(item, path) is not None


def _immutable(*path: str, message: str = "", volume_mode: bool = False) -> Rule:
    """Once it is there it stays what it is; whether it may be taken away is `_kept`'s business."""

    def holds(before: Object | None, after: Object) -> bool:
        if before is None or not _has(before, path) or not _has(after, path):
            return True
        return bool(_value(before, path) == _value(after, path))

    return Rule(path, message or f"{path[-1]} is immutable", holds, True, volume_mode)


def _kept(*path: str, volume_mode: bool = False) -> Rule:
    def holds(before: Object | None, after: Object) -> bool:
        return before is None or not _has(before, path) or _has(after, path)

    return Rule(path, f"{path[-1]} is required once set", holds, True, volume_mode)


def _exactly_one(path: Path, first: str, second: str) -> Rule:
    def holds(_before: Object | None, after: Object) -> bool:
        return _has(after, (*path, first)) is not _has(after, (*path, second))

    return Rule(path, f"exactly one of {first} and {second} must be set", holds, False)


def _not_empty(*path: str) -> Rule:
    def holds(_before: Object | None, after: Object) -> bool:
        return bool(_value(after, path) != "")

    return Rule(path, f"{path[-1]} must not be the empty string when set", holds, False)


def _names_both(path: Path, called: str) -> Rule:
    def holds(_before: Object | None, after: Object) -> bool:
        return _has(after, (*path, "name")) and _has(after, (*path, "namespace"))

    return Rule(path, f"both {called}.name and {called}.namespace must be set", holds, False)


def _same_reference(path: Path, called: str) -> Rule:
    def holds(before: Object | None, after: Object) -> bool:
        pairs = ((*path, "name"), (*path, "namespace"))
        return before is None or all(_value(before, one) == _value(after, one) for one in pairs)

    return Rule(path, f"{called}.name and {called}.namespace are immutable", holds, True)


def _same_uid(path: Path, called: str) -> Rule:
    """From nothing to a uid is the binding; a uid stays."""

    def holds(before: Object | None, after: Object) -> bool:
        uid = (*path, "uid")
        return not _has(before, uid) or bool(_value(before, uid) == _value(after, uid))

    return Rule(path, f"{called}.uid is immutable once set", holds, True)


def _once_set(*path: str, verb: str = "is") -> Rule:
    return _immutable(*path, message=f"{path[-1]} {verb} immutable once set")


def _source(*path: str, first: str, second: str) -> tuple[Rule, ...]:
    """Two ways to name a source, of which one is chosen for good."""
    return (
        _exactly_one(path, first, second),
        _immutable(*path, first),
        _kept(*path, first),
        _immutable(*path, second),
        _kept(*path, second),
    )


_GROUP_REFERENCE = ("spec", "volumeGroupSnapshotRef")

KINDS = (
    Kind(
        SNAPSHOT_GROUP,
        "VolumeSnapshot",
        "volumesnapshots",
        (
            *_source("spec", "source", first="volumeSnapshotContentName", second="persistentVolumeClaimName"),
            _not_empty("spec", "volumeSnapshotClassName"),
        ),
    ),
    Kind(
        SNAPSHOT_GROUP,
        "VolumeSnapshotContent",
        "volumesnapshotcontents",
        (
            *_source("spec", "source", first="volumeHandle", second="snapshotHandle"),
            _immutable("spec", "sourceVolumeMode", volume_mode=True),
            _kept("spec", "sourceVolumeMode", volume_mode=True),
            _names_both(("spec", "volumeSnapshotRef"), "spec.volumeSnapshotRef"),
        ),
    ),
    Kind(
        SNAPSHOT_GROUP,
        "VolumeSnapshotClass",
        "volumesnapshotclasses",
        default_mark="snapshot.storage.kubernetes.io/is-default-class",
        default_noun="snapshot",
    ),
    Kind(
        GROUP_SNAPSHOT_GROUP,
        "VolumeGroupSnapshot",
        "volumegroupsnapshots",
        (
            *_source("spec", "source", first="selector", second="volumeGroupSnapshotContentName"),
            _not_empty("spec", "volumeGroupSnapshotClassName"),
            _once_set("status", "boundVolumeGroupSnapshotContentName"),
        ),
    ),
    Kind(
        GROUP_SNAPSHOT_GROUP,
        "VolumeGroupSnapshotContent",
        "volumegroupsnapshotcontents",
        (
            *_source("spec", "source", first="volumeHandles", second="groupSnapshotHandles"),
            _once_set("spec", "driver"),
            _once_set("spec", "volumeGroupSnapshotClassName"),
            _names_both(_GROUP_REFERENCE, "volumeGroupSnapshotRef"),
            _same_reference(_GROUP_REFERENCE, "volumeGroupSnapshotRef"),
            _same_uid(_GROUP_REFERENCE, "volumeGroupSnapshotRef"),
            _once_set("status", "volumeGroupSnapshotHandle"),
        ),
    ),
    Kind(
        GROUP_SNAPSHOT_GROUP,
        "VolumeGroupSnapshotClass",
        "volumegroupsnapshotclasses",
        (
            _once_set("driver"),
            _once_set("deletionPolicy"),
            _once_set("parameters", verb="are"),
        ),
        default_mark="groupsnapshot.storage.kubernetes.io/is-default-class",
        default_noun="group snapshot",
    ),
)
"""The six kinds. Both groups' classes know defaults."""
