"""Requests into checked values: query, body, path. Every refusal names the field and the remedy."""

from __future__ import annotations

import asyncio
import difflib
import json
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import orjson
import pydantic
from aiohttp import web

from bridge.api import fields
from bridge.api.problems import FieldProblem, Problem

M = TypeVar("M", bound=pydantic.BaseModel)

BODY_SECONDS = 30.0
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}\Z")
_REF = pydantic.TypeAdapter(fields.Ref)


def query(request: web.Request, model: type[M]) -> M:
    """The query of the URL as `model`; a key given twice is refused unless it is a list."""
    values: dict[str, Any] = {}
    given = request.rel_url.query
    for name in dict.fromkeys(given):
        field = model.model_fields.get(name)
        found = given.getall(name)
        if field is not None and typing.get_origin(field.annotation) is list:
            values[name] = found
        elif len(found) > 1:
            raise _refused([FieldProblem(name[:100], "is given more than once", "give it once")])
        else:
            values[name] = found[0]
    return _checked(model, values)


async def body(request: web.Request, model: type[M]) -> M:
    """The JSON body as `model`."""
    if request.content_type != "application/json":
        raise Problem(415, "the body must be JSON", hint="send Content-Type: application/json")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await request.read()
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
    try:
        value = orjson.loads(raw)
        json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        text = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
        raise Problem(400, f"the body is not JSON: {text}", code="BAD_JSON", hint="check the body") from None
    if not isinstance(value, dict):
        raise Problem(422, "the body must be a JSON object", hint="see /v1/openapi.json")
    return _checked(model, value)


def ref(request: web.Request) -> str:
    """The reference in the path: a uid, the start of one, or CLUSTER/NAMESPACE/NAME."""
    return path_text(request, "ref")


def path_text(request: web.Request, name: str) -> str:
    """One checked part of the path."""
    try:
        return _REF.validate_python(request.match_info[name])
    except pydantic.ValidationError as error:
        raise _refused([FieldProblem(name, _sentence(error.errors()[0]))]) from None


def idempotency_key(request: web.Request) -> str:
    """The header of that name; empty when there is none."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return ""
    if not _IDEMPOTENCY_KEY.match(key):
        problem = FieldProblem(
            "Idempotency-Key", "must be 1 to 255 visible ASCII characters", "send for example a UUID"
        )
        raise _refused([problem])
    return key


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _refused([FieldProblem(twice[:100], "is given more than once", "give it once")])
    return found


def _checked(model: type[M], values: dict[str, Any]) -> M:
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise _refused([_field_problem(model, item) for item in error.errors(include_input=False)[:20]]) from None


def _refused(problems: Sequence[FieldProblem]) -> Problem:
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Problem(422, f"{first.field}: {first.message}{more}", hint=first.hint, fields=tuple(problems))


def _field_problem(model: type[pydantic.BaseModel], item: Any) -> FieldProblem:
    path = [str(part)[:100] for part in item["loc"] if part != "[key]"]
    if item["type"] != "extra_forbidden":
        return FieldProblem(".".join(path), _sentence(item))
    known = _known_keys(model, path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known) or 'none'}"
    return FieldProblem(".".join(path), "is not known here", hint)


def _known_keys(model: type[pydantic.BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        found = next((field for name, field in model.model_fields.items() if part in (name, field.alias)), None)
        inner = found.annotation if found is not None else None
        if isinstance(inner, types.GenericAlias) or not isinstance(inner, type):
            return []
        if not issubclass(inner, pydantic.BaseModel):
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _sentence(item: Any) -> str:
    """What is wrong, in a plain sentence without the value."""
    context = item.get("ctx", {})
    match item["type"]:
        case "missing":
            return "is required"
        case "value_error":
            return str(context["error"])
        case "string_too_long" | "too_long":
            unit = "characters" if item["type"] == "string_too_long" else "entries"
            return f"is too long: at most {context['max_length']} {unit}"
        case "string_too_short":
            return "may not be empty"
        case "greater_than_equal":
            return f"must be {context['ge']} or more"
        case "less_than_equal":
            return f"must be {context['le']} or less"
        case "literal_error":
            return f"must be {context['expected']}"
        case _:
            message = str(item["msg"]).removeprefix("Input ").removeprefix("should be ")
            return f"must be {message}"
