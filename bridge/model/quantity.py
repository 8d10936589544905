"""Durations and sizes as people write them: `10s`, `1h30m`, `10GiB`. A bare number is refused: it has no unit."""

from __future__ import annotations

import re
from fractions import Fraction

DURATION_PATTERN = r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+"
SIZE_PATTERN = r"[0-9]+(?:\.[0-9]+)?(?:B|[kMGTP]B|[KMGTP]iB?)"

_SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600), "d": Fraction(86_400)}
_ORDER = ("d", "h", "m", "s", "ms")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", re.ASCII)
_DURATION = re.compile(DURATION_PATTERN, re.ASCII)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(B|[kMGTP]B|[KMGTP]iB?)", re.ASCII)
_MOST_CHARACTERS = 40
_MOST_DURATION_SECONDS = 3660 * 86_400
_MOST_BYTES = 2**63 - 1


def parse_duration(text: str) -> float:
    """Seconds. ValueError says what is wanted. Units: ms, s, m, h, d, each once and the greatest first.

    >>> parse_duration("1h30m")
    5400.0
    >>> parse_duration("250ms")
    0.25
    """
    if len(text) > _MOST_CHARACTERS or not _DURATION.fullmatch(text):
        raise ValueError(
            f"{text[:_MOST_CHARACTERS]!r} is no duration: write a number and a unit, like 10s, 5m, 1h30m"
        )
    parts = _PART.findall(text)
    places = [_ORDER.index(unit) for _, unit in parts]
    if places != sorted(set(places)):
        raise ValueError(f"{text!r} is no duration: write each unit once, the greatest first, like 1h30m")
    seconds = sum((Fraction(number) * _SECONDS[unit] for number, unit in parts), Fraction(0))
    if seconds > _MOST_DURATION_SECONDS:
        raise ValueError(f"{text!r} is longer than ten years")
    return float(seconds)


def parse_size(text: str) -> int:
    """Bytes. ValueError says what is wanted. Units: B, kB to PB (powers of 1000), KiB to PiB or Ki to Pi (of 1024).

    >>> parse_size("1.5KiB")
    1536
    >>> parse_size("10Gi") == parse_size("10GiB")
    True
    """
    match = _SIZE.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if match is None:
        raise ValueError(
            f"{text[:_MOST_CHARACTERS]!r} is no size: write a number and a unit, like 512MiB, 10GiB, 1TB"
        )
    number, unit = match.groups()
    step = 1024 if "i" in unit else 1000
    power = 0 if unit == "B" else "KMGTP".index(unit[0].upper()) + 1
    size = Fraction(number) * step**power
    if size.denominator != 1:
        raise ValueError(f"{text!r} is no whole number of bytes")
    if size > _MOST_BYTES:
        raise ValueError(f"{text!r} is more than any volume can hold")
    return int(size)
