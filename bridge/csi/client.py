"""One caller for one instance: checks a request, waits for a slot, calls, and turns every failure into data.

It must not raise for anything that a plugin does; a cancelled waiter, a fence that says no and bugs come out as
exceptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from bridge.csi import failures, limits, redact
from bridge.csi.methods import Method
from bridge.csi.settings import CallSettings
from bridge.csi.trace import OK, Trace, Tracer
from bridge.model.failure import ElsewhereError, Failure
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import InstanceId
from bridge.ports.transport import Transport, TransportError

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_UNLIMITED = frozenset({"Identity"})
"""A health probe must not stand in line behind the calls whose health it tells."""


class _Slots:
    """Places for calls, and how many are taken."""

    def __init__(self, most: int) -> None:
        self.free = asyncio.Semaphore(most)
        self.in_flight = 0


def _open() -> str:
    return ""


class Client:
    """Calls on one instance, at most `concurrency` at a time. The transport below may change its connection."""

    def __init__(
        self, id: InstanceId, transport: Transport, tracer: Tracer, settings: CallSettings, *, concurrency: int
    ) -> None:
        self.id = id
        self.settings = settings
        self._transport = transport
        self._tracer = tracer
        self._slots = _Slots(concurrency)
        self._fence: Callable[[], str] = _open

    @property
    def in_flight(self) -> int:
        """Calls made and not answered yet."""
        return self._slots.in_flight

    def under(self, fence: Callable[[], str]) -> Client:
        """The same client, which asks `fence` once a call has its slot, right before the request leaves.

        A wait for a slot may last as long as a call; a lease may be lost in it.
        """
        found = copy.copy(self)
        found._fence = fence
        return found

    async def unary(self, method: Method[Q, R], request: Q) -> Outcome[R]:
        """Make one call. Every failure is a Failed, with the kind from the table."""
        refused = self._refusal(request)
        if refused is not None:
            return Failed(refused)
        deadline = self.settings.deadlines.seconds(method.verb)
        async with self._tracer.call(self.id, method.verb, request) as trace:
            try:
                async with self._slot(method, deadline):
                    raw = await self._transport.unary(
                        method.path, request.SerializeToString(), deadline_seconds=deadline
                    )
                reply = method.response.FromString(raw)
            except ElsewhereError as error:
                trace.code, trace.message = error.code, str(error)
                raise
            except TransportError as error:
                return self._failed(method, request, error, trace)
            except DecodeError as error:
                return _undecodable(method, error, trace)
            trace.code = OK
            return Done(reply)

    async def stream(self, method: Method[Q, R], request: Q) -> AsyncGenerator[Outcome[R], None]:
        """The messages of a server's stream; a Failed is the last one. The end without one is the whole stream."""
        refused = self._refusal(request)
        if refused is not None:
            yield Failed(refused)
            return
        deadline = self.settings.deadlines.seconds(method.verb)
        async with self._tracer.call(self.id, method.verb, request) as trace:
            try:
                async with self._slot(method, deadline):
                    raws = self._transport.stream(method.path, request.SerializeToString(), deadline_seconds=deadline)
                    async with contextlib.aclosing(raws):
                        async for raw in raws:
                            yield Done(method.response.FromString(raw))
            except ElsewhereError as error:
                trace.code, trace.message = error.code, str(error)
                raise
            except TransportError as error:
                yield self._failed(method, request, error, trace)
            except DecodeError as error:
                yield _undecodable(method, error, trace)
            else:
                trace.code = OK

    def _refusal(self, request: Message) -> Failure | None:
        complaint = limits.complaint(request, most_handle_bytes=self.settings.most_handle_bytes)
        return failures.invalid(complaint) if complaint else None

    @contextlib.asynccontextmanager
    async def _slot(self, method: Method[Q, R], deadline: float) -> AsyncIterator[None]:
        limited = method.service not in _UNLIMITED
        if limited:
            try:
                async with asyncio.timeout(deadline):
                    await self._slots.free.acquire()
            except TimeoutError:
                text = f"no free slot on {self.id} within {deadline:g} s: its plugin is slow or hangs"
                raise TransportError("DEADLINE_EXCEEDED", text, sent=False) from None
        self._slots.in_flight += 1
        try:
            if reason := self._fence():
                raise ElsewhereError(reason)
            yield
        finally:
            self._slots.in_flight -= 1
            if limited:
                self._slots.free.release()

    def _failed(self, method: Method[Q, R], request: Message, error: TransportError, trace: Trace) -> Failed:
        failure = failures.from_status(
            method.verb, error.code, error.message, sent=error.sent, secrets=redact.secret_values(request)
        )
        trace.code, trace.message = failure.code, failure.message
        return Failed(failure)


def _undecodable(method: Method[Q, R], error: DecodeError, trace: Trace) -> Failed:
    failure = failures.bad_response(method.verb, f"it cannot be decoded ({error})")
    trace.code, trace.message = failure.code, failure.message
    return Failed(failure)
