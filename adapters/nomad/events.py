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

from adapters.nomad import errors, versions
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
    """Follows one namespace (or all, `*`) until cancelled. `resync` lists the jobs; it is asked after each connect,
    and when the stream shows that the cluster's state went back."""

    def __init__(
        self, client: Client, namespace: str, agent: versions.Agent, *, on_event: Handler, resync: Resync
    ) -> None:
        self._client = client
        self._settings = client.settings
        self._namespace = namespace
        self._agent = agent
        self._on_event = on_event
        self._resync = resync
        self._index = 0
        self._jobs_index = 0
        """0: the next query does not wait, also on a cluster without any job."""
        self._seen: collections.deque[tuple[int, str, str, str, str]] = collections.deque(maxlen=_REMEMBERED)
        self._seen_set: set[tuple[int, str, str, str, str]] = set()
        self.sentence = "its jobs are not read yet"
        """Empty while the stream flows; else why it does not."""
        self._garbled: list[versions.Version | None] = []
        """The version whose stream could not be read, once that was seen."""

    @property
    def readable(self) -> bool:
        """False for an agent whose stream no client can read; blocking queries then, until its version changes."""
        return not self._agent.has(versions.STREAM_UNREADABLE) and self._garbled != [self._agent.version]

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
                self._garbled = [self._agent.version]
                log.warning("%s; blocking queries are used instead", error)
            except AnswerError as error:
                trouble = str(errors.as_error(error, "read the event stream"))
                if error.status == 403:
                    trouble = f"the event stream was refused; {self._needs()}"
            except UnavailableError as error:
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

    def _needs(self) -> str:
        """The rule that a token needs for this stream."""
        where = "; in each namespace that exists" if self._namespace == "*" else ""
        return f'the token needs read-job: namespace "{self._namespace}" {{ capabilities = ["read-job"] }}{where}'

    async def _stream(self) -> None:
        """One connection, from its first heartbeat to its end."""
        query = [("namespace", self._namespace)]
        query += [("topic", topic) for topic in versions.topics(self._agent.version)]
        if self._index:
            query.append(("index", str(self._index)))
        self._forget_older()
        settings = self._settings
        async with self._client.lines("/v1/event/stream", query) as lines:
            try:
                first = await _within(settings.stream_first_seconds, lines)
            except TimeoutError:
                raise RefusedError("no first heartbeat: refused, or no leader", hint=self._needs()) from None
            if first is None:
                raise RefusedError("the event stream ended before its first heartbeat: refused", hint=self._needs())
            await self._resync()
            self.sentence = ""
            line: bytes | None = first
            while line is not None:
                await self._take(line)
                try:
                    line = await _within(settings.stream_silence_seconds, lines)
                except TimeoutError:
                    raise UnavailableError(
                        f"the event stream fell silent for {settings.stream_silence_seconds:g} s"
                    ) from None

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
            if event.identity in self._seen_set:
                continue
            if event.index < self._index:
                await self._went_back(event.index)
            self._index = max(self._index, event.index)
            if len(self._seen) == self._seen.maxlen:
                self._seen_set.discard(self._seen[0])
            self._seen.append(event.identity)
            self._seen_set.add(event.identity)
            await self._on_event(event)

    async def _went_back(self, index: int) -> None:
        """An event that is older than the newest one and was never seen: this server knows less than the one before
        (its state was restored, or it lags). To resume at the old index would be to wait for what may never come."""
        where = self._namespace
        log.warning("nomad events of namespace %s: the index went back from %d to %d", where, self._index, index)
        self._index = 0
        self._forget_all()
        await self._resync()

    def _forget_all(self) -> None:
        self._seen.clear()
        self._seen_set.clear()
        self._jobs_index = 0

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try, and follow the jobs meanwhile by a blocking query."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        in_its_stead = not self.readable  # asked now: the agent may be upgraded while we wait
        try:
            # One row is enough: the index is what is waited for, and the list follows when it moved.
            asked = {"namespace": self._namespace, "per_page": "1"}
            answer = await self._client.wait("/v1/jobs", asked, index=self._jobs_index, wait_seconds=seconds)
            changed = answer.index != self._jobs_index
            if changed:
                await self._resync()
            self._jobs_index = max(1, answer.index)
            if in_its_stead:
                self.sentence = ""
                end = min(end, loop.time() + _LEAST_PAUSE_SECONDS)
        except (AnswerError, UnavailableError) as error:
            self._jobs_index = 0  # whoever answers next may count from the beginning
            self.sentence = str(errors.as_error(error, "list the jobs") if isinstance(error, AnswerError) else error)
        await asyncio.sleep(max(0.0, end - loop.time()))


async def _within(seconds: float, lines: AsyncIterator[bytes]) -> bytes | None:
    """The next line in time, or None at the end of the stream. TimeoutError when time is up."""
    async with asyncio.timeout(seconds):
        return await anext(lines, None)
