"""What is told of a job in its summary variable: what is known in, the variable's items out. Pure, and bounded.

A variable holds 64 KiB; a summary stays below that, and says what it left out. Nothing in it changes with the clock
alone, so that it is written only when there is something new.
"""

from __future__ import annotations

import dataclasses
import datetime
import shlex
from collections.abc import Mapping, Sequence

from bridge.model.snapshot import DeletionPolicy, SnapshotState, SnapshotStatus

MARK_KEY = "managed_by"
MARK = "snapbridge"
VOLUME = "volume."
"""`volume.<id>` is the key of a volume's text."""
MOST_BYTES = 60_000
_MOST_LIST_BYTES = 8_000
_MOST_TEXT_BYTES = 2_000
_SETTLED = (SnapshotState.READY, SnapshotState.RETAINED, SnapshotState.GONE)
_UTC = datetime.UTC


@dataclasses.dataclass(frozen=True, slots=True)
class Last:
    """The newest snapshot of one volume that the job asked for."""

    name: str
    uid: str
    why: str
    asked_by: str
    policy: DeletionPolicy
    group: str = ""
    """The name of the group that it was cut with."""
    status: SnapshotStatus | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeLine:
    """One volume of the job. `awaited` says what the next snapshot waits for; empty when none is due."""

    volume: str
    last: Last | None = None
    awaited: str = ""

    @property
    def settled(self) -> bool:
        """Nothing more will happen to it by itself."""
        status = self.last.status if self.last is not None else None
        return not self.awaited and (self.last is None or (status is not None and status.state in _SETTLED))


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a summary is made of."""

    namespace: str
    job: str
    version: int
    lines: Sequence[VolumeLine] = ()
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    link: str = ""
    """The address of our API as operators reach it; empty: no links."""


def items(facts: Facts) -> dict[str, str]:
    """The variable's items, whatever their size: see `bounded`."""
    found = {
        MARK_KEY: MARK,
        "job_version": str(facts.version),
        "command": command(facts.namespace, facts.job),
        "problems": _list(facts.problems) or "none",
    }
    if facts.notes:
        found["notes"] = _list(facts.notes)
    return found | {VOLUME + line.volume: _text(line, facts.link) for line in facts.lines}


def bounded(found: Mapping[str, str]) -> dict[str, str]:
    """The items with as many of the volumes' texts as there is room for; the others are counted."""
    kept = {key: text for key, text in found.items() if not key.startswith(VOLUME)}
    size = sum(len((key + text).encode()) for key, text in kept.items())
    left_out = 0
    for key, text in found.items():
        if key in kept:
            continue
        cost = len((key + text).encode())
        if size + cost > MOST_BYTES:
            left_out += 1
            continue
        size += cost
        kept[key] = text
    if left_out:
        kept["more"] = f"{left_out} more volumes have no room here; the command lists them"
    return kept


def is_ours(found: Mapping[str, str]) -> bool:
    """Whether a variable is a summary that we wrote."""
    return found.get(MARK_KEY) == MARK


def carried(found: Mapping[str, str], volumes: Sequence[str]) -> dict[str, str]:
    """Of an earlier summary, the lines of volumes of which nothing newer is known: those that had come to rest."""
    words = tuple(f"{state.value}:" for state in _SETTLED)
    there = {VOLUME + volume: found.get(VOLUME + volume, "") for volume in volumes}
    return {key: text for key, text in there.items() if text.startswith(words)}


def command(namespace: str, job: str) -> str:
    """What shows the rest.

    >>> command("prod", "a b")
    "snapbridge snapshot list --namespace prod --job 'a b'"
    """
    where = "" if namespace == "default" else f" --namespace {shlex.quote(namespace)}"
    return f"snapbridge snapshot list{where} --job {shlex.quote(job)}"


def _list(texts: Sequence[str]) -> str:
    return _cut("\n".join(texts), _MOST_LIST_BYTES)


def _text(line: VolumeLine, link: str) -> str:
    rows = [f"{key}: {value}" for key, value in _rows(line, link) if value]
    return _cut("\n".join(rows) or "no snapshot yet", _MOST_TEXT_BYTES)


def _cut(text: str, most_bytes: int) -> str:
    raw = text.encode()
    return text if len(raw) <= most_bytes else f"{raw[:most_bytes].decode(errors='ignore')}…"


def _rows(line: VolumeLine, link: str) -> Sequence[tuple[str, str]]:
    waits = [("next", line.awaited)]
    if line.last is None:
        return waits
    last, status = line.last, line.last.status
    rows = [(status.state.value if status is not None else "asked", last.name)]
    if status is not None:
        rows += [
            ("error", str(status.failure) if status.failure is not None else ""),
            ("cut", _instant(status.cut_at_ns)),
            ("size", f"{status.size_bytes} bytes" if status.size_bytes else ""),
        ]
    rows += [("asked by", last.asked_by), ("why", last.why), ("deletion policy", last.policy.value)]
    rows += [("together", last.group), ("uid", last.uid), ("link", f"{link}/v1/snapshots/{last.uid}" if link else "")]
    return rows + waits


def _instant(nanoseconds: int | None) -> str:
    if not nanoseconds or not 0 < nanoseconds < 253402300800 * 10**9:
        return ""
    return datetime.datetime.fromtimestamp(nanoseconds // 10**9, _UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
