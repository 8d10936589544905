"""YAML text to plain values with the line of each, without YAML 1.1's surprises. It knows no key's meaning.

Refused with a remedy: keys given twice, yes/no/on/off, 012, 1:30, dates, .inf, merge keys, tags, empty values.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import yaml

from bridge.app.config_problem import ConfigError, Path, Place, Problem, dotted

_TAG = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_FRACTION = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]+)?", re.ASCII)
_MOST_NODES = 100_000
_MOST_DEPTH = 40
MOST_BYTES = 4 << 20


@dataclasses.dataclass(slots=True)
class Document:
    """The values of one file (or of several merged), and the place of every key and list item."""

    data: dict[str, Any]
    places: dict[Path, Place]

    def place(self, path: Path) -> Place:
        """The place of a path, or of its nearest parent that is written down."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place())


def parse(text: str, file: str) -> Document:
    """Read one file's text. ConfigError holds every problem found in it."""
    if len(text) > MOST_BYTES:
        raise ConfigError([Problem(Place(file), "", "is larger than 4 MiB", "split it into a directory of files")])
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1 if mark else 0)
        raise ConfigError([Problem(place, "", f"is not YAML: {error.problem or error.context}")]) from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigError([Problem(Place(file), "", "is not YAML that can be read", "write it as UTF-8")]) from None
    if root is None:
        return Document({}, {(): Place(file)})
    reading = _Reading(file)
    data = reading.value(root, ())
    if not reading.problems and not isinstance(data, dict):
        reading.refuse(root, (), "must be a mapping of sections", "begin with a line like service:")
    if reading.problems:
        raise ConfigError(reading.problems)
    return Document(data, reading.places)


class _Reading:
    """One walk over one file's nodes."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._nodes = 0
        self.places: dict[Path, Place] = {(): Place(file)}
        self.problems: list[Problem] = []

    def refuse(self, node: yaml.Node, path: Path, message: str, hint: str = "") -> None:
        """Note a problem at a node."""
        self.problems.append(Problem(self._place(node), dotted(path), message, hint))

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._file, node.start_mark.line + 1)

    def value(self, node: yaml.Node, path: Path) -> Any:
        """The plain value of a node; None after a problem, which is then noted."""
        self._nodes += 1
        if self._nodes > _MOST_NODES or len(path) > _MOST_DEPTH:
            self.refuse(node, (), "is too large or too deep", "do not nest aliases")
            raise ConfigError(self.problems)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            items = []
            for index, item in enumerate(node.value):
                self.places[(*path, index)] = self._place(item)
                items.append(self.value(item, (*path, index)))
            return items
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self.refuse(node, path, f"has the tag {_short(node.tag)}, which is not known here", "remove the tag")
        return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        first: dict[str, Place] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            place = self._place(key_node)
            if key in first:
                self.refuse(key_node, (*path, key), f"is given twice, first on line {first[key].line}", "keep one")
                continue
            first[key] = place
            self.places[(*path, key)] = place
            values[key] = self.value(value_node, (*path, key))
        return values

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}str":
            return str(node.value)
        if isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}merge":
            self.refuse(node, path, "has a merge key (<<), which is not known here", "write the keys out")
        elif isinstance(node, yaml.ScalarNode):
            hint = f'put it in quotes: "{node.value}"'
            self.refuse(node, path, f"has the key {node.value!r}, which YAML reads as a {_short(node.tag)}", hint)
        else:
            self.refuse(node, path, "has a key that is no text")
        return None

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind, text = _short(node.tag), node.value
        if kind == "str":
            return self._text(node, path)
        if kind == "bool" and text in ("true", "false"):
            return text == "true"
        if kind == "int" and _DECIMAL.fullmatch(text) and len(text) < 20:
            return int(text)
        if kind == "float" and _FRACTION.fullmatch(text):
            return float(text)
        self.refuse(node, path, *_trap(kind, text))
        return None

    def _text(self, node: yaml.ScalarNode, path: Path) -> str:
        if "\x00" in node.value:
            self.refuse(node, path, "contains a NUL character", "remove it")
        return str(node.value)


def _trap(kind: str, text: str) -> tuple[str, str]:
    """The message and remedy for a plain value that YAML 1.1 reads as something else than it looks like."""
    if kind == "null":
        return "has no value", "give one, or remove the line"
    quoted = f'write "{text}" in quotes if text is meant'
    if kind == "bool":
        return (
            f"is {text}, which YAML reads as a truth value",
            f"write true or false, or {quoted.removeprefix('write ')}",
        )
    if kind in ("int", "float") and ":" in text:
        return f"is {text}, which YAML reads as a number to the base 60", quoted
    if kind == "int" and re.fullmatch(r"[-+]?0[0-9_]+", text):
        return f"is {text}, which YAML reads as an octal number", f"write it without the leading zero, or {quoted}"
    if kind in ("int", "float"):
        return f"is {text[:40]}, which is not a plain decimal number", f"write it in plain digits, or {quoted[:80]}"
    if kind == "timestamp":
        return f"is {text}, which YAML reads as a date", quoted
    return f"has the tag {kind}, which is not known here", "remove the tag"


def _short(tag: str) -> str:
    return tag.removeprefix(_TAG)
