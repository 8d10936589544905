"""Restores and clones, purely: journal + what is seen -> the next step. Create, register, done; a volume that we made
and cannot register is undone. Nothing else is ever deleted here, and nothing that already has its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bridge.decide import backoff
from bridge.model.failure import Failure, FailureKind
from bridge.model.plugin import Capability, PluginView
from bridge.model.snapshot import HandleSource, VolumeSource


@dataclasses.dataclass(frozen=True, slots=True)
class Journal:
    """What the operation's row remembers."""

    handle: str = ""
    """The new volume's CSI handle, once known."""
    registered: bool = False
    unsure: bool = False
    """A CreateVolume may have taken effect without telling us its handle."""
    failures: int = 0
    retry_at: float = 0.0
    failure: Failure | None = None
    doomed: Failure | None = None
    """Why the restore cannot be finished; what was made must be undone first."""
    undone: bool = False
    undo_failed: bool = False
    """The undoing was tried and did not succeed."""
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the plugin told of the new volume, for its registration."""


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """All that one step has seen."""

    journal: Journal
    content: HandleSource | VolumeSource | None
    """What to make it from; None when that is gone, or not ready."""
    plugin: PluginView
    taken_by: str = ""
    """The handle that already has the wanted name in the cluster; empty when the name is free."""
    name: str = ""
    """The CSI name of the new volume, for people."""
    abandoned: bool = False
    """Its owner wants it to end, whatever is left."""


@dataclasses.dataclass(frozen=True, slots=True)
class CreateVolume:
    """CreateVolume from the snapshot or the volume, under the operation's own name."""

    content: HandleSource | VolumeSource


@dataclasses.dataclass(frozen=True, slots=True)
class Register:
    """Make the volume known under its name."""

    handle: str


@dataclasses.dataclass(frozen=True, slots=True)
class DeleteVolume:
    """Undo our own CreateVolume."""

    handle: str


