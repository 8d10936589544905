"""The actions of a group's pass that differ from a snapshot's. One effect each; the others are shared."""

from __future__ import annotations

import dataclasses

from bridge.decide import action as act
from bridge.model.group import GroupNote
from bridge.model.secret import SecretRef


@dataclasses.dataclass(frozen=True, slots=True)
class NoteGroup:
    """Write down, durably, what is about to be created."""

    note: GroupNote


@dataclasses.dataclass(frozen=True, slots=True)
class AdoptGroup:
    """Record an existing group's handle; its members are those of the request."""

    handle: str


@dataclasses.dataclass(frozen=True, slots=True)
class CreateGroup:
    """CreateVolumeGroupSnapshot, exactly as the note says."""

    note: GroupNote


@dataclasses.dataclass(frozen=True, slots=True)
class InspectGroup:
    """Ask the plugin how the group and each of its members are."""

    handle: str
    members: tuple[str, ...]
    secret: SecretRef


@dataclasses.dataclass(frozen=True, slots=True)
class DeleteGroup:
    """DeleteVolumeGroupSnapshot with all its members."""

    handle: str
    members: tuple[str, ...]
    secret: SecretRef


Call = CreateGroup | InspectGroup | DeleteGroup
GroupAction = act.Hold | NoteGroup | AdoptGroup | Call | act.Condemn | act.Erase | act.Release | act.Wait | act.Rest
