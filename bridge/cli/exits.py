"""Exit codes. They are an interface: documented in docs/cli.md, one test each, never given another meaning."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.ports.commands import Exit, StopError

DONE = Exit.DONE
FAILED = Exit.FAILED
USAGE = Exit.USAGE
PARTIAL = Exit.PARTIAL
NOT_FOUND = Exit.NOT_FOUND
CONFLICT = Exit.CONFLICT
DENIED = Exit.DENIED
TIMED_OUT = Exit.TIMED_OUT
LOCKED = Exit.LOCKED
INTERRUPTED = 130

_BY_STATUS = {
    400: USAGE,
    401: DENIED,
    403: DENIED,
    404: NOT_FOUND,
    409: CONFLICT,
    412: CONFLICT,
    413: USAGE,
    415: USAGE,
    422: USAGE,
    423: LOCKED,
}


class Stop(StopError):
    """Ends the command with a sentence on standard error and this exit code."""


def of_status(status: int) -> int:
    """The exit code of an HTTP status; what is not listed is a failure."""
    return _BY_STATUS.get(status, FAILED)


def of_many(codes: Sequence[int]) -> int:
    """The exit code of several parts: partial when some are done and some are not."""
    failed = [code for code in codes if code != DONE]
    if not failed:
        return DONE
    if len(failed) < len(codes):
        return PARTIAL
    return failed[0] if len(set(failed)) == 1 else FAILED
