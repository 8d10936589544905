"""The trace of a call: the only way to make one. Tells listeners what was called, on what, how it ended.

It must not change a call's outcome, and a listener that fails must not either. No secret passes through here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from types import TracebackType

from google.protobuf.message import Message

from bridge.csi import redact
from bridge.model.plugin import InstanceId

log = logging.getLogger(__name__)

OK = "OK"


@dataclasses.dataclass(frozen=True, slots=True)
class CallEnded:
    """One finished call. `code` is OK or a failure's code, `seconds` the time it took with its wait for a slot."""

    method: str
    driver: str
    role: str
    instance: str
    code: str
    seconds: float


Listener = Callable[[CallEnded], None]


class Tracer:
    """Where finished calls are told. Listeners are called on the loop and must return at once."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def listen(self, listener: Listener) -> None:
        """Add a listener, a metrics recorder for example."""
        self._listeners.append(listener)

    def call(self, instance: InstanceId, method: str, request: Message) -> Trace:
        """The trace of one call, to be entered around it."""
        return Trace(self, instance, method, request)

    def tell(self, ended: CallEnded) -> None:
        """Hand a finished call to all listeners."""
        for listener in self._listeners:
            try:
                listener(ended)
            except Exception:
                log.exception("a listener for CSI calls failed", extra={"method": ended.method})


class Trace:
    """`async with tracer.call(...) as trace:`; set `code` (and `message`) before the end."""

    __slots__ = ("_begun", "_instance", "_method", "_request", "_tracer", "code", "message")

    def __init__(self, tracer: Tracer, instance: InstanceId, method: str, request: Message) -> None:
        self._tracer = tracer
        self._instance = instance
        self._method = method
        self._request = request
        self._begun = 0.0
        self.code = ""
        self.message = ""

    async def __aenter__(self) -> Trace:
        self._begun = time.perf_counter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._begun
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.code = "CANCELLED"
        elif error is not None:
            self.code = self.code or "BUG"
        id = self._instance
        self._log(seconds)
        self._tracer.tell(CallEnded(self._method, id.driver, id.role, id.instance, self.code or OK, seconds))

    def _log(self, seconds: float) -> None:
        level = logging.DEBUG if self.code in ("", OK) or self._method == "Probe" else logging.INFO
        if not log.isEnabledFor(level):
            return
        fields: dict[str, object] = {
            "method": self._method,
            "driver": self._instance.driver,
            "role": self._instance.role,
            "instance": self._instance.instance,
            "code": self.code or OK,
            "seconds": round(seconds, 6),
            "detail": self.message,
            "request": redact.shown(self._request),
        }
        log.log(level, "CSI call", extra=fields)
