"""Replaying recorded event streams and websocket sessions.

It must compare what the wire shows: status line, headers, heartbeats, lines, frames, close codes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

import aiohttp
from aiohttp import WSMsgType

from tests.support.nomad.replay_compare import Bindings
from tests.support.nomad.replay_player import Case, Player

_EVENT_KEYS = {"Topic", "Type", "Key", "Namespace", "FilterKeys", "Index", "Payload"}


PATIENCE_SECONDS = 30.0
"""For what must come. What must not come is waited for by each test's own, shorter, time."""


@dataclass(slots=True)
class Seen:
    """What came over one stream."""

    begun: bool = False
    """Whether the head of the answer is there."""
    status_line: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    lines: list[Any] = field(default_factory=list)
    closed: bool = False

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for line in self.lines if line and isinstance(line, dict) for event in line["Events"]]

    @property
    def indexes(self) -> list[int]:
        return [line["Index"] for line in self.lines if line and isinstance(line, dict)]


async def open_stream(
    player: Player, query: str, headers: dict[str, str]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", player.agent.port)
    text = f"GET /v1/event/stream{'?' + query if query else ''} HTTP/1.1\r\nHost: {player.agent.address}\r\n"
    text += "".join(f"{key}: {player.bindings.translate(value)}\r\n" for key, value in headers.items())
    writer.write((text + "\r\n").encode())
    await writer.drain()
    return reader, writer


async def read_stream(player: Player, query: str, headers: dict[str, str], seconds: float) -> Seen:
    """Read a stream until its end, or until nothing more has come for so many seconds. From the bare socket, as an
    HTTP library would hide its form."""
    reader, writer = await open_stream(player, query, headers)
    seen = Seen()
    reading = asyncio.create_task(collect(reader, seen), name="stream")
    try:
        await quiet(reading, seen, seconds)
        if reading.done():
            reading.result()
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        writer.close()
    return seen


async def quiet(reading: asyncio.Task[None], seen: Seen, seconds: float) -> None:
    """Wait until the stream has begun, and then has ended or brought nothing more for so many seconds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not seen.begun and not reading.done():  # noqa: ASYNC110 - the head of an answer rings no bell
            await asyncio.sleep(0.005)
    before = -1
    while before != len(seen.lines) and not reading.done():
        before = len(seen.lines)
        await asyncio.wait({reading}, timeout=seconds)


async def collect(reader: asyncio.StreamReader, seen: Seen) -> None:
    seen.status_line = (await reader.readline()).decode().strip()
    while line := (await reader.readline()).decode().strip():
        key, _, value = line.partition(": ")
        seen.headers[key] = value
    seen.begun = True
    if "200" not in seen.status_line:
        seen.lines.append((await reader.readexactly(int(seen.headers["Content-Length"]))).decode())
        return
    while line := (await reader.readline()).decode():
        try:
            seen.lines.append(json.loads(line))
        except ValueError:
            seen.lines.append(line.rstrip("\n"))
    seen.closed = True


def stream_query(case: Case, index: int | None) -> str:
    """The recorded query, with the fake's index where the recording had one of its own."""
    pairs = [(k, v) for k, v in parse_qsl(case["request"]["query"]) if k != "index" or index is None]
    return urlencode(pairs + ([("index", str(index))] if index is not None else []), safe=":*")


def compare_stream(case: Case, seen: Seen) -> list[str]:
    """The form of a stream: status line, headers, first line, and the shape of each event."""
    recorded = case["response"]
    problems = []
    if seen.status_line != recorded["status_line"]:
        problems.append(f"status line {seen.status_line!r} instead of {recorded['status_line']!r}")
    skip = {"Date", "Content-Length", "Transfer-Encoding", "Server"}
    wanted = {key: value for key, value in recorded["headers"].items() if key not in skip}
    found = {key: value for key, value in seen.headers.items() if key not in skip}
    if "400" in seen.status_line:
        found.pop("Connection", None)
        wanted.pop("Connection", None)
    if {k: found.get(k) for k in wanted} != wanted:
        problems.append(f"headers {found} instead of {wanted}")
    lines = [line["line"] for line in recorded["lines"]]
    if bool(lines) != bool(seen.lines):
        return [*problems, f"{len(seen.lines)} lines instead of {len(lines)}"]
    if lines and (lines[0] == {} or isinstance(lines[0], str)) and seen.lines[0] != lines[0]:
        problems.append(f"first line {seen.lines[0]!r} instead of {lines[0]!r}")
    if (len(lines) > 1) != (len(seen.lines) > 1):
        problems.append(f"{len(seen.lines)} lines instead of {len(lines)}")
    return problems + _shapes([line for line in lines if line], seen)


def _shapes(lines: list[Any], seen: Seen) -> list[str]:
    problems = []
    topics = {event["Topic"] for line in lines if isinstance(line, dict) for event in line["Events"]}
    for event in seen.events:
        if set(event) != _EVENT_KEYS:
            problems.append(f"event keys {sorted(event)}")
        if (
            topics
            and "Evaluation" not in topics
            and event["Topic"] not in topics | {"CSIPlugin", "Allocation", "CSIVolume"}
        ):
            problems.append(f"event of topic {event['Topic']}")
    return problems


async def play_session(player: Player, case: Case, limit_seconds: float = 1.0) -> list[dict[str, Any]]:
    """Send the recorded client frames at their times; returns the server's frames and the end.

    Where the recorded client gave up, so does this one: `limit_seconds` after the last frame that came then.
    """
    request = case["request"]
    path = player.bindings.translate(request["path"])
    query = {key: player.bindings.translate(value) for key, value in request["query"].items()}
    headers = {key: player.bindings.translate(value) for key, value in (request["headers"] or {}).items()}
    frames: list[dict[str, Any]] = []
    recorded = case["response"]["frames"]
    gives_up, told = any("note" in frame for frame in recorded), sum(f.get("dir") == "server" for f in recorded)
    url = f"{player.agent.url}{path}?{urlencode(query)}"
    async with player.session.ws_connect(url, headers=headers, autoping=True) as socket, asyncio.TaskGroup() as group:
        sender = group.create_task(_send(socket, recorded))
        try:
            while True:
                is_over = gives_up and len(frames) >= told
                async with asyncio.timeout(limit_seconds if is_over else PATIENCE_SECONDS):
                    message = await socket.receive()
                if message.type is not WSMsgType.TEXT:
                    break
                frames.append(json.loads(message.data))
            frames.append(_end(socket, message))
        except TimeoutError:
            frames.append({"note": "client gave up waiting"})
        sender.cancel()
    return frames


async def _send(socket: aiohttp.ClientWebSocketResponse, frames: list[dict[str, Any]]) -> None:
    now = 0.0
    for frame in frames:
        if frame.get("dir") == "client":
            await asyncio.sleep(max(0.0, frame["t"] - now))
            now = frame["t"]
            with contextlib.suppress(ConnectionError):  # it has ended meanwhile: the frames that came tell how
                await socket.send_str(json.dumps(frame["text"]))


def _end(socket: aiohttp.ClientWebSocketResponse, message: aiohttp.WSMessage) -> dict[str, Any]:
    if message.type is WSMsgType.CLOSE:
        return {"close": {"code": message.data, "reason": message.extra or ""}}
    return {"close_code": socket.close_code}


def session_form(frames: list[dict[str, Any]], bindings: Bindings) -> dict[str, Any]:
    """A session without the chance of its timing: output joined, order of closes and of the end kept."""
    output = {"stdout": b"", "stderr": b""}
    order: list[Any] = []
    for frame in frames:
        body = frame.get("text", frame)
        if frame.get("dir") == "client":
            continue
        for name in output:
            part = body.get(name)
            if isinstance(part, dict) and "data" in part:
                output[name] += base64.b64decode(part["data"])
            elif isinstance(part, dict):
                order.append(f"{name} close")
        if body.get("exited"):
            order.append(body)
        if "close" in body and isinstance(body["close"], dict):
            reason = bindings.translate(body["close"]["reason"])
            order.append(f"close {body['close']['code']} {reason}")
        if "close_code" in body:
            order.append(f"ended {body['close_code']}")
        if "note" in body:
            order.append(body["note"])
    return {"output": output, "order": order}
