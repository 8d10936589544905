"""Logs: one JSON object per line, or readable text on a terminal. Fields, not sentences, carry the facts.

A message is constant; what it is about stands in fields: orchestrator, key, driver, action, attempt, pass …
Nothing that looks like a secret leaves here. Modules log through the standard library and know nothing of this.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Literal, TextIO

import orjson

Format = Literal["auto", "json", "text"]
STRIPPED = "***stripped***"

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:secrets?|tokens?|passwords?|passphrase|authorization|credentials?|private_key)$"
)
_SECRET_TEXT = re.compile(
    r"(?P<bearer>\bbearer\s+)[^\s'\",]+"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?P<user>://[^/\s:@]*:)[^/\s@]+(?=@)",
    re.IGNORECASE | re.DOTALL,
)
_LONGEST_TEXT = 8000

_bound: contextvars.ContextVar[Mapping[str, object]] = contextvars.ContextVar("log_fields")


@contextlib.contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add these fields to every line of this task until the block ends."""
    token = _bound.set({**_bound.get({}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def set_up(level: str = "info", format: Format = "auto", *, stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (standard error). "auto" is text on a terminal, JSON elsewhere.

    ValueError for a level that does not exist. Calling it again replaces the earlier set-up.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no log level {level!r}: want debug, info, warning or error")
    stream = stream or sys.stderr
    as_text = format == "text" or (format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    logging.captureWarnings(True)


def strip(text: str) -> str:
    """The text without what looks like a credential, and without excess length.

    >>> strip("Authorization: Bearer abc.def")
    'Authorization: Bearer ***stripped***'
    """
    if len(text) > _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT] + "…"
    return _SECRET_TEXT.sub(_stripped, text)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The record's own fields and the bound ones, secrets stripped."""
    found = dict(_bound.get({}))
    found.update((name, value) for name, value in vars(record).items() if name not in _PLAIN)
    return {name: _shown(name, value) for name, value in found.items()}


class JsonFormatter(logging.Formatter):
    """One object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": _instant(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": strip(record.getMessage()),
        }
        for name, value in fields_of(record).items():
            line[f"{name}_" if name in line else name] = value
        if record.exc_info:
            line["error"] = strip(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class TextFormatter(logging.Formatter):
    """For people at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it."""
        fields = " ".join(f"{name}={_word(value)}" for name, value in fields_of(record).items())
        clock = _instant(record.created)[11:23]
        text = f"{clock} {record.levelname:<7} {_safe(strip(record.getMessage()))}"
        if fields:
            text = f"{text}  {fields}"
        if record.exc_info:
            text = f"{text}\n{strip(self.formatException(record.exc_info))}"
        return text


def _instant(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _shown(name: str, value: object) -> object:
    if value and _SECRET_NAME.search(name.lower()):
        return STRIPPED
    if isinstance(value, str):
        return strip(value)
    if isinstance(value, Mapping):
        return {str(key): _shown(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown("", item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return strip(str(value))


def _word(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return _safe(text if text and not re.search(r"[\s\"=]", text) else orjson.dumps(text).decode())


def _safe(text: str) -> str:
    """Without characters that would move a terminal's cursor or begin a line of their own."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _stripped(match: re.Match[str]) -> str:
    return (match["bearer"] or match["user"] or "") + STRIPPED
