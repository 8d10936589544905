"""Waiting for operations: blocking queries, patience when the service restarts, and Ctrl-C that stops only us."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bridge.cli import exits, progress, refs
from bridge.cli.faults import LostError, ProblemError

if TYPE_CHECKING:
    from bridge.ports.commands import Service

Json = dict[str, Any]

QUERY_SECONDS = 30.0
CUT_QUERY_SECONDS = 1.0
PAUSE_SECONDS = 1.0
DEFAULT_SECONDS = 600.0
CUT, READY = "cut", "ready"


class Unfinished(exits.Stop):
    """The waiting ended, the operation did not."""

    def __init__(self, message: str, operation: Json, code: int) -> None:
        super().__init__(message, hint=f"the operation goes on: snapbridge op watch {operation['id']}", code=code)
        self.operation = operation


def follow(
    client: Service,
    operation: Json,
    *,
    seconds: float,
    shown: progress.Progress,
    enough: Callable[[Json], bool] | None = None,
) -> Json:
    """The operation once it has ended, or once `enough` says so.

    Unfinished with code 7 when the time is up, with 130 on Ctrl-C.
    """
    deadline = time.monotonic() + seconds
    try:
        while True:
            shown.show(operation)
            if operation["state"] != "running" or (enough is not None and enough(operation)):
                return operation
            left = deadline - time.monotonic()
            if left <= 0:
                what = operation["steps"][-1]["name"] if operation["steps"] else "at the beginning"
                raise Unfinished(f"not done after {seconds:g} s, still {what}", operation, exits.TIMED_OUT)
            operation = _next(client, operation, min(left, QUERY_SECONDS if enough is None else CUT_QUERY_SECONDS))
    except KeyboardInterrupt:
        raise Unfinished("stopped waiting", operation, exits.INTERRUPTED) from None
    finally:
        shown.end()


def _next(client: Service, operation: Json, seconds: float) -> Json:
    """The operation after a change or so many seconds; a service that restarts is waited for."""
    query = {"wait": f"{max(int(seconds * 1000), 1)}ms", "index": operation["version"]}
    try:
        return client.get(refs.operation_path(operation["id"]), query, timeout=seconds + 15)
    except LostError:
        time.sleep(min(seconds, PAUSE_SECONDS))
    except ProblemError as error:
        if error.status not in (429, 503):
            raise
        time.sleep(min(seconds, PAUSE_SECONDS))
    return operation


def is_cut(client: Service, uid: str) -> Callable[[Json], bool]:
    """Whether the copy is made: the source may be written to again, whatever the backend still does."""

    def enough(operation: Json) -> bool:
        if any(step["name"] in ("processing", "ready") for step in operation["steps"]):
            return True
        try:
            snapshot = client.get(refs.path(uid))
        except (LostError, ProblemError):
            return False
        return bool(snapshot["ready"] or snapshot["cutAt"] or snapshot["handle"])

    return enough


def check(operation: Json) -> None:
    """Stop when the operation has failed. A repeated request may be answered with one that failed long ago."""
    if operation["state"] == "failed":
        raise failed(operation)


def failed(operation: Json) -> exits.Stop:
    """The end of the command that a failed operation means."""
    failure = operation["failure"] or {}
    message = failure.get("message") or "it failed"
    code = f" ({failure['code']})" if failure.get("code") else ""
    return exits.Stop(f"{operation['verb']} failed: {message}{code}", hint=failure.get("hint", ""))
