"""Amounts of storage as Kubernetes writes them (`10Gi`, `1500M`, `1e9`). Pure."""

from __future__ import annotations

import re
from fractions import Fraction

_FORM = re.compile(r"([+-]?[0-9]*\.?[0-9]+\.?)(?:([eE][+-]?[0-9]{1,2})|([KMGTPE]i|[numkMGTPE]))?", re.ASCII)
_DECIMAL = {"n": -3, "u": -2, "m": -1, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_LONGEST = 64


def parse_bytes(value: object) -> int:
    """Bytes, a fraction rounded up as Kubernetes does. ValueError when it is no amount.

    >>> parse_bytes("1.5Ki"), parse_bytes("2G"), parse_bytes("1e3"), parse_bytes("100m"), parse_bytes(7)
    (1536, 2000000000, 1000, 1, 7)
    """
    text = str(value)
    match = _FORM.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(f"{text[:_LONGEST]!r} is no amount of storage")
    number, exponent, unit = match.groups()
    size = Fraction(number.rstrip("."))
    if exponent:
        size *= Fraction(10) ** int(exponent[1:])
    elif unit in _BINARY:
        size *= 1024 ** _BINARY[unit]
    elif unit:
        size *= Fraction(1000) ** _DECIMAL[unit]
    return -((-size.numerator) // size.denominator)
