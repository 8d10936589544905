"""Command lines in Go's notation, by upstream's flag names: `--name value`, `--name=value`, `-name`, `-v=5`.

As Go's flag package reads them: one or two dashes, a truth value needs `=`, `--` ends the flags. Unlike it, an
unknown flag is refused with the nearest name, and so is a word that belongs to no flag.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
from collections.abc import Mapping, Sequence

from bridge.model.failure import InvalidError

Value = str | bool | int | float | tuple[str, ...]


class Kind(enum.Enum):
    """What a flag's value is."""

    TEXT = "string"
    TRUTH = "bool"
    WHOLE = "int"
    NUMBER = "float"
    DURATION = "duration"
    """Seconds, from Go's notation (1m30s)."""
    TEXTS = "strings"
    """May be given several times; commas separate too."""


@dataclasses.dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `meaning` is its line of the help text."""

    name: str
    kind: Kind
    default: Value
    meaning: str
    hidden: bool = False
    """Taken so that old manifests work, and without effect."""


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """The values of all flags, and which of them the command line names."""

    values: Mapping[str, Value]
    named: frozenset[str]

    def text(self, name: str) -> str:
        """A TEXT flag's value."""
        return str(self.values[name])

    def truth(self, name: str) -> bool:
        """A TRUTH flag's value."""
        return bool(self.values[name])

    def whole(self, name: str) -> int:
        """A WHOLE flag's value."""
        value = self.values[name]
        assert isinstance(value, int)
        return value

    def number(self, name: str) -> float:
        """A NUMBER flag's value, or a DURATION's in seconds."""
        value = self.values[name]
        assert isinstance(value, int | float)
        return float(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A TEXTS flag's values."""
        value = self.values[name]
        assert isinstance(value, tuple)
        return value


def parse(flags: Sequence[Flag], arguments: Sequence[str]) -> Given:
    """Read a command line. InvalidError names the flag and the remedy."""
    known = {flag.name: flag for flag in flags}
    values: dict[str, Value] = {flag.name: flag.default for flag in flags}
    named: set[str] = set()
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--" and not words:
            break
        if not word.startswith("-") or word in ("-", "--"):
            raise InvalidError(
                f"the word {word!r} belongs to no flag", hint="Flags begin with --; truth values need ="
            )
        name, equals, text = word.lstrip("-").partition("=")
        flag = known.get(name) or known.get(name.replace("_", "-"))
        if flag is None:
            raise InvalidError("there is no such flag", field=f"--{name}", hint=_nearest(name, known))
        if not equals and flag.kind is not Kind.TRUTH:
            if not words:
                raise InvalidError("the flag needs a value", field=f"--{name}", hint=f"Write --{name}=VALUE")
            text = words.pop(0)
        value = _value(flag, text if equals or flag.kind is not Kind.TRUTH else "true")
        before = values[flag.name]
        if flag.kind is Kind.TEXTS and flag.name in named and isinstance(before, tuple) and isinstance(value, tuple):
            value = before + value
        values[flag.name] = value
        named.add(flag.name)
    return Given(values, frozenset(named))


def help_text(program: str, summary: str, flags: Sequence[Flag]) -> str:
    """All flags with their defaults, one line each."""
    lines = [f"Usage: {program} [FLAG]...", "", summary, "", "Flags:"]
    shown = sorted((flag for flag in flags if not flag.hidden), key=lambda flag: flag.name)
    width = max((len(flag.name) for flag in shown), default=0)
    for flag in shown:
        lines.append(f"  --{flag.name:<{width}}  {flag.meaning}{_default(flag)}")
    quiet = sorted(flag.name for flag in flags if flag.hidden)
    if quiet:
        lines += ["", "Taken, without effect: " + ", ".join(f"--{name}" for name in quiet)]
    return "\n".join(lines)


_UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|ms|s|m|h)")


def duration_seconds(text: str) -> float:
    """Seconds of a duration in Go's notation. ValueError when it is none.

    >>> duration_seconds("1m30s"), duration_seconds("100ms"), duration_seconds("0")
    (90.0, 0.1, 0.0)
    """
    if text == "0":
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.removeprefix("+"):
        raise ValueError(f"{text!r} is no duration")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


_TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


def _value(flag: Flag, text: str) -> Value:
    try:
        match flag.kind:
            case Kind.TEXT:
                return text
            case Kind.TEXTS:
                return tuple(part for part in text.split(",") if part)
            case Kind.TRUTH:
                return _TRUTHS[text]
            case Kind.WHOLE:
                return int(text)
            case Kind.NUMBER:
                return float(text)
            case Kind.DURATION:
                return duration_seconds(text)
    except (KeyError, ValueError):
        wanted = {
            Kind.TRUTH: "true or false",
            Kind.WHOLE: "a whole number",
            Kind.NUMBER: "a number",
            Kind.DURATION: "a duration such as 15s or 1m30s",
        }.get(flag.kind, "a text")
        raise InvalidError(f"{text!r} is no valid value", field=f"--{flag.name}", hint=f"Give {wanted}") from None


def _nearest(name: str, known: Mapping[str, Flag]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean --{near[0]}?" if near else "See --help"


def _default(flag: Flag) -> str:
    if flag.default in ("", 0, False, ()):
        return ""
    if flag.kind is Kind.DURATION and isinstance(flag.default, float | int):
        return f" (default {flag.default:g}s)"
    return f" (default {str(flag.default).lower() if isinstance(flag.default, bool) else flag.default})"
