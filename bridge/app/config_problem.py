"""What is wrong with a configuration, where, and what to write instead. Shows keys and places, no secrets."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence

from bridge.model.failure import InvalidError

Path = tuple[str | int, ...]
"""Where a value is in the document: keys and list places."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a file, counted from 1. Line 0 means the file as a whole."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `field` is dotted, like `clusters[0].name`."""

    place: Place
    field: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        parts = [part for part in (str(self.place), self.field, self.message) if part]
        return ": ".join(parts) + (f" ({self.hint})" if self.hint else "")


class ConfigError(InvalidError):
    """The configuration is not valid. Holds every problem that was found, not just the first."""

    code = "INVALID_CONFIG"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)), field=self.problems[0].field)


def dotted(path: Path) -> str:
    """A path as people write it.

    >>> dotted(("clusters", 0, "tls", "ca_file"))
    'clusters[0].tls.ca_file'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names what was probably meant, or else what there is.

    >>> nearest("adress", ["address", "region"])
    'did you mean address?'
    """
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(words)}" if words else ""
