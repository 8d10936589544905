"""Commands inside a task, over Nomad's websocket: frames out, frames in, one exit code.

It runs what it is given and knows nothing of freezes. A command goes on when its socket has gone (nomad-verified.md
A4), so a time-out here says nothing about what happens there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from adapters.nomad import errors
from adapters.nomad.client import Client, part
from bridge.model.failure import BridgeError, Failure, FailureKind

HEARTBEAT_SECONDS = 10.0
MOST_OUTPUT_BYTES = 2000


@dataclasses.dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended. `output` is the end of what it wrote, both streams together."""

    exit_code: int
    output: str = ""


class ExecError(Exception):
    """It is not known that the command ran to its end. `failure` says whether it can have been started."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


async def run(
    client: Client, namespace: str, allocation: str, task: str, argv: Sequence[str], *, timeout_seconds: float
) -> Ran:
    """Run it to its end. ExecError: refused, lost, or not over in time."""
    query = [
        ("task", task),
        ("command", orjson.dumps(list(argv)).decode()),
        ("tty", "false"),
        ("namespace", namespace),
    ]
    path = f"/v1/client/allocation/{part(allocation)}/exec"
    try:
        async with asyncio.timeout(timeout_seconds), client.websocket(path, query) as socket:
            return await _session(socket)
    except TimeoutError:
        message = f"the command in task {task!r} did not end within {timeout_seconds:g} s"
        hint = "it may go on; a task that hangs here after a missing program has to be restarted"
        raise ExecError(Failure(FailureKind.UNSURE, "DEADLINE_EXCEEDED", message, hint)) from None
    except BridgeError as error:
        raise ExecError(Failure(FailureKind.UNSURE, error.code, error.message, error.hint)) from error


async def _session(socket: aiohttp.ClientWebSocketResponse) -> Ran:
    # First of all: with an open stdin the last frame never comes (nomad-verified.md A2).
    await socket.send_str('{"stdin":{"close":true}}')
    beats = asyncio.create_task(_beat(socket), name="nomad-exec-heartbeat")
    try:
        return await _read(socket)
    finally:
        beats.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await beats


async def _beat(socket: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        await socket.send_str("{}")


async def _read(socket: aiohttp.ClientWebSocketResponse) -> Ran:
    output = bytearray()
    while True:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            frame = _frame(message.data)
            for stream in ("stdout", "stderr"):
                output += _data(frame.get(stream))
            del output[:-MOST_OUTPUT_BYTES]
            if frame.get("exited"):
                # Exit code 0 is an empty result (nomad-verified.md F).
                code = int((frame.get("result") or {}).get("exit_code") or 0)
                return Ran(code, output.decode(errors="replace").strip())
        elif message.type is aiohttp.WSMsgType.CLOSE:
            raise ExecError(errors.classify_close(int(message.data or 0), str(message.extra or "")))
        elif message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.ERROR):
            text = "the connection to the command broke; the command may go on"
            raise ExecError(Failure(FailureKind.UNSURE, "UNAVAILABLE", text))


def _frame(text: str) -> dict[str, Any]:
    try:
        frame = orjson.loads(text)
    except orjson.JSONDecodeError:
        frame = None
    if not isinstance(frame, dict):
        raise ExecError(Failure(FailureKind.UNSURE, "UNKNOWN", "Nomad sent a frame that is no JSON object"))
    return frame


def _data(stream: Any) -> bytes:
    try:
        return base64.b64decode((stream or {}).get("data") or "")
    except (binascii.Error, AttributeError, TypeError):
        return b""
