"""Where a new volume must be reachable from: CSI's requirement, made of classes, CSINodes and Nodes. Pure.

The same inputs give the same requirement, in the same order: a repeated call must be identical.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.kubernetes.decide.verdict import Refusal, State
from adapters.kubernetes.facts import path

Object = dict[str, Any]
Segments = Mapping[str, str]

_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193
_MOST_U32 = 2**32


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """What CreateVolume is told. Both empty: no requirement."""

    requisite: tuple[Segments, ...] = ()
    preferred: tuple[Segments, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Map:
    """The cluster's places as known now: CSINodes by node name, and the labels of Nodes."""

    driver: str
    csi_nodes: Mapping[str, Object]
    labels: Mapping[str, Mapping[str, str]]

    def keys_of(self, node: str) -> tuple[str, ...]:
        """The topology keys that the driver registered on a node."""
        for row in path(self.csi_nodes.get(node), "spec", "drivers") or ():
            if row.get("name") == self.driver:
                return tuple(row.get("topologyKeys") or ())
        return ()

    def terms(self, keys: Sequence[str]) -> list[Segments]:
        """The places of all nodes that have all these keys."""
        return [
            {key: labels[key] for key in keys}
            for labels in self.labels.values()
            if all(key in labels for key in keys)
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """The role's flags about places."""

    strict: bool = False
    """Late binding: name the selected node's place alone."""
    immediate: bool = True
    """Immediate binding: name the places of all nodes; else none."""


def require(claim_name: str, klass: Object, node: str, where: Map, rules: Rules) -> Places | Refusal:
    """The requirement for a claim; `node` is the selected one, empty for immediate binding."""
    allowed = flatten(klass.get("allowedTopologies") or ())
    if node:
        selected = _selected(node, where)
        if isinstance(selected, Refusal):
            return selected
        return _late(node, selected, allowed, where, rules)
    if allowed:
        terms = allowed
    elif klass.get("allowedTopologies") or not rules.immediate:
        return Places()
    else:
        keys = next((keys for name in sorted(where.csi_nodes) if (keys := where.keys_of(name))), ())
        terms = where.terms(keys) if keys else []
        if not keys:
            return _refuse("no available topology found")
        if not terms:
            return _refuse(f"topologyKeys {list(keys)} were not found on any nodes")
    requisite = _ordered(terms)
    start = spread(claim_name) % len(requisite)
    return Places(tuple(requisite), tuple(requisite[start:] + requisite[:start]))


def _selected(node: str, where: Map) -> Segments | Refusal:
    if node not in where.csi_nodes:
        return Refusal(
            f'failed to get selected CSINode {node}: csinode.storage.k8s.io "{node}" not found', State.RESCHEDULE
        )
    keys = where.keys_of(node)
    if not keys:
        return _refuse(f"no topology key found for node {node}")
    labels = where.labels.get(node, {})
    if any(key not in labels for key in keys):
        return _refuse(
            f"topology labels from selected node {dict(labels)} does not match topology keys from CSINode "
            f"{list(keys)}"
        )
    return {key: labels[key] for key in keys}


def _late(node: str, selected: Segments, allowed: list[Segments], where: Map, rules: Rules) -> Places | Refusal:
    if rules.strict:
        if allowed and not any(_within(term, selected) for term in allowed):
            return _refuse(
                f"selected node '{node}' topology '{dict(selected)}' is not in allowed topologies: "
                f"{[dict(term) for term in allowed]}"
            )
        return Places((selected,), (selected,))
    requisite = _ordered(allowed or where.terms(tuple(selected)))
    for index, term in enumerate(requisite):
        if _within(term, selected):
            return Places(tuple(requisite), tuple(requisite[index:] + requisite[:index]))
    return _refuse(
        f"topology {dict(selected)} from selected node '{node}' is not in requisite: "
        f"{[dict(term) for term in requisite]}"
    )


def flatten(allowed: Sequence[Object]) -> list[Segments]:
    """A class's allowedTopologies as a list of places: each value of each key with each of the others."""
    found: list[Segments] = []
    for term in allowed:
        places: list[Segments] = []
        for row in term.get("matchLabelExpressions") or ():
            values = row.get("values") or ()
            places = [{**place, row["key"]: value} for value in values for place in (places or [{}])]
        found += [place for place in places if place]
    return found


def _ordered(terms: Sequence[Segments]) -> list[Segments]:
    unique = {tuple(sorted(term.items())) for term in terms}
    return [dict(row) for row in sorted(unique, key=lambda row: (len(row), row))]


def _within(term: Segments, place: Segments) -> bool:
    return all(place.get(key) == value for key, value in term.items())


def spread(claim_name: str) -> int:
    """Where a claim's turn among the places begins: claims of one StatefulSet go round, its members together.

    >>> spread("data-web-1") - spread("data-web-0"), spread("logs-web-1") == spread("data-web-1")
    (1, True)
    """
    text, index = claim_name, 0
    head, dash, tail = claim_name.rpartition("-")
    if dash and tail.isascii() and tail.isdigit() and int(tail) < _MOST_U32:
        index = int(tail)
        text = head.rpartition("-")[2] if "-" in head else head
    number = _FNV_OFFSET
    for byte in text.encode():
        number = (number * _FNV_PRIME) % _MOST_U32 ^ byte
    return (number + index) % _MOST_U32


def affinity(accessible: Sequence[Segments]) -> Object | None:
    """A PersistentVolume's nodeAffinity: one term per place. None where it can be used everywhere."""
    terms = [
        {
            "matchExpressions": [
                {"key": key, "operator": "In", "values": [value]} for key, value in sorted(place.items())
            ]
        }
        for place in accessible
        if place
    ]
    return {"required": {"nodeSelectorTerms": terms}} if terms else None


def remembered(kept: object, klass: Object) -> Places | None:
    """The requirement that a claim remembers, where it can be believed: anybody who edits the claim can write it.

    Believed is one that a class without allowed places could have got, or that is made of the allowed ones.
    """
    if not isinstance(kept, dict):
        return None
    halves = []
    for field in ("requisite", "preferred"):
        rows = kept.get(field)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row for row in rows):
            return None
        if not all(isinstance(text, str) for row in rows for pair in row.items() for text in pair):
            return None
        halves.append(tuple(dict(row) for row in rows))
    places = Places(*halves)
    allowed = flatten(klass.get("allowedTopologies") or ())
    if allowed and any(not any(_within(term, place) for term in allowed) for place in places.requisite):
        return None
    return places if _ordered(places.requisite) == _ordered(places.preferred) else None


def _refuse(message: str) -> Refusal:
    return Refusal(f"error generating accessibility requirements: {message}", State.NO_CHANGE)
