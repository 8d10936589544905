"""Label selectors as the API defines them: every label and every expression must hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


class SelectorError(ValueError):
    """The selector cannot be used; the text names the field."""


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether an object with these labels is selected. An empty selector selects everything.

    >>> matches({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["db"]}]}, {"tier": "db"})
    True
    >>> matches({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]}, {})
    True
    """
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def check(selector: Mapping[str, Any]) -> None:
    """Raise SelectorError for what no API server would select by."""
    for place, expression in enumerate(selector.get("matchExpressions") or ()):
        field = f"spec.source.selector.matchExpressions[{place}]"
        operator, values = expression.get("operator"), expression.get("values") or []
        if not expression.get("key"):
            raise SelectorError(f"{field}.key is empty")
        if operator not in OPERATORS:
            raise SelectorError(f"{field}.operator {operator!r} is none of {', '.join(OPERATORS)}")
        if operator in ("In", "NotIn") and not values:
            raise SelectorError(f"{field}.values must name a value for the operator {operator}")
        if operator in ("Exists", "DoesNotExist") and values:
            raise SelectorError(f"{field}.values must be empty for the operator {operator}")


def text(selector: Mapping[str, Any]) -> str:
    """The selector as kubectl writes it.

    >>> text({"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]})
    'app=db,x'
    """
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or ():
        key, operator = expression.get("key"), expression.get("operator")
        values = ",".join(sorted(expression.get("values") or ()))
        shown = {"Exists": f"{key}", "DoesNotExist": f"!{key}", "In": f"{key} in ({values})"}
        parts.append(shown.get(str(operator), f"{key} {str(operator).lower()} ({values})"))
    return ",".join(parts) or "<none>"


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = str(expression.get("key")), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False
