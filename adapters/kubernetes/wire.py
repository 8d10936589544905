"""HTTP/1.1 for small calls on kept connections: one write, one answer, and nothing in between.

A general client costs three times as much CPU per call, and calls are most of what this service does
(docs/performance.md). Lists, watches and proxies stay with aiohttp. No retries here but the one that a kept
connection calls for: the server may close it at the moment we use it again.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import re
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import cast

MOST_ANSWER_BYTES = 64 * 2**20
MOST_HEAD_BYTES = 256 * 2**10
IDLE_SECONDS = 60.0
"""Kube-apiserver closes what was idle for 90 seconds."""
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
_PLAIN_TARGET = re.compile(r"[A-Za-z0-9\-._~/?=&%:,+]+")
_LINE_BREAK = re.compile(r"[\r\n\0]")


class WireError(OSError):
    """The connection failed, or what came is not HTTP."""


class LostError(WireError):
    """The connection ended before the first byte of an answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    payload: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the server is."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    server_name: str | None
    """The name that its certificate must have; None: `host`."""
    prefix: str = ""
    """Goes before every path."""

    @property
    def authority(self) -> str:
        """For the Host header."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"


def place(url: str, tls: ssl.SSLContext | None, server_name: str | None) -> Place:
    """Read a server's address. ValueError when it is none."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError(f"{url!r} is no http or https address")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    return Place(
        parts.hostname, port, tls if secure else None, server_name if secure else None, parts.path.rstrip("/")
    )


