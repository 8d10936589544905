"""Calls from a task to the service: a service that is away is waited for, a token that has run out is read again.

Both have a bound. It repeats reads, and creates that carry an idempotency key; nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from bridge.ports.commands import Call, Exit, Json, Query, RefusedError, Service, StopError, UnreachedError

R = TypeVar("R")

FIRST_SECONDS = 0.5
MOST_SECONDS = 5.0
AWAY = (429, 503)


class Patient:
    """One task's way to the service. `reach_seconds`: for how long it may be away at a time."""

    def __init__(self, call: Call, connect: Callable[[], Service], reach_seconds: float) -> None:
        self._call = call
        self._connect = connect
        self._reach_seconds = reach_seconds
        self._service = connect()

    def get(self, path: str, query: Query | None = None, *, timeout: float = 40.0) -> Json:
        """Read."""
        return self._patiently(lambda service: service.get(path, query, timeout=timeout))

    def post(self, path: str, body: Json, *, key: str) -> Json:
        """Create, once for each key."""
        return self._patiently(lambda service: service.post(path, body, key=key))

    def _patiently(self, ask: Callable[[Service], R]) -> R:
        deadline = time.monotonic() + self._reach_seconds
        pause, renewed, told = FIRST_SECONDS, False, ""
        while True:
            try:
                return ask(self._service)
            except UnreachedError as error:
                told = self._tell(told, error.sentence)
                if time.monotonic() + pause > deadline:
                    hint = error.hint or "look whether the service runs; SNAPBRIDGE_ADDR names its address"
                    raise StopError(f"{error.sentence}; gave up after {self._reach_seconds:g} s", hint=hint) from None
            except RefusedError as error:
                if error.status in (401, 403) and not renewed:
                    renewed = True
                    self._service.close()
                    self._service = self._connect()
                    continue
                if error.status not in AWAY or time.monotonic() + pause > deadline:
                    raise refused(error) from None
                told = self._tell(told, str(error))
            time.sleep(pause)
            pause = min(pause * 2, MOST_SECONDS)

    def _tell(self, told: str, sentence: str) -> str:
        if sentence != told:
            self._call.terminal.note(f"waiting: {sentence}")
        return sentence


def refused(error: RefusedError) -> StopError:
    """The service's refusal as the end of a hook, in its own words."""
    codes = {400: Exit.USAGE, 422: Exit.USAGE, 401: Exit.DENIED, 403: Exit.DENIED, 404: Exit.NOT_FOUND}
    codes |= {409: Exit.CONFLICT, 412: Exit.CONFLICT, 423: Exit.LOCKED}
    detail = str(error.document.get("detail") or f"the service answered {error.status}")
    return StopError(detail, hint=str(error.document.get("hint") or ""), code=codes.get(error.status, Exit.FAILED))
