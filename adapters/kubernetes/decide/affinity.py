"""Which node a volume belongs to: the required node affinity of its PersistentVolume against nodes' labels. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from adapters.kubernetes.facts import path

Object = dict[str, Any]


def node_for(volume: Object, nodes: Iterable[Object]) -> str:
    """The first node by name that the volume's affinity admits; empty where it has none, or none fits."""
    terms = path(volume, "spec", "nodeAffinity", "required", "nodeSelectorTerms")
    if not terms:
        return ""
    fitting = (node["metadata"]["name"] for node in nodes if any(matches(term, node) for term in terms))
    return min(fitting, default="")


def matches(term: Object, node: Object) -> bool:
    """Whether a node fits a NodeSelectorTerm: all its expressions and fields. An empty term fits nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    metadata = node["metadata"]
    labels: Mapping[str, str] = metadata.get("labels") or {}
    named = {"metadata.name": metadata["name"]}
    return all(_holds(rule, labels) for rule in expressions) and all(_holds(rule, named) for rule in fields)


def _holds(rule: Object, labels: Mapping[str, str]) -> bool:
    value, wanted = labels.get(str(rule.get("key"))), [str(item) for item in rule.get("values") or ()]
    match rule.get("operator"):
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            return _compares(operator, value, wanted)
        case _:
            return False


def _compares(operator: str, value: str | None, wanted: list[str]) -> bool:
    try:
        number, (limit,) = int(value or ""), [int(item) for item in wanted]
    except ValueError:
        return False
    return number > limit if operator == "Gt" else number < limit
