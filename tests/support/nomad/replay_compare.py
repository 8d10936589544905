"""Comparing a recorded answer with the fake's: ids by a bijection, times and indexes by kind, all else exactly.

It must not forgive: a missing or an added key, another type, another order, another word of an error is a mismatch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DISPATCHED = re.compile(r"dispatch-\d+-[0-9a-f]{8}")
_ADDRESS = re.compile(r"127\.0\.0\.1:\d+")
_INDEX_KEYS = {
    "CreateIndex", "ModifyIndex", "JobModifyIndex", "AllocModifyIndex", "EvalCreateIndex", "Index", "JobCreateIndex",
    "SnapshotIndex", "JobSpecModifyIndex",
}  # fmt: skip
_TIME_KEYS = {
    "CreateTime", "ModifyTime", "SubmitTime", "Time", "UpdateTime", "Timestamp", "StartedAt", "FinishedAt",
    "RequireProgressBy", "iat", "exp", "nbf", "LastRestart",
}  # fmt: skip
# Figures and texts of the one machine that was recorded; only their type is compared.
_MACHINE_KEYS = {
    "AllocationTime", "NormScore", "binpack", "last_heartbeat", "heartbeat_ttl", "num_allocations", "Hash", "n",
    "DataDir", "Addr", "Port", "port", "rpc_addr", "ProviderVersion",
}  # fmt: skip


@dataclass(slots=True)
class Bindings:
    """What the recording calls a thing and what the fake calls it, found on the way."""

    names: dict[str, str] = field(default_factory=dict)
    back: dict[str, str] = field(default_factory=dict)
    indexes: dict[int, int] = field(default_factory=dict)
    headers: dict[int, int] = field(default_factory=dict)  # of X-Nomad-Index, which a blocking query sends back

    def bind(self, recorded: str, actual: str) -> bool:
        """Pair two names; False if one of them is paired otherwise already."""
        if self.names.setdefault(recorded, actual) != actual:
            return False
        if UUID.fullmatch(recorded):
            self.names.setdefault(recorded[:8], actual[:8])
        return self.back.setdefault(actual, recorded) == recorded

    def translate(self, text: str) -> str:
        """The recorded text with the fake's names in it."""
        for recorded in sorted(self.names, key=len, reverse=True):
            if recorded in text:
                text = text.replace(recorded, self.names[recorded])
        return text


def compare_text(recorded: str, actual: str, bindings: Bindings) -> str | None:
    """None if the texts are the same but for ids, indexes and addresses; else what differs."""
    wanted = _ADDRESS.sub("<address>", bindings.translate(recorded))
    found = _ADDRESS.sub("<address>", actual)
    for old, new in zip(UUID.findall(wanted), UUID.findall(found), strict=False):
        if old != new and old not in bindings.names.values() and bindings.bind(old, new):
            wanted = wanted.replace(old, new)
    if wanted == found:
        return None
    wanted = re.sub(r"\d+", lambda m: str(bindings.indexes.get(int(m.group()), m.group())), wanted)
    return None if wanted == found else f"text {found!r} instead of {wanted!r}"


