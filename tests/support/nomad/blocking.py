"""Blocking queries and pages: `index`, `wait`, `per_page`, `next_token`, `filter`, `reverse` (nomad.md 2.1).

It must not know what a row means.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.support.nomad import filters
from tests.support.nomad.answers import Refusal, answer, per_page, read_headers
from tests.support.nomad.state import State

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
MAXIMUM_WAIT_SECONDS = 300.0


def duration_seconds(text: str) -> float:
    """A Go duration, for example `10s` or `1m30s`. Raises ValueError."""
    if text in ("0", ""):
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError(f"time: invalid duration {text!r}")
    return sum(float(value) * _UNITS[unit] for value, unit in _PART.findall(text))


@dataclass(frozen=True, slots=True)
class Watch:
    """What a blocking query waits for: the tables' index, or nothing (the `plugin_id` trap of nomad.md 2.2)."""

    tables: tuple[str, ...]
    wakes: bool = True


async def block(request: web.Request, state: State, watch: Watch) -> None:
    """Wait as the request asks, until the tables are newer than `index` or the time is over."""
    asked, wait_seconds = _asked(request)
    if asked == 0 or state.table_index(watch.tables) > asked:
        return
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds * (1 + random.random() / 16)
    start = state.table_index(watch.tables)
    while (left := deadline - loop.time()) > 0:
        await state.change(left)
        current = state.table_index(watch.tables)
        if watch.wakes and current > asked and current != start:
            return


def _asked(request: web.Request) -> tuple[int, float]:
    raw_wait = request.query.get("wait", "")
    try:
        wait_seconds = duration_seconds(raw_wait) if raw_wait else MAXIMUM_WAIT_SECONDS
    except ValueError as error:
        raise Refusal(400, "Invalid wait time") from error
    raw_index = request.query.get("index", "0")
    if not raw_index.isdigit():
        raise Refusal(400, "Invalid index")
    return int(raw_index), min(wait_seconds, MAXIMUM_WAIT_SECONDS)


def page(
    request: web.Request, rows: Sequence[dict[str, Any]], token: Callable[[dict[str, Any]], str]
) -> tuple[list[dict[str, Any]], str]:
    """The asked page of the filtered rows, and the token of the next one ("" at the end)."""
    expression = request.query.get("filter", "")
    test = filters.compile_filter(expression) if expression else None
    wanted = [row for row in rows if test is None or test(row)]
    start = request.query.get("next_token", "")
    if start:
        wanted = [row for row in wanted if token(row) >= start]
    size = per_page(request)
    if size and len(wanted) > size:
        return wanted[:size], token(wanted[size])
    return wanted, ""


def listing(
    request: web.Request,
    state: State,
    tables: tuple[str, ...],
    rows: Sequence[dict[str, Any]],
    token: Callable[[dict[str, Any]], str],
) -> web.Response:
    """The answer of a list call: a JSON array, the index headers and, if there is more, the next token."""
    wanted, following = page(request, rows, token)
    headers = read_headers(state.table_index(tables))
    if following:
        headers["X-Nomad-Nexttoken"] = following
    return answer(wanted, headers)
