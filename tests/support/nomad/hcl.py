"""A small HCL reader: blocks, attributes, strings, numbers, booleans, lists and maps.

Enough for ACL policies and for the job files of our samples; no functions, no interpolation, no heredocs in lists.
It must not guess: what it cannot read is refused with the place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"""
      (?P<skip>(?:\s+|\#[^\n]*|//[^\n]*|/\*.*?\*/)+)
    | (?P<heredoc><<-?(?P<mark>[A-Za-z_]+)\n(?P<text>.*?)\n[ \t]*(?P=mark)(?=\n|$))
    | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<number>-?\d+(?:\.\d+)?)
    | (?P<word>[A-Za-z_][A-Za-z0-9_.-]*)
    | (?P<sign>[{}\[\]=,:])
    """,
    re.X | re.S,
)
_UNCLOSED = (
    "Unclosed configuration block; There is no closing brace for this block before the end of the file. "
    "This may be caused by incorrect brace nesting elsewhere in this file."
)
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


class HclError(Exception):
    """Text that cannot be read; the message has the form of Nomad's parser."""


@dataclass(slots=True)
class Block:
    """One block: `type "label" { attributes and blocks }`."""

    type: str = ""
    labels: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)

    def of_type(self, name: str) -> list[Block]:
        return [block for block in self.blocks if block.type == name]

    def one(self, name: str) -> Block | None:
        return next(iter(self.of_type(name)), None)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    value: Any
    at: int


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[_Token] = []
        self.at = 0
        place = 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise HclError(
                    f"{self.where(place)}: Invalid character; This character is not used within the language."
                )
            kind = next(
                k for k in ("skip", "heredoc", "string", "number", "word", "sign") if match.group(k) is not None
            )
            if kind != "skip":
                self.tokens.append(_Token(kind, _value(kind, match), place))
            place = match.end()

    def where(self, offset: int) -> str:
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        return f"input.hcl:{line},{column}-{column + 1}"

    def peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> _Token:
        token = self.peek()
        if token is None:
            raise HclError(f"{self.where(len(self.text))}: Unexpected end of file")
        self.at += 1
        return token

    def body(self, block: Block, opened: int | None) -> Block:
        while True:
            token = self.peek()
            if token is None:
                if opened is None:
                    return block
                raise HclError(f"{self.where(opened)}: {_UNCLOSED}")
            self.at += 1
            if token.value == "}" and token.kind == "sign":
                return block
            if token.kind not in ("word", "string"):
                raise HclError(f"{self.where(token.at)}: Argument or block definition required")
            self.member(block, str(token.value))

    def member(self, block: Block, name: str) -> None:
        labels: list[str] = []
        while (token := self.take()).kind in ("string", "word"):
            labels.append(str(token.value))
        if token.value == "{":
            block.blocks.append(self.body(Block(name, labels), token.at))
        elif token.value == "=" and not labels:
            block.attributes[name] = self.value()
        else:
            raise HclError(f"{self.where(token.at)}: Invalid block definition")

    def value(self) -> Any:
        token = self.take()
        if token.kind in ("string", "number", "heredoc"):
            return token.value
        if token.kind == "word":
            return {"true": True, "false": False, "null": None}.get(token.value, token.value)
        if token.value == "[":
            return self.sequence("]", self.value)
        if token.value == "{":
            return dict(self.sequence("}", self.pair))
        raise HclError(f"{self.where(token.at)}: Invalid expression")

    def sequence(self, end: str, item: Any) -> list[Any]:
        items: list[Any] = []
        while (token := self.peek()) is not None and not (token.kind == "sign" and token.value == end):
            items.append(item())
            following = self.peek()
            if following is not None and following.kind == "sign" and following.value == ",":
                self.at += 1
        self.take()
        return items

    def pair(self) -> tuple[str, Any]:
        key = str(self.take().value)
        if self.take().value not in ("=", ":"):
            raise HclError("input.hcl: Missing attribute value in a map")
        return key, self.value()


def _value(kind: str, match: re.Match[str]) -> Any:
    if kind == "heredoc":
        return match.group("text") + "\n"
    raw = match.group(kind)
    if kind == "string":
        return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m.group(1), m.group(0)), raw[1:-1])
    if kind == "number":
        return float(raw) if "." in raw else int(raw)
    return raw


def parse(text: str) -> Block:
    """The whole file as one block. Raises HclError."""
    return _Reader(text).body(Block(), None)
