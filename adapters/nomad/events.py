"""Nomad's event stream: lossy, repeating, silent when denied. Here it becomes calls of a handler.

It promises a resync after every (re)connect, so that nothing depends on an event having come. It never asks for
CSIVolume events (versions.py says why). Where there is no stream, a blocking query on the jobs does its work.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from adapters.nomad.client import Client, UnreadableError
from adapters.nomad.errors import AnswerError
from bridge.model.failure import UnavailableError

log = logging.getLogger(__name__)

_REMEMBERED = 4096
_LONGEST_WAIT_SECONDS = 60.0
_LEAST_PAUSE_SECONDS = 0.25
"""Between two blocking queries: the jobs' index also moves when nothing of ours has changed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One event. `index` is the Raft index; several events, also several lines, may share it."""

    index: int
    topic: str
    type: str
    key: str
    namespace: str
    payload: Mapping[str, Any]

    @property
    def identity(self) -> tuple[int, str, str, str, str]:
        """What makes it one event: resuming always brings the last one again."""
        return (self.index, self.topic, self.type, self.namespace, self.key)


class RefusedError(UnavailableError):
    """The event stream was refused: Nomad says 200 and then nothing (nomad-verified.md A1)."""


Handler = Callable[[Event], Awaitable[None]]
Resync = Callable[[], Awaitable[None]]


def parse(line: bytes) -> Sequence[Event]:
    """The events of one line; none for a heartbeat. ValueError, TypeError for what is no event line."""
    row = orjson.loads(line)
    if not isinstance(row, dict):
        raise TypeError("an event line is a JSON object")
    return [
        Event(
            index=int(event.get("Index") or row.get("Index") or 0),
            topic=str(event.get("Topic") or ""),
            type=str(event.get("Type") or ""),
            key=str(event.get("Key") or ""),
            namespace=str(event.get("Namespace") or ""),
            payload=event.get("Payload") if isinstance(event.get("Payload"), dict) else {},
        )
        for event in row.get("Events") or ()
    ]


class Watcher:
    """Follows one namespace (or all, `*`) until cancelled."""

    def __init__(
        self, client: Client, namespace: str, topics: Sequence[str], *, on_event: Handler, resync: Resync
    ) -> None:
        self._client = client
        self._settings = client.settings
        self._namespace = namespace
        self._topics = tuple(topics)
        self._on_event = on_event
        self._resync = resync
        self._index = 0
        self._jobs_index = 1
        self._seen: collections.deque[tuple[int, str, str, str, str]] = collections.deque(maxlen=_REMEMBERED)
        self._seen_set: set[tuple[int, str, str, str, str]] = set()
        self.sentence = "its jobs are not read yet"
        """Empty while the stream flows; else why it does not."""
        self.readable = True
        """False once an agent has answered a stream that no client can read; blocking queries from then on."""

    async def run(self) -> None:
        """Stream, resync, back off, for ever."""
        failures = 0
        while True:
            trouble = ""
            try:
                if self.readable:
                    await self._stream()
                    trouble = "the agent closed the event stream"
            except UnreadableError as error:
                self.readable = False
                log.warning("%s; blocking queries are used instead", error)
            except (AnswerError, UnavailableError) as error:
                trouble = str(error)
            connected = self.sentence == ""
            failures = 0 if connected else failures + 1
            if trouble:
                self.sentence = trouble
                log.warning("nomad events of namespace %s: %s", self._namespace, trouble)
            await self._pause(_LONGEST_WAIT_SECONDS if not self.readable else self._delay(failures))

    def _delay(self, failures: int) -> float:
        first, most = self._settings.backoff_first_seconds, self._settings.backoff_most_seconds
        delay: float = min(most, first * 2.0 ** min(failures, 16))
        return delay * random.uniform(0.75, 1.25)

    async def _stream(self) -> None:
        """One connection, from its first heartbeat to its end."""
        query = [("namespace", self._namespace), *(("topic", topic) for topic in self._topics)]
        if self._index:
            query.append(("index", str(self._index)))
        self._forget_older()
        settings = self._settings
        async with self._client.lines("/v1/event/stream", query) as lines:
            first = await _within(settings.stream_first_seconds, lines, "no first heartbeat: refused, or no leader")
            if first is None:
                raise RefusedError("the event stream ended before its first heartbeat: refused")
            await self._resync()
            self.sentence = ""
            line: bytes | None = first
            while line is not None:
                await self._take(line)
                line = await _within(settings.stream_silence_seconds, lines, "the event stream fell silent")

    def _forget_older(self) -> None:
        """Only the entry that is resumed at can come again. A rebuilt server counts from the beginning, and its
        events must not be taken for those of its predecessor."""
        kept = [identity for identity in self._seen if identity[0] >= self._index]
        self._seen.clear()
        self._seen.extend(kept)
        self._seen_set = set(kept)

    async def _take(self, line: bytes) -> None:
        try:
            events = parse(line)
        except (ValueError, TypeError) as error:
            raise UnavailableError(f"the event stream brought a line that is no event: {error}") from error
        for event in events:
            self._index = max(self._index, event.index)
            if event.identity in self._seen_set:
                continue
            if len(self._seen) == self._seen.maxlen:
                self._seen_set.discard(self._seen[0])
            self._seen.append(event.identity)
            self._seen_set.add(event.identity)
            await self._on_event(event)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try, and follow the jobs meanwhile by a blocking query."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            answer = await self._client.wait(
                "/v1/jobs", {"namespace": self._namespace}, index=self._jobs_index, wait_seconds=seconds
            )
            changed = answer.index != self._jobs_index
            self._jobs_index = max(1, answer.index)
            if changed:
                await self._resync()
            if not self.readable:
                self.sentence = ""
                end = min(end, loop.time() + _LEAST_PAUSE_SECONDS)
        except (AnswerError, UnavailableError) as error:
            self.sentence = str(error)
        await asyncio.sleep(max(0.0, end - loop.time()))


async def _within(seconds: float, lines: AsyncIterator[bytes], sentence: str) -> bytes | None:
    """The next line in time, or None at the end of the stream. RefusedError when time is up."""
    try:
        async with asyncio.timeout(seconds):
            return await anext(lines, None)
    except TimeoutError:
        raise RefusedError(sentence, hint="the token needs read-job in every namespace that is watched") from None
