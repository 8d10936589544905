"""The actions that a pass may take: one effect each. Their `reason` is a stable code, their `why` a sentence."""

from __future__ import annotations

import dataclasses

from bridge.model.failure import Failure
from bridge.model.secret import SecretRef
from bridge.model.snapshot import Note


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Make the orchestrator keep the request and its source."""


@dataclasses.dataclass(frozen=True, slots=True)
class NoteIntent:
    """Write down, durably, what is about to be created."""

    note: Note


@dataclasses.dataclass(frozen=True, slots=True)
class Adopt:
    """Record an existing snapshot's handle."""

    handle: str


@dataclasses.dataclass(frozen=True, slots=True)
class Create:
    """CreateSnapshot, exactly as the note says."""

    note: Note


@dataclasses.dataclass(frozen=True, slots=True)
class Inspect:
    """Ask the plugin how the snapshot is. `assume_ready`: it has no way to tell, so it is taken as ready."""

    handle: str
    secret: SecretRef
    assume_ready: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Condemn:
    """Decide the deletion, durably, before it begins."""


@dataclasses.dataclass(frozen=True, slots=True)
class Delete:
    """DeleteSnapshot."""

    handle: str
    secret: SecretRef


@dataclasses.dataclass(frozen=True, slots=True)
class Erase:
    """Forget the record. `orphan` names what may be left on the backend."""

    orphan: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Release:
    """Let the request and its source go."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Nothing now; look again after so many seconds."""

    seconds: float
    reason: str
    why: str
    failure: Failure | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Rest:
    """Nothing more until an event says otherwise."""

    reason: str
    why: str
    failure: Failure | None = None


Action = Hold | NoteIntent | Adopt | Create | Inspect | Condemn | Delete | Erase | Release | Wait | Rest
