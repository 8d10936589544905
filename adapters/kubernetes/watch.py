"""Reading a watch: bytes to lines to events, in one pass. Knows nothing of caches or of trying again."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

from adapters.kubernetes.problem import ApiError
from bridge.model import failure

MOST_LINE_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch. `kind` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    kind: str
    object: dict[str, Any]


async def lines(reader: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of any length up to the limit. A line that the stream's end cuts off is dropped:
    the next watch starts before it."""
    rest: list[bytes] = []
    size = 0
    async for chunk in reader.iter_any():
        start = 0
        end = chunk.find(b"\n")
        while end >= 0:
            rest.append(chunk[start:end])
            line = b"".join(rest) if len(rest) > 1 else rest[0]
            rest.clear()
            size = 0
            if line:
                yield line
            start = end + 1
            end = chunk.find(b"\n", start)
        if start < len(chunk):
            rest.append(chunk[start:])
            size += len(chunk) - start
            if size > MOST_LINE_BYTES:
                raise failure.UnavailableError(f"a watch line is longer than {MOST_LINE_BYTES} bytes")


async def events(reader: aiohttp.StreamReader) -> AsyncIterator[Event]:
    """The events of an open watch. The server's ERROR event is raised as ApiError."""
    async for line in lines(reader):
        try:
            value = orjson.loads(line)
            kind, item = value["type"], value["object"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise failure.UnavailableError(f"a watch line cannot be read: {error!r}") from error
        if kind == "ERROR":
            raise ApiError(
                int(item.get("code") or 500), str(item.get("reason") or ""), str(item.get("message") or "")
            )
        yield Event(kind, item)
