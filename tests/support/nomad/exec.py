"""Exec and actions over a websocket: upgrade first, errors as close frames, frames as recorded (nomad.md 3.4).

It must not stop a command when its client goes away (nomad-verified.md A.4).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from tests.support.nomad import acl
from tests.support.nomad.answers import Refusal
from tests.support.nomad.state import Allocation, Row

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

_UUID_LENGTH = 36
_CHUNK_BYTES = 4096


class CloseError(Exception):
    """The session is refused with this close code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Run:
    """What to run, and where."""

    allocation: Allocation
    task: Row
    argv: list[str]
    tty: bool


async def alloc_exec(agent: FakeNomad, request: web.Request, rest: str) -> web.StreamResponse:
    """/v1/client/allocation/:id/exec"""
    allocation_id, _, verb = rest.partition("/")
    if verb != "exec":
        raise Refusal(404, "resource not found")  # not recorded; the fake has no other client endpoint
    return await _serve(agent, request, lambda: _exec_run(agent, request, allocation_id))


async def action(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    """/v1/job/:id/action"""
    return await _serve(agent, request, lambda: _action_run(agent, request, job_id))


async def _serve(agent: FakeNomad, request: web.Request, prepare: Any) -> web.StreamResponse:
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise Refusal(500, "websocket connection not found in context")
    socket = web.WebSocketResponse(autoping=True, max_msg_size=0)
    await socket.prepare(request)
    try:
        run = prepare()
    except CloseError as error:
        await socket.close(code=error.code, message=error.text.encode())
        return socket
    await Session(agent, socket, run, request).serve()
    return socket


def _caller(agent: FakeNomad, request: web.Request) -> acl.Caller:
    if not agent.acl.enabled:
        return acl.EVERYONE
    caller = agent.acl.caller_of(acl.token_of(request))
    if caller is None:
        raise CloseError(1008, "rpc error: Permission denied")
    return caller


def _allowed(agent: FakeNomad, caller: acl.Caller, allocation: Allocation, task: str) -> None:
    held = caller.capabilities(allocation.namespace)
    drivers = {t["Name"]: t["Driver"] for t in allocation.group_spec["Tasks"]}
    enough = "alloc-exec" in held and (drivers.get(task) != "raw_exec" or "alloc-node-exec" in held)
    if not (caller.management or enough):
        raise CloseError(1011, "Permission denied")


def _exec_run(agent: FakeNomad, request: web.Request, allocation_id: str) -> Run:
    task = request.query.get("task", "")
    if not task:
        raise CloseError(1008, "must provide task name")
    argv = _argv(request.query.get("command", ""))
    tty = _tty(request.query.get("tty", "false"))
    if len(allocation_id) != _UUID_LENGTH:
        raise CloseError(1011, "alloc lookup failed: index error: UUID must be 36 characters")
    caller = _caller(agent, request)
    allocation = agent.state.allocations.get(allocation_id)
    if allocation is None:
        raise CloseError(1008, f'Unknown allocation "{allocation_id}"')
    _allowed(agent, caller, allocation, task)
    spec = next((t for t in allocation.group_spec["Tasks"] if t["Name"] == task), None)
    if spec is None:
        raise CloseError(1011, "task not found")
    _must_run(allocation, task)
    return Run(allocation, spec, argv, tty)


def _must_run(allocation: Allocation, task: str) -> None:
    # not recorded; nomad.md 3.4 (404 with these texts, which arrive as a close frame)
    state = allocation.tasks.get(task, {}).get("State", "pending")
    if state == "pending":
        raise CloseError(1008, f'task "{task}" not started yet.')
    if state == "dead":
        raise CloseError(1008, f'task "{task}" is not running.')


def _argv(raw: str) -> list[str]:
    try:
        value = json.loads(raw) if raw else []
    except ValueError as error:
        # not recorded for text that is no JSON at all
        raise CloseError(1011, "failed to marshal command into json: invalid character") from error
    if not isinstance(value, list):
        kind = "bool" if isinstance(value, bool) else type(value).__name__
        text = f"json: cannot unmarshal {kind} into Go value of type []string"
        raise CloseError(1011, f"failed to marshal command into json: {text}")
    if not value:
        raise CloseError(1008, "command is not present")
    return [str(part) for part in value]


def _tty(raw: str) -> bool:
    if raw.lower() not in ("true", "false", "1", "0", "t", "f", ""):
        text = f'strconv.ParseBool: parsing "{raw}": invalid syntax'
        raise CloseError(1011, f"tty value is not a boolean: {text}")
    return raw.lower() in ("true", "1", "t")


def _action_run(agent: FakeNomad, request: web.Request, job_id: str) -> Run:
    task, name = request.query.get("task", ""), request.query.get("action", "")
    allocation_id = request.query.get("allocID", "")
    if not task:
        raise CloseError(1008, "must provide task name")
    if not name:
        raise CloseError(1008, "command is not present")
    if not allocation_id:
        raise CloseError(1008, "missing AllocID")
    caller = _caller(agent, request)
    allocation = agent.state.allocations.get(allocation_id)
    if allocation is None:
        raise CloseError(1008, f'Unknown allocation "{allocation_id}"')
    if allocation.job["ID"] != job_id:
        raise CloseError(1008, f"job {job_id} does not have allocation {allocation_id}")
    _allowed(agent, caller, allocation, task)
    spec = next((t for t in allocation.group_spec["Tasks"] if t["Name"] == task), None)
    if spec is None:
        raise CloseError(1008, f"task {task} not found in allocation {allocation_id}")
    found = next((a for a in spec["Actions"] or [] if a["Name"] == name), None)
    if found is None:
        raise CloseError(1008, f"action {name} not found in task {task}")
    _must_run(allocation, task)
    return Run(allocation, spec, [found["Command"], *(found["Args"] or [])], _tty(request.query.get("tty", "false")))


class Session:
    """One websocket and its command. The command lives on in the agent if the socket goes."""

    def __init__(self, agent: FakeNomad, socket: web.WebSocketResponse, run: Run, request: web.Request) -> None:
        self.agent = agent
        self.socket = socket
        self.run = run
        self.request = request
        self.stdin_closed = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None
        self.over = asyncio.Event()

    async def serve(self) -> None:
        key = (self.run.allocation.id, self.run.task["Name"])
        if key in self.agent.wedged or not self._startable():
            # A program that is not there wedges an exec task for good (nomad-verified.md A.3).
            if self.run.task["Driver"] == "raw_exec":
                text = f"fork/exec {self.run.argv[0]}: no such file or directory"
                reason = f"rpc error: code = Unknown desc = failed to start command: {text}"
                await self.socket.close(code=1011, message=reason.encode())
                return
            self.agent.wedged.setdefault(key, asyncio.Event())
            await self._swallow()
            return
        self.agent.spawn(self._command(), f"exec in {self.run.allocation.name}")
        await self._swallow()

    def _startable(self) -> bool:
        return os.path.isabs(self.run.argv[0]) and os.access(self.run.argv[0], os.X_OK)

    async def _swallow(self) -> None:
        """Read the client's frames until it goes or the command is over."""
        while not self.over.is_set():
            try:
                message = await self.socket.receive(timeout=0.2)
            except TimeoutError:
                continue
            if message.type is not WSMsgType.TEXT:
                return
            await self._client_frame(json.loads(message.data))

    async def _client_frame(self, frame: dict[str, Any]) -> None:
        stdin = frame.get("stdin") or {}
        writer = self.process.stdin if self.process is not None else None
        if stdin.get("data") and writer is not None:
            writer.write(base64.b64decode(stdin["data"]))
        if stdin.get("close"):
            if writer is not None:
                writer.close()
            self.stdin_closed.set()

    async def _command(self) -> None:
        live = self.agent.runner.live.get(self.run.allocation.id)
        owner = live.processes.get(self.run.task["Name"]) if live is not None else None
        options: dict[str, Any] = {"start_new_session": True}
        if owner is not None:
            options |= {"cwd": owner.directory, "env": owner.environment}
        code = await (self._on_terminal(options) if self.run.tty else self._on_pipes(options))
        # The exited frame comes only when the client has closed stdin (nomad-verified.md A.2).
        await self.stdin_closed.wait()
        await self._send({"exited": True, "result": {"exit_code": code} if code else {}})
        self.over.set()
        if self.request.transport is not None:
            self.request.transport.close()  # TCP ends without a close frame (recorded: 1006)

    async def _on_pipes(self, options: dict[str, Any]) -> int:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *self.run.argv, stdin=pipe, stdout=pipe, stderr=pipe, **options
        )
        self.process = process
        self.agent.commands.add(process)
        if self.stdin_closed.is_set() and process.stdin is not None:
            process.stdin.close()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump("stdout", process.stdout))
            group.create_task(self._pump("stderr", process.stderr))
        code = await process.wait()
        self.agent.commands.discard(process)
        await self.stdin_closed.wait()
        for name in ("stderr", "stdout"):
            await self._send({name: {"close": True}})
        return 128 - code if code < 0 else code

    async def _pump(self, name: str, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while data := await stream.read(_CHUNK_BYTES):
            await self._send({name: {"data": base64.b64encode(data).decode()}})

    async def _on_terminal(self, options: dict[str, Any]) -> int:
        """With a terminal: one stream, CR LF, no close frames."""
        master, slave = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *self.run.argv, stdin=slave, stdout=slave, stderr=slave, **options
        )
        os.close(slave)
        self.agent.commands.add(process)
        output = await asyncio.to_thread(_drain, master)
        code = await process.wait()
        self.agent.commands.discard(process)
        for start in range(0, len(output), _CHUNK_BYTES):
            chunk = output[start : start + _CHUNK_BYTES]
            await self._send({"stdout": {"data": base64.b64encode(chunk).decode()}})
        return 128 - code if code < 0 else code

    async def _send(self, frame: dict[str, Any]) -> None:
        if not self.socket.closed:
            try:
                await self.socket.send_str(json.dumps(frame))
            except ConnectionError:
                self.over.set()


def _drain(master: int) -> bytes:
    """Read a terminal until its last writer has gone."""
    output = b""
    try:
        while data := os.read(master, _CHUNK_BYTES):
            output += data
    except OSError:
        return output  # EIO: the other side is closed
    finally:
        os.close(master)
    return output
