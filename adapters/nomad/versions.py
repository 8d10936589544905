"""What differs between Nomad's versions, one row each with the reason. Nothing else may compare versions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

Version = tuple[int, int, int]

LATEST: Version = (999, 0, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """Versions `first` to `last`, both included, of the community edition."""

    trait: str
    first: Version
    last: Version
    why: str


STREAM_UNREADABLE = "stream-unreadable"
NO_VOLUME_EVENTS = "no-volume-events"
NO_PLUGIN_EVENTS = "no-plugin-events"
NO_IDENTITIES = "no-identities"
DELETE_WITHOUT_SECRETS = "delete-without-secrets"

TABLE: tuple[Row, ...] = (
    Row(STREAM_UNREADABLE, (1, 11, 2), (1, 11, 2),
        "the stream's status line is HTTP/0.0 (GH-27586): blocking queries instead"),
    Row(NO_VOLUME_EVENTS, (1, 10, 0), (1, 10, 5),
        "a CSIVolume event erases the volume's secrets in the server (GH-26766): never subscribed"),
    Row(NO_VOLUME_EVENTS, (1, 11, 0), (1, 11, 0),
        "a CSIVolume event erases the volume's secrets in the server (GH-26766): never subscribed"),
    Row(NO_PLUGIN_EVENTS, (0, 0, 0), (1, 9, 999),
        "CSI topics exist since 1.10.0 (GH-24724); asking an older one for them needs a management token"),
    Row(NO_IDENTITIES, (0, 0, 0), (1, 6, 999), "public keys and identities with an audience exist since 1.7"),
    Row(DELETE_WITHOUT_SECRETS, (0, 0, 0), (1, 10, 1),
        "secrets were not sent on snapshot delete before 1.10.2 (GH-25976)"),
)  # fmt: skip

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def parse(text: str) -> Version | None:
    """`2.0.6-dev` as numbers; None when it is no version."""
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def of_agent(agent: Mapping[str, Any]) -> Version | None:
    """The version in an answer of `/v1/agent/self`."""
    config = agent.get("config") or {}
    text = (config.get("Version") or {}).get("Version") or ""
    return parse(str(text))


def traits(version: Version | None) -> frozenset[str]:
    """The rows that apply. An unknown version is taken for a current one: denied and unreadable streams are
    noticed as they come."""
    if version is None:
        return frozenset()
    return frozenset(row.trait for row in TABLE if row.first <= version <= row.last)


def topics(version: Version | None) -> tuple[str, ...]:
    """The event topics to ask for. CSIVolume is in no list: nothing needs it, and it did harm (see TABLE)."""
    return ("Job",) if NO_PLUGIN_EVENTS in traits(version) else ("Job", "CSIPlugin")
