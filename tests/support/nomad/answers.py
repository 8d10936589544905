"""How the fake agent reads requests and writes answers: the conventions of nomad.md 2.1 and nothing of any endpoint.

It must not know an endpoint, and it must not soften a quirk: errors are plain text, most of them 500.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

TEXT_TYPE = "text/plain; charset=utf-8"
JSON_TYPE = "application/json"


class Refusal(Exception):
    """An error answer: a status and the exact text."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})


def invalid_method() -> Refusal:
    return Refusal(405, "Invalid method")


def no_such_path() -> web.Response:
    """A path that Nomad's mux does not know: 404 with an empty body."""
    return web.Response(status=404)


def multierror(*texts: str) -> str:
    """The text of a Go multierror, as `volume create` and `snapshot create` give it."""
    head = "1 error occurred" if len(texts) == 1 else f"{len(texts)} errors occurred"
    return head + ":\n" + "".join(f"\t* {text}\n" for text in texts) + "\n"


def read_headers(index: int, *, leader: bool = True) -> dict[str, str]:
    return {
        "X-Nomad-Index": str(index),
        "X-Nomad-Knownleader": "true" if leader else "false",
        "X-Nomad-Lastcontact": "0",
    }


def write_headers(index: int) -> dict[str, str]:
    return {"X-Nomad-Index": str(index)}


def answer(data: Any, headers: Mapping[str, str] | None = None, *, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(
        status=status, body=json.dumps(data).encode() + b"\n", headers={"Content-Type": JSON_TYPE, **(headers or {})}
    )


def empty(headers: Mapping[str, str] | None = None, *, status: int = 200) -> web.Response:
    return web.Response(status=status, headers=dict(headers or {}))


def refuse(refusal: Refusal) -> web.Response:
    return web.Response(
        status=refusal.status, body=refusal.text.encode(), headers={"Content-Type": TEXT_TYPE, **refusal.headers}
    )


async def read_json(request: web.Request) -> dict[str, Any]:
    """The body as an object, refused as Go's decoder refuses it."""
    raw = await request.read()
    if not raw:
        raise Refusal(400, "Request body is empty")
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise Refusal(400, _syntax_error(raw, error)) from error
    if not isinstance(data, dict):
        # not recorded; the wording of Go's encoding/json
        raise Refusal(400, f"json: cannot unmarshal {_go_kind(data)} into Go value of type struct")
    return data


def _syntax_error(raw: bytes, error: ValueError) -> str:
    text = raw.decode(errors="replace")
    position = getattr(error, "pos", 0)
    if position >= len(text):
        return "unexpected EOF"  # not recorded; encoding/json
    if text[:position].rstrip().endswith("{"):
        return f"invalid character '{text[position]}' looking for beginning of object key string"
    return f"invalid character '{text[position]}' looking for beginning of value"  # not recorded; encoding/json


def check_strings(items: Sequence[Any], struct: str, path: str, keys: Sequence[str]) -> None:
    """Refuse a value of another JSON type where a string stands, in Go's words."""
    for item in items:
        for key in keys:
            value = item.get(key) if isinstance(item, dict) else None
            if value is not None and not isinstance(value, str):
                where = f"Go struct field {struct}.{path}.{key} of type string"
                raise Refusal(400, f"json: cannot unmarshal {_go_kind(value)} into {where}")


def _go_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list):
        return "array"
    return "string" if isinstance(value, str) else "object"


def secrets_header(request: web.Request) -> dict[str, str]:
    """`X-Nomad-CSI-Secrets: k=v,k2=v2`; split on commas, so a value cannot hold one (nomad.md 2.2)."""
    pairs = (part.partition("=") for part in request.headers.get("X-Nomad-CSI-Secrets", "").split(",") if part)
    return {key: value for key, sign, value in pairs if sign}


def per_page(request: web.Request) -> int:
    raw = request.query.get("per_page", "")
    if raw and not raw.isdigit():
        raise Refusal(400, "Expect a number for `per_page` query string parameter")
    return int(raw or 0)


def flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("true", "1", "t")
