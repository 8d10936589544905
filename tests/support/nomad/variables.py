"""Variables and their locks: `/v1/var/<path>` and `/v1/vars` (nomad.md 3.6, nomad-verified.md A.11 and G).

It must not show a lock conflict's variable: Nomad answers with an empty one.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.support.nomad import acl, blocking
from tests.support.nomad.answers import (
    TEXT_TYPE,
    Refusal,
    answer,
    empty,
    invalid_method,
    multierror,
    read_headers,
    read_json,
    write_headers,
)
from tests.support.nomad.events import event
from tests.support.nomad.state import Row, new_id, now_ns

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

_PATH = re.compile(r"[a-zA-Z0-9\-_~/]{1,128}")
_LIMIT_BYTES = 64 * 1024
_DEFAULT_SECONDS = 15.0
_SHORTEST_SECONDS, _LONGEST_SECONDS = 10.0, 86400.0
_RESERVED = (
    'only paths at "nomad/jobs" or "nomad/job-templates" and below are valid paths '
    'under the top-level "nomad" directory'
)
_OPERATIONS = ("lock-acquire", "lock-renew", "lock-release")


@dataclass(slots=True)
class Lock:
    id: str
    ttl_seconds: float
    delay_seconds: float
    renewed_at: float  # loop time


@dataclass(slots=True)
class Variable:
    namespace: str
    path: str
    items: dict[str, str]
    create_index: int
    modify_index: int
    create_time: int = field(default_factory=now_ns)
    modify_time: int = field(default_factory=now_ns)
    lock: Lock | None = None
    locked_until: float = 0.0  # the delay after an expiry, loop time

    def row(self, *, items: bool = True) -> Row:
        row: Row = {"CreateIndex": self.create_index, "CreateTime": self.create_time}
        if items:
            row["Items"] = dict(self.items)
        if self.lock is not None:
            row["Lock"] = {
                "TTL": _go_duration(self.lock.ttl_seconds), "LockDelay": _go_duration(self.lock.delay_seconds),
                "ID": self.lock.id,
            }  # fmt: skip
        row.update(
            ModifyIndex=self.modify_index, ModifyTime=self.modify_time, Namespace=self.namespace, Path=self.path
        )
        return row


def _go_duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"


def _blank(namespace: str, path: str) -> Row:
    return {
        "CreateIndex": 0,
        "CreateTime": 0,
        "ModifyIndex": 0,
        "ModifyTime": 0,
        "Namespace": namespace,
        "Path": path,
    }


def _conflict(row: Row, index: int | None) -> web.Response:
    """409 with a variable as JSON, but called text (recorded)."""
    headers = {} if index is None else write_headers(index)
    response = answer(row, headers, status=409)
    response.headers["Content-Type"] = TEXT_TYPE
    return response


def _key(request: web.Request, path: str) -> tuple[str, str]:
    return request.query.get("namespace", "default"), path


async def list_variables(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    """GET /v1/vars: metadata only; what the caller may not list is left out."""
    if request.method != "GET":
        raise invalid_method()
    await blocking.block(request, agent.state, blocking.Watch(("variables",)))
    wanted = request.query.get("namespace", "default")
    prefix = request.query.get("prefix", "")
    caller: acl.Caller = acl.caller(request)
    rows = [
        variable.row(items=False)
        for (namespace, path), variable in sorted(agent.state.variables.items())
        if wanted in ("*", namespace) and path.startswith(prefix) and caller.may_variable(namespace, path, "list")
    ]
    return blocking.listing(request, agent.state, ("variables",), rows, lambda r: f"{r['Namespace']}.{r['Path']}")


async def one(agent: FakeNomad, request: web.Request, path: str) -> web.StreamResponse:
    """/v1/var/<path>"""
    _expire(agent, request, path)
    if request.method == "GET":
        return await _get(agent, request, path)
    if request.method in ("PUT", "POST"):
        return await _put(agent, request, path)
    if request.method == "DELETE":
        return _delete(agent, request, path)
    raise invalid_method()


def _require(request: web.Request, path: str, capability: str, index: int | None = 0) -> None:
    caller: acl.Caller = acl.caller(request)
    if not caller.may_variable(*_key(request, path), capability):
        raise Refusal(403, "Permission denied", None if index is None else write_headers(index))


async def _get(agent: FakeNomad, request: web.Request, path: str) -> web.StreamResponse:
    _require(request, path, "read", None)
    await blocking.block(request, agent.state, blocking.Watch(("variables",)))
    variable = agent.state.variables.get(_key(request, path))
    headers = read_headers(agent.state.table_index(("variables",)))
    if variable is None:
        raise Refusal(404, "variable not found", headers)
    return answer(variable.row(), headers)


def _expire(agent: FakeNomad, request: web.Request, path: str) -> None:
    """Drop a lock that nobody renewed: after twice its TTL, and then its delay runs (nomad-verified.md A.11)."""
    variable = agent.state.variables.get(_key(request, path))
    scale = agent.settings.lock_time_scale
    now = asyncio.get_running_loop().time()
    if variable is None or variable.lock is None:
        return
    end = variable.lock.renewed_at + 2 * variable.lock.ttl_seconds * scale
    if now >= end:
        variable.locked_until = end + variable.lock.delay_seconds * scale
        variable.lock = None
        variable.modify_index = agent.state.commit("variables")


async def _put(agent: FakeNomad, request: web.Request, path: str) -> web.StreamResponse:
    body = await read_json(request)
    operations = [name for name in _OPERATIONS if name in request.query and _knows_locks(agent)]
    if not _knows_locks(agent):
        body.pop("Lock", None)
    if len(operations) > 1:
        raise Refusal(400, "multiple lock operations")
    if operations and "cas" in request.query:
        raise Refusal(400, "CAS can't be used with lock operations")
    if operations == ["lock-renew"]:
        return _renew(agent, request, path, body)
    if operations == ["lock-release"]:
        return _release(agent, request, path, body)
    items = body.get("Items") or {}
    if not items:
        raise Refusal(400, "variable missing required Items object")
    _require(request, path, "write")
    _check(agent, request, path, items)
    if operations:
        return _acquire(agent, request, path, items, body.get("Lock") or {})
    return _plain(agent, request, path, items, body.get("Lock"))


def _knows_locks(agent: FakeNomad) -> bool:
    # not recorded; before 1.7 the query's words and the body's Lock are unknown, so ignored (nomad.md 3.6)
    major, minor = agent.settings.version.split(".")[:2]
    return (int(major), int(minor)) >= (1, 7)


def _check(agent: FakeNomad, request: web.Request, path: str, items: dict[str, str]) -> None:
    headers = write_headers(0)
    if request.query.get("namespace") == "*":
        raise Refusal(400, 'RPC Error:: 400,can not target wildcard ("*")namespace', headers)
    if not _PATH.fullmatch(path):
        raise Refusal(400, f'RPC Error:: 400,invalid path "{path}"', headers)
    if path.split("/")[0] == "nomad" and not re.match(r"nomad/(jobs|job-templates)(/|$)", path):
        raise Refusal(400, f"RPC Error:: 400,{_RESERVED}", headers)
    if sum(len(k.encode()) + len(v.encode()) for k, v in items.items()) > _LIMIT_BYTES:
        raise Refusal(400, "RPC Error:: 400,variables are limited to 64KiB in total size", headers)


def _plain(
    agent: FakeNomad, request: web.Request, path: str, items: dict[str, str], lock: Row | None
) -> web.StreamResponse:
    key = _key(request, path)
    known = agent.state.variables.get(key)
    held = known.lock if known is not None else None
    if lock and held is None:
        text = "RPC Error:: 400,RPC Error:: 400,variable should not contain lock definition"
        raise Refusal(400, text, write_headers(0))
    if held is not None and (lock or {}).get("ID") != held.id:
        return _conflict(_blank(*key), 0)
    refused = _cas(agent, request, known, key)
    if refused is not None:
        return refused
    if held is not None:
        # A plain put with the lock's id resets its times to the defaults (nomad-verified.md G).
        held.ttl_seconds = held.delay_seconds = _DEFAULT_SECONDS
        held.renewed_at = asyncio.get_running_loop().time()
    variable = _write(agent, key, items)
    return answer(variable.row(), write_headers(variable.modify_index))


def _cas(
    agent: FakeNomad, request: web.Request, known: Variable | None, key: tuple[str, str]
) -> web.StreamResponse | None:
    raw = request.query.get("cas")
    if raw is None:
        return None
    if not raw.isdigit():
        raise Refusal(400, f'can not parse cas: strconv.ParseUint: parsing "{raw}": invalid syntax')  # not recorded
    current = known.modify_index if known is not None else 0
    if int(raw) == current:
        return None
    row = known.row() if known is not None else _blank(*key)
    return _conflict(row, row["ModifyIndex"])


def _write(agent: FakeNomad, key: tuple[str, str], items: dict[str, str]) -> Variable:
    index = agent.state.commit("variables")
    known: Variable | None = agent.state.variables.get(key)
    if known is None:
        known = agent.state.variables[key] = Variable(*key, dict(items), index, index)
        known.modify_time = known.create_time
    else:
        known.items, known.modify_index, known.modify_time = dict(items), index, now_ns()
    _tell(agent, known)
    return known


def _tell(agent: FakeNomad, variable: Variable) -> None:
    # not recorded; nomad.md 3.1: Variable events since 2.0.0 carry metadata only, Type VariableUpdated
    row = event("Variable", variable.path, variable.namespace, {"Variable": variable.row(items=False)})
    agent.events.publish(variable.modify_index, "VariableUpdated", [row])


def _acquire(
    agent: FakeNomad, request: web.Request, path: str, items: dict[str, str], asked: Row
) -> web.StreamResponse:
    key = _key(request, path)
    ttl = blocking.duration_seconds(asked.get("TTL", "")) or _DEFAULT_SECONDS
    delay = blocking.duration_seconds(asked.get("LockDelay", "")) or _DEFAULT_SECONDS
    if not _SHORTEST_SECONDS <= ttl <= _LONGEST_SECONDS:
        text = multierror("TTL must be between 10 seconds and 24 hours")
        raise Refusal(400, f"RPC Error:: 400,{text}", write_headers(0))
    known: Variable | None = agent.state.variables.get(key)
    held = known.lock if known is not None else None
    now = asyncio.get_running_loop().time()
    if held is not None and asked.get("ID") != held.id:
        return _conflict(_blank(*key), None)
    if known is not None and held is None and now < known.locked_until:
        return _conflict(_blank(*key), None)  # the delay after a holder's death (nomad-verified.md A.11)
    variable = _write(agent, key, items)
    variable.lock = Lock(held.id if held else new_id(), ttl, delay, now)
    return answer(variable.row(), write_headers(variable.modify_index))


def _lock_of(agent: FakeNomad, request: web.Request, path: str, body: Row) -> tuple[Variable | None, str]:
    lock_id = (body.get("Lock") or {}).get("ID", "")
    if not lock_id:
        raise Refusal(500, multierror("missing lock ID"))
    _require(request, path, "write")
    found: Any = agent.state.variables.get(_key(request, path))
    return found, lock_id


def _renew(agent: FakeNomad, request: web.Request, path: str, body: Row) -> web.StreamResponse:
    variable, lock_id = _lock_of(agent, request, path, body)
    if variable is None:
        raise Refusal(404, "variable not found")  # not recorded; the text of get
    if variable.lock is None:
        raise Refusal(500, "variable doesn't hold a lock", write_headers(0))  # recorded for release
    if variable.lock.id != lock_id:
        raise Refusal(409, "attempting to modify locked variable")
    variable.lock.renewed_at = asyncio.get_running_loop().time()
    return answer(variable.row(items=False))


def _release(agent: FakeNomad, request: web.Request, path: str, body: Row) -> web.StreamResponse:
    variable, lock_id = _lock_of(agent, request, path, body)
    if variable is None:
        raise Refusal(404, "variable not found")  # not recorded; the text of get
    if variable.lock is None:
        raise Refusal(500, "variable doesn't hold a lock", write_headers(0))
    if variable.lock.id != lock_id:
        return _conflict(_blank(*_key(request, path)), None)
    variable.lock = None
    variable.locked_until = 0.0
    variable.modify_index = agent.state.commit("variables")
    _tell(agent, variable)
    return answer(variable.row(items=False), write_headers(variable.modify_index))


def _delete(agent: FakeNomad, request: web.Request, path: str) -> web.StreamResponse:
    _require(request, path, "destroy")
    key = _key(request, path)
    known: Variable | None = agent.state.variables.get(key)
    if known is not None and known.lock is not None:
        return _conflict(_blank(*key), 0)
    refused = _cas(agent, request, known, key)
    if refused is not None:
        return refused
    agent.state.variables.pop(key, None)
    return empty(write_headers(agent.state.commit("variables")), status=204)
