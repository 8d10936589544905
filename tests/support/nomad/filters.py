"""The `filter` query parameter: the part of go-bexpr that our adapter and the recordings use.

It must not accept what it cannot evaluate: such an expression is refused with Nomad's text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.support.nomad.answers import Refusal

Test = Callable[[dict[str, Any]], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<op>===?|!=|[()])|(?P<word>[A-Za-z0-9_./-]+))""", re.X
)
_EXPECTED = 'no match found, expected: "-", "0", "\\"", "`", [ \\t\\r\\n], [1-9] or [a-zA-Z]'


def compile_filter(expression: str) -> Test:
    """A test of one row. Refuses a bad expression at once and an unknown field at the first row."""
    parser = _Parser(expression)
    test = parser.disjunction()
    if parser.peek() is not None:
        raise parser.unexpected()
    return test


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None:
                raise _syntax(at)
            kind = str(match.lastgroup)
            value = match.group(kind)
            if value == "===":
                raise _syntax(match.start(kind) + 2)
            self.tokens.append((kind, value, match.start(kind)))
            at = match.end()
        self.at = 0

    def peek(self) -> str | None:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def unexpected(self) -> Refusal:
        return _syntax(self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text))

    def take(self) -> tuple[str, str]:
        if self.at >= len(self.tokens):
            raise self.unexpected()
        kind, value, _ = self.tokens[self.at]
        self.at += 1
        return kind, value

    def disjunction(self) -> Test:
        parts = [self.conjunction()]
        while self.peek() == "or":
            self.take()
            parts.append(self.conjunction())
        return lambda row: any(part(row) for part in parts)

    def conjunction(self) -> Test:
        parts = [self.term()]
        while self.peek() == "and":
            self.take()
            parts.append(self.term())
        return lambda row: all(part(row) for part in parts)

    def term(self) -> Test:
        if self.peek() == "not":
            self.take()
            inner = self.term()
            return lambda row: not inner(row)
        if self.peek() == "(":
            self.take()
            inner = self.disjunction()
            if self.take()[1] != ")":
                raise self.unexpected()
            return inner
        return self.comparison()

    def comparison(self) -> Test:
        kind, left = self.take()
        if kind == "quoted":
            return self.membership(_plain(left))
        operator = self.take()[1]
        if operator == "is":
            negated = self.peek() == "not"
            if negated:
                self.take()
            if self.take()[1] != "empty":
                raise self.unexpected()
            return lambda row: bool(_find(row, left)) is negated
        if operator not in ("==", "!=", "contains", "matches"):
            raise self.unexpected()
        value = _plain(self.take()[1])
        return _binary(left, operator, value)

    def membership(self, value: str) -> Test:
        negated = self.peek() == "not"
        if negated:
            self.take()
        if self.take()[1] != "in":
            raise self.unexpected()
        selector = self.take()[1]
        return lambda row: (value in (_find(row, selector) or ())) is not negated


def _binary(selector: str, operator: str, value: str) -> Test:
    if operator == "contains":
        return lambda row: value in (_find(row, selector) or ())
    if operator == "matches":
        return lambda row: re.search(value, str(_find(row, selector))) is not None
    return lambda row: (_text(_find(row, selector)) == value) is (operator == "==")


def _find(row: dict[str, Any], selector: str) -> Any:
    value: Any = row
    for place, part in enumerate(selector.split(".")):
        if not isinstance(value, dict) or part not in value:
            if place == 0:
                raise Refusal(
                    400,
                    f"failed to read result page: error finding value in datum: /{selector} at part 0: "
                    f'couldn\'t find key: struct field with name "{part}"',
                )
            return None
        value = value[part]
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(token: str) -> str:
    return token[1:-1].replace('\\"', '"') if token[:1] in '"`' else token


def _syntax(offset: int) -> Refusal:
    return Refusal(
        400,
        "failed to create result paginator: failed to read filter expression: "
        f"1:{offset + 1} ({offset}): {_EXPECTED}",
    )