@dataclass(slots=True)
class Comparison:
    """One comparison of two JSON values; `problems` says where they differ."""

    bindings: Bindings
    unordered: frozenset[str] = frozenset()  # paths of lists whose order is by a random id
    problems: list[str] = field(default_factory=list)

    def value(self, recorded: Any, actual: Any, path: str = "", key: str = "") -> None:
        if key in _INDEX_KEYS:
            self._index(recorded, actual, path)
        elif key in _TIME_KEYS or key in _MACHINE_KEYS:
            if _kind(recorded) != _kind(actual):
                self.problems.append(f"{path}: {_kind(actual)} instead of {_kind(recorded)}")
        elif isinstance(recorded, dict) and isinstance(actual, dict):
            self._mapping(recorded, actual, path)
        elif isinstance(recorded, list) and isinstance(actual, list):
            self._sequence(recorded, actual, path)
        elif isinstance(recorded, str) and isinstance(actual, str):
            self._string(recorded, actual, path, key)
        elif type(recorded) is not type(actual) or recorded != actual:
            self.problems.append(f"{path}: {actual!r} instead of {recorded!r}")

    def _index(self, recorded: Any, actual: Any, path: str) -> None:
        if type(actual) is not type(recorded) or bool(recorded) != bool(actual):
            self.problems.append(f"{path}: index {actual!r} instead of {recorded!r}")
        elif recorded:
            self.bindings.indexes[recorded] = actual

    def _string(self, recorded: str, actual: str, path: str, key: str) -> None:
        if recorded.startswith("<") and recorded.endswith(">") and recorded not in self.bindings.names:
            self.bindings.bind(recorded, actual)  # a secret that the recording left out
            return
        for form in (UUID, _DISPATCHED):
            old, new = form.search(recorded), form.search(actual)
            if old and new and old.group() not in self.bindings.names:
                if not self.bindings.bind(old.group(), new.group()):
                    self.problems.append(f"{path}: {actual!r} stands for another recorded id")
                    return
                break
        problem = compare_text(recorded, actual, self.bindings)
        if problem:
            self.problems.append(f"{path}: {problem}")

    def _mapping(self, recorded: dict[str, Any], actual: dict[str, Any], path: str) -> None:
        named = {self._key(key, actual): item for key, item in recorded.items()}
        for key in named.keys() - actual.keys():
            self.problems.append(f"{path}.{key}: missing")
        for key in actual.keys() - named.keys():
            self.problems.append(f"{path}.{key}: added ({actual[key]!r})"[:200])
        for key in named.keys() & actual.keys():
            self.value(named[key], actual[key], f"{path}.{key}", key)

    def _key(self, key: str, actual: dict[str, Any]) -> str:
        """An id as a key; one that is new is paired with the only unknown key of the other side."""
        if UUID.fullmatch(key) and key not in self.bindings.names:
            unknown = [k for k in actual if UUID.fullmatch(k) and k not in self.bindings.back]
            if len(unknown) == 1:
                self.bindings.bind(key, unknown[0])
        return self.bindings.names.get(key, key)

    def _sequence(self, recorded: list[Any], actual: list[Any], path: str) -> None:
        if len(recorded) != len(actual):
            self.problems.append(f"{path}: {len(actual)} items instead of {len(recorded)}")
            return
        if path in self.unordered:
            recorded, actual = sorted(recorded, key=_order), sorted(actual, key=_order)
        for place, (left, right) in enumerate(zip(recorded, actual, strict=True)):
            self.value(left, right, f"{path}[{place}]")


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int | float):
        return "figure" if value else "zero"
    return type(value).__name__


def _order(row: Any) -> str:
    """For lists that Nomad orders by a random id: by kind, then by age."""
    if not isinstance(row, dict):
        return str(row)
    return f"{row.get('TriggeredBy')} {row.get('Status')} {row.get('CreateIndex', 0):09d}"


def compare_headers(recorded: dict[str, str], actual: Iterable[tuple[str, str]]) -> list[str]:
    """The headers of Nomad's own; those of the HTTP server (Date, chunking, Connection) are not compared."""
    skip = {"Transfer-Encoding", "Connection", "Upgrade"}
    found = {key.title(): value for key, value in actual}
    problems = []
    for key, value in recorded.items():
        if key in skip:
            continue
        have = found.get(key.title())
        figure = key in ("X-Nomad-Index", "X-Nomad-Lastcontact", "Cache-Control")
        if have is None:
            problems.append(f"header {key}: missing")
        elif figure and key == "X-Nomad-Index" and (have == "0") != (value == "0"):
            problems.append(f"header {key}: {have} instead of {value}")
        elif not figure and have != value:
            problems.append(f"header {key}: {have!r} instead of {value!r}")
    added = [key for key in found if key.startswith("X-Nomad-") and key not in {k.title() for k in recorded}]
    if recorded:
        problems += [f"header {key}: added" for key in added]
    return problems
