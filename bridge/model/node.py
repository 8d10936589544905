"""Nodes and the agents on them that carry CSI calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One node agent that is or was attached to the hub."""

    name: str
    connected: bool
    version: str = ""
    since: float = 0.0
    """Seconds since the epoch of the last change of `connected`."""
    plugins: tuple[str, ...] = ()
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sentence: str = ""