class Pool:
    """Kept connections to one server. The one that was used last is used first."""

    def __init__(self, where: Place, *, limit: int, headers: Mapping[str, str]) -> None:
        self._where = where
        self._slots = asyncio.Semaphore(limit)
        self._idle: collections.deque[_Line] = collections.deque()
        self._open: set[_Line] = set()
        lines = [f"Host: {where.authority}", *(f"{name}: {value}" for name, value in headers.items())]
        self._fixed = "\r\n".join(lines)

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, *, timeout_seconds: float
    ) -> Answer:
        """One call. TimeoutError after `timeout_seconds`, waiting for a free connection included; OSError.

        ValueError: a header that cannot be sent.
        """
        data = self._message(method, target, headers, body)
        async with asyncio.timeout(timeout_seconds), self._slots:
            line = self._take()
            if line is not None:
                try:
                    return await self._exchange(line, data)
                except LostError:
                    if method not in _REPEATABLE:
                        raise
            return await self._exchange(await self._connect(), data)

    async def close(self) -> None:
        """End every connection; calls under way fail."""
        for line in tuple(self._open):
            line.end()
        self._idle.clear()

    def _message(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        target = self._where.prefix + target
        if not _PLAIN_TARGET.fullmatch(target):
            target = urllib.parse.quote(target, safe="/?=&%:,+-._~")
        if any(_LINE_BREAK.search(value) for value in headers.values()):
            raise ValueError("a header of a request may hold no line break")
        given = "".join(f"\r\n{name}: {value}" for name, value in headers.items())
        length = "" if body is None else f"\r\nContent-Length: {len(body)}"
        head = f"{method} {target} HTTP/1.1\r\n{self._fixed}{given}{length}\r\n\r\n".encode("latin-1")
        return head if body is None else head + body

    def _take(self) -> _Line | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            line = self._idle.pop()
            if line.usable and now - line.idle_since < IDLE_SECONDS:
                return line
            line.end()
        return None

    async def _connect(self) -> _Line:
        where, loop = self._where, asyncio.get_running_loop()
        name = (where.server_name or where.host) if where.tls else None
        _, line = await loop.create_connection(
            lambda: _Line(self._open), where.host, where.port, ssl=where.tls, server_hostname=name
        )
        return line

    async def _exchange(self, line: _Line, data: bytes) -> Answer:
        """What is cut off in the middle leaves a connection that nobody can use again."""
        try:
            answer = await line.send(data)
        except BaseException:
            line.end()
            raise
        if line.usable:
            line.idle_since = asyncio.get_running_loop().time()
            self._idle.append(line)
        else:
            line.end()
        return answer


class _Line(asyncio.Protocol):
    """One connection; one call at a time."""

    def __init__(self, register: set[_Line]) -> None:
        self._register = register
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._reader: _Reader | None = None
        self.usable = True
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._register.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._register.discard(self)
        begun = self._reader is not None and self._reader.begun
        why = str(exc) if exc else "the server closed the connection"
        self._fail(WireError(why) if begun else LostError(why))

    def eof_received(self) -> bool:
        return False  # Closes the transport.

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done() or self._reader is None:
            self.end()  # Nobody asked.
            return
        try:
            answer = self._reader.feed(data)
        except ValueError as error:
            self._fail(WireError(f"the answer is not HTTP: {error}"))
            self.end()
            return
        if answer is not None:
            self.usable = self.usable and self._reader.keeps
            self._waiter.set_result(answer)

    async def send(self, data: bytes) -> Answer:
        """Send a whole request and wait for the whole answer."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise LostError("the connection is closed")
        self._waiter = asyncio.get_running_loop().create_future()
        self._reader = _Reader()
        transport.write(data)
        return await self._waiter

    def end(self) -> None:
        """Close it for good."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort() if self._waiter and not self._waiter.done() else self._transport.close()

    def _fail(self, error: WireError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class _Reader:
    """Bytes to one answer. ValueError: it is no HTTP/1.1 answer that a server of ours gives."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._head: tuple[int, dict[str, str]] | None = None
        self._length: int | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self.begun = False
        self.keeps = False
        """Whether the connection may be used again."""

    def feed(self, data: bytes) -> Answer | None:
        """The answer once it is whole."""
        self.begun = True
        self._buffer += data
        while self._head is None:
            if not self._read_head():
                return None
        if self._length is not None:
            if len(self._buffer) - self._at < self._length:
                return None
            if len(self._buffer) - self._at > self._length:
                raise ValueError("bytes after its end")
            return self._whole(bytes(self._buffer[self._at :]))
        return self._read_chunks()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", self._at)
        if end < 0:
            if len(self._buffer) > MOST_HEAD_BYTES:
                raise ValueError("its head has no end")
            return False
        first, *rest = self._buffer[self._at : end].decode("latin-1").split("\r\n")
        self._at = end + 4
        version, _, status = first.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not status[:3].isdecimal():
            raise ValueError(f"it begins with {first[:40]!r}")
        if status.startswith("1"):
            return True  # Only information; the answer follows.
        headers = {}
        for line in rest:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self._head = (int(status[:3]), headers)
        self.keeps = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        self._length = self._body_length(int(status[:3]), headers)
        return True

    def _body_length(self, status: int, headers: Mapping[str, str]) -> int | None:
        """None for chunks."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return None
        text = headers.get("content-length", "0" if status in (204, 304) else "")
        if not text.isdecimal() or int(text) > MOST_ANSWER_BYTES:
            raise ValueError(f"its length is {text!r}")
        return int(text)

    def _read_chunks(self) -> Answer | None:
        while True:
            end = self._buffer.find(b"\r\n", self._at)
            if end < 0:
                return None
            size = int(bytes(self._buffer[self._at : end]).split(b";")[0], 16)
            self._size += size
            if size < 0 or self._size > MOST_ANSWER_BYTES:
                raise ValueError("it is too long")
            begin, stop = end + 2, end + 2 + size
            if len(self._buffer) < stop + 2:
                self._size -= size
                return None
            if self._buffer[stop : stop + 2] != b"\r\n":
                raise ValueError("a chunk has no end")
            self._at = stop + 2
            if size == 0:
                if len(self._buffer) > self._at:
                    raise ValueError("bytes after its end")
                return self._whole(b"".join(self._chunks))
            self._chunks.append(bytes(self._buffer[begin:stop]))

    def _whole(self, payload: bytes) -> Answer:
        assert self._head is not None
        status, headers = self._head
        return Answer(status, headers, payload)
