"""/v1/operations: what is under way and how it ended, with blocking queries."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from bridge.api import asks, documents, render, times
from bridge.api.endpoint import Answer, Call, Endpoints
from bridge.api.problems import Problem
from bridge.model.operation import Operation, OperationState

routes = Endpoints("operations")


class Waiters:
    """Blocking queries under way: counted, and sent home when the service stops."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.stopping = asyncio.Event()


WAITERS = web.AppKey("waiters", Waiters)


@routes.add("GET", "/v1/operations", answer=documents.OperationListDocument, query=asks.OperationsQuery)
async def list_operations(call: Call[asks.OperationsQuery, None]) -> Answer:
    """List operations, newest first."""
    found = await call.desk.operations(call.caller, running=call.query.running, limit=call.query.per_page)
    return Answer(documents.OperationListDocument(items=[render.operation(item) for item in found]))


@routes.add(
    "GET",
    "/v1/operations/{ref}",
    answer=documents.OperationDocument,
    query=asks.WaitQuery,
    problems=(404,),
    slow=True,
)
async def read_operation(call: Call[asks.WaitQuery, None]) -> Answer:
    """Read one operation; with `wait` and `index`, only when it has changed or the time is up."""
    limit = call.settings.request_seconds
    async with asyncio.timeout(limit):
        found = await call.desk.operation(call.caller, call.ref)
    seconds = min(times.parse_duration(call.query.wait), call.settings.wait_limit_seconds)
    unchanged = call.query.index == found.version and found.state is OperationState.RUNNING
    if seconds > 0 and unchanged:
        found = await _changed(call, found, seconds)
    return Answer(render.operation(found))


@routes.add(
    "POST",
    "/v1/operations/{ref}/acknowledge",
    answer=documents.OperationDocument,
    body=asks.AcknowledgeBody,
    status=202,
    problems=(404, 409),
)
async def acknowledge(call: Call[asks.NoQuery, asks.AcknowledgeBody]) -> Answer:
    """Say that a revert is good: its old volume needs no keeping any more; with `delete` it is deleted."""
    operation = await call.desk.acknowledge(call.caller, call.ref, delete=call.body.delete)
    return Answer(render.operation(operation), render.location(operation))


async def ended(call: Call[Any, Any], found: Operation, seconds: float) -> Operation:
    """The operation once it is done. Problem: 424 when it has failed, 504 when the time is up, 429 for too many."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while found.state is OperationState.RUNNING and loop.time() < deadline:
        if call.request.app[WAITERS].stopping.is_set():
            break
        found = await _changed(call, found, deadline - loop.time())
    if found.state is OperationState.DONE:
        return found
    if found.state is OperationState.RUNNING:
        message = f"operation {found.id} is not done yet"
        raise Problem(504, message, code="NOT_YET", hint="ask again with the same Idempotency-Key")
    why = found.failure
    detail = why.message if why is not None else "it failed"
    raise Problem(424, detail, code=why.code if why is not None else "", hint=why.hint if why is not None else "")


@routes.add("POST", "/v1/operations/{ref}/abandon", answer=documents.OperationDocument, problems=(404, 409))
async def abandon_operation(call: Call[asks.NoQuery, None]) -> Answer:
    """Have a restore or clone end. What it made is deleted; what it may have made is named, and put on record."""
    return Answer(render.operation(await call.desk.abandon_operation(call.caller, call.ref)))


async def _changed(call: Call[Any, Any], found: Operation, seconds: float) -> Operation:
    waiters = call.request.app[WAITERS]
    if waiters.count >= waiters.limit:
        raise Problem(429, "too many callers wait for operations", hint="ask again after the time in Retry-After")
    waiters.count += 1
    waiting = asyncio.create_task(
        call.desk.wait_operation(call.caller, found.id, version=found.version, timeout_seconds=seconds),
        name=f"wait {found.id}",
    )
    stopping = asyncio.create_task(waiters.stopping.wait(), name="wait for the stop")
    try:
        limit = seconds + call.settings.request_seconds
        done, _ = await asyncio.wait({waiting, stopping}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting in done else found
    finally:
        waiters.count -= 1
        for task in (waiting, stopping):
            task.cancel()
        await asyncio.gather(waiting, stopping, return_exceptions=True)
