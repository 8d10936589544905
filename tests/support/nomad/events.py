"""`/v1/event/stream`: the in-memory buffer, the replay on subscribe, the heartbeat and the denied stream.

It must not promise more than Nomad does: no gap signal, duplicates on resume, whole buffer without an index
(nomad.md 3.1, nomad-verified.md A.1 and E).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.nomad.answers import Refusal

Event = dict[str, Any]
Entry = tuple[int, list[Event]]  # index, events of one write
Wanted = dict[str, list[str]]


@dataclass(slots=True)
class StreamSettings:
    """Times in seconds; `status_line` is changed by tests of Nomad 1.11.2 (nomad.md 3.1)."""

    heartbeat_seconds: float = 30.0
    denied_close_seconds: float = 15.0
    status_line: str = "HTTP/1.1 200 OK"


@dataclass(slots=True, eq=False)
class Subscriber:
    transport: asyncio.Transport
    wanted: Wanted
    namespace: str
    queue: asyncio.Queue[Entry | None] = field(default_factory=asyncio.Queue)


class EventBroker:
    """One server's event buffer and its open streams."""

    def __init__(self, buffer_size: int, settings: StreamSettings) -> None:
        self.entries: deque[Entry] = deque(maxlen=buffer_size)
        self.settings = settings
        self.subscribers: set[Subscriber] = set()
        self.denied = False

    def publish(self, index: int, type_: str, events: Sequence[Event]) -> None:
        """Add the events of one write as one line. The payload is copied as it is now."""
        rows = [json.loads(json.dumps({**event, "Type": type_, "Index": index})) for event in events]
        entry = (index, rows)
        self.entries.append(entry)
        for subscriber in self.subscribers:
            subscriber.queue.put_nowait(entry)

    def clear(self) -> None:
        """What a server restart does: the buffer is in memory only."""
        self.entries.clear()

    def close_streams(self, *, abort: bool) -> None:
        """End every stream: with an EOF, or with a reset."""
        for subscriber in list(self.subscribers):
            if abort:
                subscriber.transport.abort()
            subscriber.queue.put_nowait(None)

    def backlog(self, index: int) -> list[Entry]:
        """Where a subscription with this index starts (nomad-verified.md E)."""
        held = list(self.entries)
        later = [entry for entry in held if entry[0] >= index]
        return later or held[-1:]

    async def serve(self, request: web.Request, *, allowed: bool) -> web.StreamResponse:
        """Answer one stream request. The connection is taken over, as Nomad does since 1.11.2."""
        raw_index = request.query.get("index", "0")
        try:
            index = int(raw_index)
        except ValueError as error:
            raise Refusal(
                400,
                f'Unable to parse index: strconv.Atoi: parsing "{raw_index}": invalid syntax',
                {"Vary": "Accept-Encoding"},
            ) from error
        wanted = _wanted(request)
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        transport.write(
            f"{self.settings.status_line}\r\nConnection: close\r\nCache-Control: no-cache\r\n"
            "Content-Type: application/json\r\nVary: Accept-Encoding\r\n\r\n".encode()
        )
        subscriber = Subscriber(transport, wanted, request.query.get("namespace", "default"))
        self.subscribers.add(subscriber)
        try:
            if self.denied or not allowed:
                await self._stay_silent(subscriber)
            else:
                await self._stream(subscriber, index)
        finally:
            self.subscribers.discard(subscriber)
            transport.close()
        return web.Response()

    async def _stay_silent(self, subscriber: Subscriber) -> None:
        """Refused: 200, then nothing, and the socket closes late (nomad-verified.md A.1)."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.denied_close_seconds
        while (left := end - loop.time()) > 0 and not subscriber.transport.is_closing():
            try:
                async with asyncio.timeout(left):
                    if await subscriber.queue.get() is None:
                        return
            except TimeoutError:
                return

    async def _stream(self, subscriber: Subscriber, index: int) -> None:
        subscriber.transport.write(b"{}\n")
        for entry in self.backlog(index):
            self._send(subscriber, entry)
        loop = asyncio.get_running_loop()
        beat = loop.time() + self.settings.heartbeat_seconds
        while not subscriber.transport.is_closing():
            try:
                async with asyncio.timeout_at(min(beat, loop.time() + 1.0)):
                    entry = await subscriber.queue.get()
            except TimeoutError:
                if loop.time() >= beat:
                    subscriber.transport.write(b"{}\n")
                    beat = loop.time() + self.settings.heartbeat_seconds
                continue
            if entry is None:
                return
            self._send(subscriber, entry)

    @staticmethod
    def _send(subscriber: Subscriber, entry: Entry) -> None:
        index, events = entry
        chosen = [e for event in events for e in _matches(event, subscriber)]
        if chosen:
            line = json.dumps({"Index": index, "Events": chosen})
            subscriber.transport.write(line.encode() + b"\n")


def _matches(event: Event, subscriber: Subscriber) -> list[Event]:
    """The event once per matching key; an event that matches two keys comes twice (nomad.md 3.1)."""
    namespace = event["Namespace"]
    if subscriber.namespace != "*" and namespace and namespace != subscriber.namespace:
        return []
    keys = [*subscriber.wanted.get(event["Topic"], []), *subscriber.wanted.get("*", [])]
    names = {event["Key"], *(event["FilterKeys"] or [])}
    if "*" in keys:
        return [event]
    return [event for key in keys if key in names]


def _wanted(request: web.Request) -> Wanted:
    wanted: Wanted = {}
    for raw in request.query.getall("topic", ["*:*"]):
        topic, sign, key = raw.partition(":")
        if ":" in key:
            # not recorded; nomad.md 3.1 (a key may not contain a colon)
            raise Refusal(400, f"Invalid key value pair for topic, topic: {raw}")
        wanted.setdefault(topic, []).append(key if sign and key else "*")
    return wanted


def event(topic: str, key: str, namespace: str, payload: Any, filter_keys: Sequence[str] | None = None) -> Event:
    """One event without its Type and Index, which the write adds."""
    return {
        "Topic": topic,
        "Key": key,
        "Namespace": namespace,
        "FilterKeys": list(filter_keys) if filter_keys is not None else None,
        "Payload": payload,
    }
