"""Which CSI volumes a group claims, by the names that people use for them. Pure: a group's wire form in, ids out.

It must not look at settings: what is to be done with a volume is settings.py's and hooks.py's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]

ALL = "*"


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """What a name stands for in one group. A `per_alloc` block of a group scaled to 0 is known and has no ids."""

    known: bool
    ids: tuple[str, ...] = ()
    trouble: str = ""


def claimed(group: Row, allocation_name: str = "") -> tuple[str, ...]:
    """The ids of the CSI volumes that a group claims; with an allocation's name, only those of that one.

    >>> claimed({"Count": 1, "Volumes": {"v": {"Type": "csi", "Source": "d", "PerAlloc": True}}}, "j.g[2]")
    ('d[2]',)
    """
    ids: list[str] = []
    for block in _blocks(group):
        ids.extend(_ids(block, group, allocation_name))
    return tuple(dict.fromkeys(ids))


def find(name: str, group: Row) -> Match:
    """A name -> volume ids: `*`, the volume block's label, or the volume's own id (brackets and all)."""
    if name == ALL:
        blocks = list(_blocks(group))
        return Match(bool(blocks), claimed(group), "" if blocks else "the group claims no CSI volume")
    block = (group.get("Volumes") or {}).get(name)
    if block is not None:
        if block.get("Type") != "csi":
            kind = block.get("Type")
            return Match(False, (), f"{name!r} is a {kind!r} volume; only CSI volumes have snapshots")
        return Match(True, _ids(block, group, ""))
    for block in _blocks(group):
        ids = _ids(block, group, "")
        if name in ids:
            return Match(True, (name,))
        if name == block.get("Source"):
            return Match(True, ids)
    return Match(False, (), f"{name!r} is no CSI volume that the group claims")


def claims_any(job: Row) -> bool:
    """Whether any group of the job claims a CSI volume at all."""
    return any(True for group in job.get("TaskGroups") or () for _ in _blocks(group))


def _blocks(group: Row) -> Iterator[Row]:
    for block in (group.get("Volumes") or {}).values():
        if (block.get("Type") or "") == "csi":
            yield block


def _ids(block: Row, group: Row, allocation_name: str) -> tuple[str, ...]:
    """A volume block's ids. With `per_alloc` the id carries the index of the allocation."""
    source = str(block.get("Source") or "")
    if not source:
        return ()
    if not block.get("PerAlloc"):
        return (source,)
    if allocation_name:
        match = re.search(r"\[(\d+)\]$", allocation_name)
        return (f"{source}[{match[1]}]",) if match else ()
    return tuple(f"{source}[{place}]" for place in range(int(group.get("Count") or 0)))
