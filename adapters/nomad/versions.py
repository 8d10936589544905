"""What differs between Nomad's versions: one row per difference, with what we do about it.

Nothing else may compare versions. A row is asked for by its trait; a version that is not known counts as a current
one, because what an old agent does otherwise is either noticed as it comes or only wanting.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping, Sequence
from typing import Any

Version = tuple[int, int, int]

FIRST: Version = (0, 0, 0)
_LAST_PATCH = 999


class Trait(enum.StrEnum):
    """A difference that some code of ours asks for."""

    TOO_OLD = "too-old"
    PARALLEL_CALLS = "parallel-calls"
    NO_IDENTITIES = "no-identities"
    NO_LOCKS = "no-locks"
    NO_ACTIONS = "no-actions"
    SYSTEM_JOBS_DO_NOT_SCALE = "system-jobs-do-not-scale"
    NO_PLUGIN_EVENTS = "no-plugin-events"
    NO_VOLUME_EVENTS = "no-volume-events"
    NO_VARIABLE_EVENTS = "no-variable-events"
    DELETE_WITHOUT_SECRETS = "delete-without-secrets"
    STREAM_REFUSED_BY_STATUS = "stream-refused-by-status"
    STREAM_UNREADABLE = "stream-unreadable"
    BLOCKED_EVALUATIONS_STAY = "blocked-evaluations-stay"


NO_PLUGIN_EVENTS = Trait.NO_PLUGIN_EVENTS
NO_VOLUME_EVENTS = Trait.NO_VOLUME_EVENTS
NO_IDENTITIES = Trait.NO_IDENTITIES
DELETE_WITHOUT_SECRETS = Trait.DELETE_WITHOUT_SECRETS
STREAM_UNREADABLE = Trait.STREAM_UNREADABLE


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """Versions `first` to `last`, both included, of the community edition."""

    trait: Trait
    first: Version
    last: Version
    issue: str
    """Nomad's own number of it, where there is one."""
    what: str
    """What is different."""
    remedy: str
    """What we do."""

    def holds(self, version: Version) -> bool:
        """Whether this version has it."""
        return self.first <= version <= self.last


def _before(version: Version) -> Version:
    """The last version before this one, whatever its patch number."""
    major, minor, patch = version
    if patch:
        return (major, minor, patch - 1)
    return (major, minor - 1, _LAST_PATCH) if minor else (major - 1, _LAST_PATCH, _LAST_PATCH)


TABLE: tuple[Row, ...] = (
    Row(Trait.TOO_OLD, FIRST, _before((1, 6, 0)), "",
        "nobody looked at what these versions do", "it is said; use 1.6 or later"),
    Row(Trait.PARALLEL_CALLS, FIRST, _before((1, 6, 1)), "GH-17996",
        "the servers send a plugin several controller calls at once",
        "we send one at a time per plugin through Nomad's API, on every version"),
    Row(Trait.NO_IDENTITIES, FIRST, _before((1, 7, 0)), "",
        "no public keys, and no identity with an audience", "tasks use a token of the API; it is said"),
    Row(Trait.NO_LOCKS, FIRST, _before((1, 7, 0)), "",
        "variables have no locks: lock-acquire is an unknown word, and the call a plain write",
        "an answer without a lock's id never makes a leader; leadership is refused"),
    Row(Trait.NO_ACTIONS, FIRST, _before((1, 7, 0)), "",
        "tasks have no actions", "quiesce by exec"),
    Row(Trait.SYSTEM_JOBS_DO_NOT_SCALE, FIRST, _before((1, 9, 0)), "",
        "a system job cannot be scaled to 0", "a revert stops it and starts its version again"),
    Row(Trait.NO_PLUGIN_EVENTS, FIRST, _before((1, 10, 0)), "GH-24724",
        "no CSI topics; asking for an unknown one needs a management token", "plugins are polled only"),
    Row(Trait.NO_VOLUME_EVENTS, (1, 10, 0), (1, 10, 5), "GH-26766",
        "a CSIVolume event erases the volume's secrets in the server", "that topic is never asked for"),
    Row(Trait.NO_VOLUME_EVENTS, (1, 11, 0), (1, 11, 0), "GH-26766",
        "a CSIVolume event erases the volume's secrets in the server", "that topic is never asked for"),
    Row(Trait.NO_VARIABLE_EVENTS, FIRST, _before((2, 0, 0)), "GH-27637",
        "no events of variables", "they are read by a blocking query"),
    Row(Trait.DELETE_WITHOUT_SECRETS, FIRST, (1, 10, 1), "GH-25976",
        "Nomad passes no secrets on when a snapshot is deleted",
        "it is said of each plugin that has secrets and no socket route"),
    Row(Trait.STREAM_REFUSED_BY_STATUS, FIRST, (1, 11, 1), "",
        "a denied event stream is answered 403; later ones are 200 and silence",
        "both are read: an error status, or no heartbeat in time, is a denial"),
    Row(Trait.STREAM_UNREADABLE, (1, 11, 2), (1, 11, 2), "GH-27586",
        "the event stream's status line is HTTP/0.0", "blocking queries on the jobs instead"),
    Row(Trait.BLOCKED_EVALUATIONS_STAY, FIRST, _before((2, 0, 5)), "GH-28275",
        "registering a volume does not wake an evaluation that is blocked on it",
        "a revert starts a job after its volume is back, which is a new evaluation"),
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


def rows(version: Version | None) -> Sequence[Row]:
    """The rows that apply; none for a version that is not known."""
    return [] if version is None else [row for row in TABLE if row.holds(version)]


def traits(version: Version | None) -> frozenset[Trait]:
    """The traits of the rows that apply."""
    return frozenset(row.trait for row in rows(version))


def topics(version: Version | None) -> tuple[str, ...]:
    """The event topics to ask for. CSIVolume is in no list: nothing needs it, and it did harm (see TABLE)."""
    return ("Job",) if Trait.NO_PLUGIN_EVENTS in traits(version) else ("Job", "CSIPlugin")


class Agent:
    """The version of one cluster's agent as it was read last, and what follows from it."""

    def __init__(self, version: Version | None = None) -> None:
        self.version = version
        """None while it is not known, or the token may not read it (`agent { policy = "read" }`)."""

    def has(self, trait: Trait) -> bool:
        """Whether this agent's version has the difference."""
        return trait in traits(self.version)

    def text(self) -> str:
        """The version for people."""
        return "unknown" if self.version is None else ".".join(map(str, self.version))

    def explain(self, trait: Trait) -> str:
        """A sentence about the first row of this trait that applies; empty when none does."""
        for row in rows(self.version):
            if row.trait is trait:
                issue = f" ({row.issue})" if row.issue else ""
                return f"Nomad {self.text()}: {row.what}{issue}; {row.remedy}"
        return ""
