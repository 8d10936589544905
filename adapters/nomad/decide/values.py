"""The text of one setting -> its value, or a sentence that names the key and says what to write. Pure."""

from __future__ import annotations

import json
import re

from bridge.model.snapshot import DeletionPolicy

_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no", "")
_POLICIES = {policy.value.lower(): policy for policy in DeletionPolicy}
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
LONGEST_WAIT_SECONDS = 3600.0


class NotUnderstoodError(ValueError):
    """The text is not a value of this key; the message says what is."""


def names(text: str) -> tuple[str, ...]:
    """Words between commas or blanks, each once."""
    return tuple(dict.fromkeys(name for name in re.split(r"[,\s]+", text) if name))


def flag(text: str) -> bool:
    """`true` or `false`."""
    value = text.strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise NotUnderstoodError('it is "true" or "false"')


def deletion_policy(text: str) -> DeletionPolicy:
    """`Delete` (also when empty) or `Retain`."""
    value = text.strip().lower()
    if not value:
        return DeletionPolicy.DELETE
    if value not in _POLICIES:
        raise NotUnderstoodError("it is Delete or Retain")
    return _POLICIES[value]


def seconds(text: str) -> float:
    """A number of seconds, 0 for not at all."""
    try:
        value = float(text.strip().removesuffix("s"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= LONGEST_WAIT_SECONDS:
        raise NotUnderstoodError(f"it is a number of seconds from 0 to {LONGEST_WAIT_SECONDS:.0f}")
    return value


def name(text: str) -> str:
    """A name of letters, digits, dots, dashes and underscores; empty when none is given."""
    value = text.strip()
    if value and _NAME.fullmatch(value) is None:
        raise NotUnderstoodError("it is a name of letters, digits, '.', '-' and '_', at most 63")
    return value


def parameters(text: str) -> dict[str, str]:
    """`k=v,k2=v2`, or a JSON object of strings for values with commas."""
    text = text.strip()
    if not text:
        return {}
    if text.startswith("{"):
        return _json(text)
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if any(not sign or not key.strip() for key, sign, _ in pairs):
        raise NotUnderstoodError("write key=value,key=value or a JSON object")
    keys = [key.strip() for key, _, _ in pairs]
    if len(set(keys)) != len(keys):
        raise NotUnderstoodError("it gives a key twice")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _json(text: str) -> dict[str, str]:
    try:
        read = json.loads(text, object_pairs_hook=_each_once)
    except NotUnderstoodError:
        raise
    except ValueError:
        raise NotUnderstoodError("it begins like JSON and is none") from None
    if not isinstance(read, dict) or not all(isinstance(value, str) for value in read.values()):
        raise NotUnderstoodError("it is no JSON object of strings")
    return read


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotUnderstoodError("it gives a key twice")
    return found
