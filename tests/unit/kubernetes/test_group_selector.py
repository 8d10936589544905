"""Label selectors, held to the API's own definition."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes.groups import selector

ROWS: list[tuple[dict[str, Any], dict[str, str], bool]] = [
    ({}, {"a": "1"}, True),
    ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
    ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
    ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
    ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
    ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
    ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
    ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
    ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
    ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}, {"a": "1"}, False),
    ({"matchExpressions": [{"key": "a", "operator": "Like"}]}, {"a": "1"}, False),
]


@pytest.mark.parametrize(("chosen", "labels", "expected"), ROWS)
def test_a_row(chosen: dict[str, Any], labels: dict[str, str], expected: bool) -> None:
    assert selector.matches(chosen, labels) is expected


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ({"key": "a", "operator": "Like"}, "operator 'Like' is none of In, NotIn, Exists, DoesNotExist"),
        ({"key": "a", "operator": "In"}, "values must name a value"),
        ({"key": "a", "operator": "Exists", "values": ["1"]}, "values must be empty"),
        ({"operator": "Exists"}, "key is empty"),
    ],
)
def test_what_cannot_select_is_named_by_its_field(expression: dict[str, Any], words: str) -> None:
    with pytest.raises(selector.SelectorError, match="matchExpressions") as caught:
        selector.check({"matchExpressions": [expression]})
    assert words in str(caught.value)
