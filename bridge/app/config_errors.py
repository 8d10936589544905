"""Pydantic's errors in the words of somebody who writes YAML. Values are never shown, keys are."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

import pydantic

from bridge.app.config_problem import Path, nearest

_WANT = {
    "string_type": "want a text",
    "bool_type": "want true or false",
    "int_type": "want a whole number",
    "float_type": "want a number",
    "dict_type": "want a mapping (key: value)",
    "model_type": "want a mapping (key: value)",
    "list_type": "want a list (- item)",
    "tuple_type": "want a list (- item)",
}
_KINDS = {str: "text", bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "a mapping"}


def explain(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> Iterator[tuple[Path, str, str]]:
    """For each error: where, what, and a remedy."""
    seen = set()
    for item in error.errors(include_url=False, include_context=True):
        path: Path = tuple(part for part in item["loc"] if part != "[key]")
        answer = _answer(item, path, model)
        if (path, answer) not in seen:
            seen.add((path, answer))
            yield path, *answer


def _answer(item: Any, path: Path, model: type[pydantic.BaseModel]) -> tuple[str, str]:
    kind, message = item["type"], item["msg"]
    if kind == "extra_forbidden":
        return "is an unknown key", nearest(str(path[-1]), _keys_at(model, path[:-1]))
    if kind == "missing":
        return "is missing", "add it"
    if kind in _WANT:
        got = _KINDS.get(type(item["input"]), "something else")
        hint = "put it in quotes" if kind == "string_type" and isinstance(item["input"], int | float) else ""
        return f"is {got}; {_WANT[kind]}", hint
    if kind in ("literal_error", "enum"):
        expected = item["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        wanted = [word.strip() for word in expected.split(",")]
        return f"must be one of {', '.join(wanted)}", nearest(str(item["input"])[:60], wanted).replace(
            "known: ", "one of "
        )
    if kind in ("value_error", "assertion_error"):
        return message.removeprefix("Value error, ").removeprefix("Assertion failed, "), ""
    return message[:1].lower() + message[1:], ""


def _keys_at(model: type[pydantic.BaseModel], path: Path) -> list[str]:
    kinds: list[Any] = [model]
    for part in path:
        kinds = _step(kinds, part) or []
    return _keys(kinds)


def _keys(kinds: list[Any]) -> list[str]:
    return [field for kind in kinds if _is_model(kind) for field in kind.model_fields]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _step(kinds: list[Any], part: int | str) -> list[Any] | None:
    """The possible types one step further down; None when there is no such step."""
    found: list[Any] = []
    for kind in kinds:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if _is_model(kind) and part in kind.model_fields:
            found += _branches(kind.model_fields[part].annotation)
        elif origin is dict and isinstance(part, str):
            found += _branches(arguments[1])
        elif origin is list and isinstance(part, int):
            found += _branches(arguments[0])
    return found or None


def _branches(kind: Any) -> list[Any]:
    if typing.get_origin(kind) is typing.Annotated:
        return _branches(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [inner for branch in typing.get_args(kind) for inner in _branches(branch)]
    return [kind]
