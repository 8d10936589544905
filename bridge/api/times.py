"""Times and durations on the wire: RFC 3339 UTC, and `60s`. Unknown is null, never 1970."""

from __future__ import annotations

import datetime
import re

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def from_seconds(seconds: float) -> str | None:
    """An instant in seconds since the epoch, to the millisecond; None for zero and for what no calendar has.

    >>> from_seconds(1700000000.25)
    '2023-11-14T22:13:20.250Z'
    >>> from_seconds(0.0) is None
    True
    """
    return from_ns(round(seconds * 1000) * 1_000_000)


def from_ns(nanoseconds: int | None) -> str | None:
    """An instant in nanoseconds since the epoch, as exact as it is.

    >>> from_ns(1700000000_123456789)
    '2023-11-14T22:13:20.123456789Z'
    """
    if nanoseconds is None or nanoseconds <= 0:
        return None
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        instant = _EPOCH + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return None
    text = instant.strftime("%Y-%m-%dT%H:%M:%S")
    if rest == 0:
        return f"{text}Z"
    fraction = f"{rest:09d}"
    return f"{text}.{fraction[:3] if fraction.endswith('000000') else fraction}Z"


def parse_duration(text: str) -> float:
    """Seconds of `60s`, `1m30s`, `500ms`. ValueError for anything else.

    >>> parse_duration("1m30s")
    90.0
    """
    position, total = 0, 0.0
    for match in _DURATION.finditer(text):
        if match.start() != position:
            break
        total += float(match[1]) * _UNIT_SECONDS[match[2]]
        position = match.end()
    if not text or position != len(text):
        raise ValueError("not a duration: want for example 60s, 5m or 1m30s")
    return total
