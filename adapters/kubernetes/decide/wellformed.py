"""Whether an object has the shape that its definition promises. Pure.

The API server checks that at each write; but what was made while it did not (under another definition) stays as
it is. Nobody acts on a malformed object, and nothing of it is guessed: its owner is told which field is wrong.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]

_WORDS: Mapping[type, str] = {
    str: "a text", bool: "true or false", int: "a whole number", dict: "an object", list: "a list"
}  # fmt: skip
_POLICIES = ("Delete", "Retain")
_SHOWN = 80

Fields = tuple[tuple[tuple[str, ...], tuple[tuple[str, type], ...]], ...]
"""Some fields of one object, and of the next one: the path of the object, then name and type of each field."""


def _fields(*given: tuple[str, type]) -> Fields:
    split = [(*dotted.rpartition("."), wanted) for dotted, wanted in given]
    return tuple(
        (tuple(parent.split(".")) if parent else (), tuple((name, wanted) for _, _, name, wanted in fields))
        for parent, fields in itertools.groupby(split, key=operator.itemgetter(0))
    )


_SNAPSHOT = _fields(
    ("spec.source.persistentVolumeClaimName", str),
    ("spec.source.volumeSnapshotContentName", str),
    ("spec.volumeSnapshotClassName", str),
)
_SNAPSHOT_STATUS: Mapping[str, type] = {
    "boundVolumeSnapshotContentName": str,
    "readyToUse": bool,
    "creationTime": str,
    "error": dict,
    "volumeGroupSnapshotName": str,
}
_CONTENT = _fields(
    ("spec.source.volumeHandle", str),
    ("spec.source.snapshotHandle", str),
    ("spec.volumeSnapshotRef.name", str),
    ("spec.volumeSnapshotRef.namespace", str),
    ("spec.volumeSnapshotRef.uid", str),
    ("spec.volumeSnapshotClassName", str),
    ("status", dict),
    ("status.snapshotHandle", str),
    ("status.readyToUse", bool),
    ("status.creationTime", int),
    ("status.restoreSize", int),
    ("status.error", dict),
    ("status.error.message", str),
    ("status.volumeGroupSnapshotHandle", str),
)
_PARAMETERS = _fields(("parameters", dict))
_GROUP = _fields(
    ("spec.source.selector", dict),
    ("spec.source.volumeGroupSnapshotContentName", str),
    ("spec.source.selector.matchLabels", dict),
    ("spec.source.selector.matchExpressions", list),
    ("spec.volumeGroupSnapshotClassName", str),
)
_GROUP_STATUS: Mapping[str, type] = {
    "boundVolumeGroupSnapshotContentName": str,
    "readyToUse": bool,
    "creationTime": str,
    "error": dict,
}
_EXPRESSION = _fields(("key", str), ("operator", str), ("values", list))
_GROUP_CONTENT = _fields(
    ("spec.source.volumeHandles", list),
    ("spec.source.groupSnapshotHandles", dict),
    ("spec.source.groupSnapshotHandles.volumeGroupSnapshotHandle", str),
    ("spec.source.groupSnapshotHandles.volumeSnapshotHandles", list),
    ("spec.volumeGroupSnapshotRef.name", str),
    ("spec.volumeGroupSnapshotRef.namespace", str),
    ("spec.volumeGroupSnapshotRef.uid", str),
    ("spec.volumeGroupSnapshotClassName", str),
    ("status", dict),
    ("status.volumeGroupSnapshotHandle", str),
    ("status.readyToUse", bool),
    ("status.creationTime", str),
    ("status.error", dict),
    ("status.volumeSnapshotInfoList", list),
    ("status.error.message", str),
)
_MEMBER = _fields(
    ("volumeHandle", str), ("snapshotHandle", str), ("readyToUse", bool), ("restoreSize", int), ("creationTime", int)
)


def snapshot(item: Object) -> str:
    """What is wrong with a VolumeSnapshot; empty when nothing is."""
    return _objects(item, ("spec",), ("spec", "source")) or _types(item, _SNAPSHOT)


def told_status(item: Object) -> Object:
    """A VolumeSnapshot without those fields of its status that are no such field: they are told anew.

    Only of VolumeSnapshots: a content's status is the record of the snapshot on the backend, and not to be guessed.
    """
    return _told_status(item, _SNAPSHOT_STATUS)


def told_group_status(item: Object) -> Object:
    """The same of a VolumeGroupSnapshot."""
    return _told_status(item, _GROUP_STATUS)


def _told_status(item: Object, fields: Mapping[str, type]) -> Object:
    status = item.get("status")
    if status is None:
        return item
    if type(status) is not dict:
        return {field: value for field, value in item.items() if field != "status"}
    wrong = [name for name, wanted in fields.items() if name in status and type(status[name]) is not wanted]
    if not wrong:
        return item
    return {**item, "status": {field: value for field, value in status.items() if field not in wrong}}


def content(item: Object) -> str:
    """What is wrong with a VolumeSnapshotContent; empty when nothing is."""
    return (
        _objects(item, ("spec",), ("spec", "source"), ("spec", "volumeSnapshotRef"))
        or _named(item, "spec", "driver")
        or _policy(item, "spec", "deletionPolicy")
        or _types(item, _CONTENT)
    )


def group(item: Object) -> str:
    """What is wrong with a VolumeGroupSnapshot; empty when nothing is."""
    selector = ("spec", "source", "selector")
    return (
        _objects(item, ("spec",), ("spec", "source"))
        or _types(item, _GROUP)
        or _texts(item, *selector, "matchLabels")
        or _rows(item, _EXPRESSION, *selector, "matchExpressions")
        or _values(item, *selector, "matchExpressions")
    )


def group_content(item: Object) -> str:
    """What is wrong with a VolumeGroupSnapshotContent; empty when nothing is."""
    source = ("spec", "source")
    return (
        _objects(item, ("spec",), source, ("spec", "volumeGroupSnapshotRef"))
        or _named(item, "spec", "driver")
        or _policy(item, "spec", "deletionPolicy")
        or _types(item, _GROUP_CONTENT)
        or _texts(item, *source, "volumeHandles")
        or _texts(item, *source, "groupSnapshotHandles", "volumeSnapshotHandles")
        or _rows(item, _MEMBER, "status", "volumeSnapshotInfoList")
    )


def klass(item: Object) -> str:
    """What is wrong with a class, of snapshots or of groups; empty when nothing is."""
    given = item.get("parameters")
    wrong = _named(item, "driver") or _policy(item, "deletionPolicy") or _types(item, _PARAMETERS)
    return wrong or (_texts(item, "parameters") if given else "")


def _value(item: Object, path: tuple[str, ...]) -> Any:
    value: Any = item
    for field in path:
        if type(value) is not dict:
            return None
        value = value.get(field)
    return value


def _objects(item: Object, *paths: tuple[str, ...]) -> str:
    for path in paths:
        value = _value(item, path)
        if not isinstance(value, dict):
            return f"{'.'.join(path)} is {_shown(value)}, it must be an object"
    return ""


def _named(item: Object, *path: str) -> str:
    value = _value(item, path)
    return "" if isinstance(value, str) and value else f"{'.'.join(path)} is {_shown(value)}, it must be a name"


def _policy(item: Object, *path: str) -> str:
    value = _value(item, path)
    return "" if value in _POLICIES else f"{'.'.join(path)} is {_shown(value)}, it must be Delete or Retain"


def _texts(item: Object, *path: str) -> str:
    """A map or a list whose values are texts."""
    value = _value(item, path) or ()
    rows = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in rows:
        if type(one) is not str:
            where = f"{'.'.join(path)}.{key}" if isinstance(value, dict) else f"{'.'.join(path)}[{key}]"
            return f"{where} is {_shown(one)}, it must be a text"
    return ""


def _rows(item: Object, fields: Fields, *path: str) -> str:
    """A list of objects with these fields."""
    for number, row in enumerate(_value(item, path) or ()):
        where = f"{'.'.join(path)}[{number}]"
        if type(row) is not dict:
            return f"{where} is {_shown(row)}, it must be an object"
        wrong = _types(row, fields)
        if wrong:
            return f"{where}.{wrong}"
    return ""


def _values(item: Object, *path: str) -> str:
    """The values of a selector's expressions."""
    for number, row in enumerate(_value(item, path) or ()):
        wrong = _texts(row, "values")
        if wrong:
            return f"{'.'.join(path)}[{number}].{wrong}"
    return ""


def _types(item: Object, fields: Fields) -> str:
    for path, wanted in fields:
        parent = _value(item, path)
        if type(parent) is not dict:
            continue  # Nothing of it is there.
        for name, kind in wanted:
            value = parent.get(name)
            if value is not None and type(value) is not kind:
                return f"{'.'.join((*path, name))} is {_shown(value)}, it must be {_WORDS[kind]}"
    return ""


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
