"""Which node serves a volume of a driver that runs on every node."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes.decide import affinity

NODES = [
    {"metadata": {"name": "b", "labels": {"zone": "1", "disks": "4"}}},
    {"metadata": {"name": "a", "labels": {"zone": "2"}}},
    {"metadata": {"name": "c"}},
]


def on(*terms: dict[str, Any]) -> str:
    volume = {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": list(terms)}}}}
    return affinity.node_for(volume, NODES)


def rule(operator: str, *values: str, key: str = "zone") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


ROWS: list[tuple[dict[str, Any], str]] = [
    (rule("In", "1"), "b"),
    (rule("In", "1", "2"), "a"),
    (rule("In", "3"), ""),
    (rule("NotIn", "2"), "b"),
    (rule("Exists"), "a"),
    (rule("DoesNotExist"), "c"),
    (rule("Gt", "3", key="disks"), "b"),
    (rule("Lt", "3", key="disks"), ""),
    (rule("Gt", "x", key="disks"), ""),
    (rule("Near", "1"), ""),
    ({}, ""),
    ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["c"]}]}, "c"),
    ({**rule("Exists"), "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["c"]}]}, ""),
]


@pytest.mark.parametrize(("term", "node"), ROWS)
def test_a_term(term: dict[str, Any], node: str) -> None:
    assert on(term) == node


def test_any_of_several_terms() -> None:
    assert on(rule("In", "3"), rule("In", "1")) == "b"


def test_a_volume_that_is_everywhere_is_on_no_node() -> None:
    assert affinity.node_for({"spec": {}}, NODES) == ""