@dataclasses.dataclass(frozen=True, slots=True)
class Succeed:
    """All is done."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fail:
    """It cannot be done and nothing of it is left."""

    failure: Failure


@dataclasses.dataclass(frozen=True, slots=True)
class Later:
    """Look again."""

    seconds: float
    why: str


Step = CreateVolume | Register | DeleteVolume | Succeed | Fail | Later


def decide(seen: Observed, now: float) -> Step:
    """The one next step."""
    journal = seen.journal
    if journal.registered:
        return Succeed()
    why = journal.doomed or (_abandoned(seen) if seen.abandoned else None)
    if why is not None:
        return _undo(seen, journal, why, now)
    if journal.handle:
        if seen.taken_by and seen.taken_by != journal.handle:
            return _undo(seen, journal, _taken(seen.taken_by), now)
        return _after_back_off(journal, now) or Register(journal.handle)
    return _before_create(seen, journal, now)


def _before_create(seen: Observed, journal: Journal, now: float) -> Step:
    if not journal.unsure:
        if seen.taken_by:
            return Fail(_taken(seen.taken_by))
        if seen.content is None:
            return Fail(Failure(FailureKind.REFUSED, "NOT_READY", "the snapshot is not ready", "wait for it"))
    gate = _gate(seen.plugin, clones=isinstance(seen.content, VolumeSource)) or _after_back_off(journal, now)
    if gate is not None:
        return _patient(gate) if journal.unsure else gate
    if seen.content is None:
        return Later(backoff.UNKNOWN_PLUGIN_SECONDS, "the snapshot is gone and a create may have taken effect")
    return CreateVolume(seen.content)


def _undo(seen: Observed, journal: Journal, why: Failure, now: float) -> Step:
    if not journal.handle or journal.undone:
        return Fail(why)
    if seen.taken_by == journal.handle:
        return Succeed()  # it has been handed over to its owner; a crash only kept the journal from saying so
    if seen.abandoned and journal.undo_failed:
        message = f"{why.message}; the volume {journal.handle!r} is left on the backend"
        return Fail(dataclasses.replace(why, code=ABANDONED, message=message, leftover=journal.handle))
    gate = _gate(seen.plugin) or _after_back_off(journal, now)
    return _patient(gate) if gate is not None else DeleteVolume(journal.handle)


ABANDONED = "ABANDONED"


def _abandoned(seen: Observed) -> Failure:
    """What the end of an abandoned one says: what may be left, by the name that finds it."""
    message, left = "it was abandoned", ""
    if seen.journal.unsure and not seen.journal.handle:
        left = (seen.journal.failure.leftover if seen.journal.failure else "") or seen.name
        message += f"; the volume {left!r} may be on the backend"
    return Failure(FailureKind.REFUSED, ABANDONED, message, "look for it on the backend" if left else "", left)


def _gate(plugin: PluginView, *, clones: bool = False) -> Step | None:
    if not plugin.known or not plugin.healthy:
        return Later(backoff.UNKNOWN_PLUGIN_SECONDS, f"the plugin of {plugin.driver!r} does not serve")
    if not plugin.can(Capability.CREATE_DELETE_VOLUME):
        why = f"the driver {plugin.driver!r} cannot make volumes (no CREATE_DELETE_VOLUME)"
        return Fail(Failure(FailureKind.REFUSED, "UNSUPPORTED", why))
    if clones and not plugin.can(Capability.CLONE_VOLUME):
        why = f"the driver {plugin.driver!r} cannot clone volumes (no CLONE_VOLUME)"
        return Fail(Failure(FailureKind.REFUSED, "UNSUPPORTED", why, "cut a snapshot and restore it"))
    return None


def _patient(gate: Step) -> Step:
    """While something of ours is or may be on the backend, a plugin that cannot do it now is waited for."""
    return Later(backoff.UNKNOWN_PLUGIN_SECONDS, gate.failure.message) if isinstance(gate, Fail) else gate


def _after_back_off(journal: Journal, now: float) -> Later | None:
    if not now < journal.retry_at <= now + backoff.RETRY_MOST_SECONDS:  # beyond it, the clock was set back
        return None
    return Later(journal.retry_at - now, str(journal.failure) if journal.failure else "backing off")


def _taken(handle: str) -> Failure:
    message = f"the volume's name is taken (by {handle!r})"
    return Failure(FailureKind.REFUSED, "CONFLICT", message, "choose another name")


def fold_failure(journal: Journal, step: Step, failure: Failure, now: float) -> Journal:
    """The journal after a failed step. A create that was refused from the first dooms the restore."""
    failures = journal.failures + 1
    after = dataclasses.replace(
        journal, failure=failure, failures=failures, retry_at=now + backoff.retry_delay(failures)
    )
    if isinstance(step, CreateVolume):
        if failure.kind is FailureKind.UNSURE:
            return dataclasses.replace(after, unsure=True)
        return after if journal.unsure else _doomed(after, failure)
    if isinstance(step, Register) and failure.kind is FailureKind.REFUSED:
        return _doomed(after, failure)
    return dataclasses.replace(after, undo_failed=True) if isinstance(step, DeleteVolume) else after


def _doomed(journal: Journal, failure: Failure) -> Journal:
    """What is to be undone need not wait for what was refused."""
    return dataclasses.replace(journal, doomed=failure, failures=0, retry_at=0.0)


def fold_done(journal: Journal, step: Step, handle: str = "", context: Mapping[str, str] | None = None) -> Journal:
    """The journal after a step that was done. A new volume has a `handle` and a `context`."""
    clean = dataclasses.replace(journal, failure=None, failures=0, retry_at=0.0)
    match step:
        case CreateVolume():
            return dataclasses.replace(clean, handle=handle, context=dict(context or {}))
        case Register():
            return dataclasses.replace(clean, registered=True)
        case DeleteVolume():
            return dataclasses.replace(clean, undone=True)
        case _:
            raise AssertionError("this step has no outcome")
