"""Ages, sizes, durations and texts as people read and write them. Pure; unknown is said, never guessed."""

from __future__ import annotations

import datetime
import re
from typing import Any

UNKNOWN = "unknown"
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,18})(?:([KMGTPE])(i)?)?B?\Z", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def instant(text: str | None) -> datetime.datetime | None:
    """An RFC 3339 time of the API; None when it is unknown."""
    if not text:
        return None
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        return None


def age(text: str | None, now: datetime.datetime) -> str:
    """How long ago, the way kubectl says it.

    >>> age("2026-01-01T00:00:00Z", datetime.datetime(2026, 1, 1, 3, 12, tzinfo=datetime.UTC))
    '3h12m'
    """
    since = instant(text)
    if since is None:
        return UNKNOWN
    return span(max((now - since).total_seconds(), 0.0))


def span(seconds: float) -> str:
    """A length of time, shorter as it grows.

    >>> [span(value) for value in (5, 119, 330, 7200, 90000, 691200)]
    ['5s', '119s', '5m30s', '120m', '25h', '8d']
    """
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return _two(days // 365, "y", days % 365, "d") if days < 2920 else f"{days // 365}y"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


def size(value: int | None) -> str:
    """Bytes with a binary unit.

    >>> [size(value) for value in (None, 0, 1023, 1 << 30, 1610612736)]
    ['unknown', '0', '1023', '1Gi', '1.5Gi']
    """
    if value is None:
        return UNKNOWN
    amount, unit = float(value), ""
    for unit in ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"):
        if amount < 1024 or unit == "Ei":
            break
        amount /= 1024
    return f"{amount:.1f}".removesuffix(".0") + unit


def parse_size(text: str) -> int:
    """Bytes of `10Gi`, `10GiB`, `500M` or a plain number. ValueError for anything else.

    >>> parse_size("10Gi"), parse_size("1k")
    (10737418240, 1000)
    """
    match = _SIZE.match(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: want for example 10Gi, 500M or a number of bytes")
    power = "KMGTPE".index(match[2].upper()) + 1 if match[2] else 0
    return int(match[1]) * int((1024 if match[3] else 1000) ** power)


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `10m`, `1h30m`; a plain number is seconds. ValueError for anything else.

    >>> parse_duration("1m30s")
    90.0
    """
    position, total = 0, 0.0
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    for match in _DURATION.finditer(text):
        if match.start() != position:
            break
        total += float(match[1]) * _UNIT_SECONDS[match[2]]
        position = match.end()
    if not text or position != len(text):
        raise ValueError(f"{text!r} is not a duration: want for example 90s, 10m or 1h30m")
    return total


def printable(value: Any) -> str:
    """Text of others, fit for a terminal: no control characters, on one line. A truth is `true` or `false`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _CONTROL.sub(" ", str(value))
