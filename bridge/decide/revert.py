"""In-place reverts, purely: journal + what is seen -> the next step.

Forward: note who uses the volumes, make the new ones, keep the old ones under another name, stop the users, wait
until the claims are gone, move the registrations, start, verify. Backward, once it is doomed: the old registrations,
the users as they were, then what we made is deleted. Every step looks at the world, so that a repeat after any crash
goes on from there. Only what the journal holds is ever undone, and an old volume is never deleted here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bridge.decide import backoff
from bridge.model.failure import Failure, FailureKind
from bridge.model.plugin import Capability, PluginView
from bridge.model.revert import Swap, Workload, WorkloadState

LOOK_SECONDS = 1.0
RETRY_MOST_SECONDS = 30.0
"""Nobody waits five minutes for a retry while a workload is stopped."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How long each wait may take, in seconds, before the revert is taken back."""

    pause: float = 900.0
    """Until the workload may be stopped: a deployment under way ends first."""
    free: float = 720.0
    """Until the claims are gone: an orchestrator's own clean-up may take ten minutes."""
    verify: float = 600.0
    """Until every instance runs on the new volume."""
    settle: float = 30.0
    """How long a stop whose answer was lost may still take effect."""


@dataclasses.dataclass(frozen=True, slots=True)
class Journal:
    """What the operation's row remembers."""

    swaps: tuple[Swap, ...]
    workload: Workload | None = None
    noted: bool = False
    pausing: bool = False
    """A stop may have been sent."""
    paused: bool = False
    """It was seen to be stopped by us, and not started by us since."""
    resumed: bool = False
    resuming: bool = False
    """A start may have been sent."""
    phase: str = ""
    """What is waited for, since `phase_at`."""
    phase_at: float = 0.0
    settle_until: float = 0.0
    """A stop without an answer may take effect until then."""
    stuck: bool = False
    """The claims on the new volume do not go, so it stays in place."""
    failures: int = 0
    retry_at: float = 0.0
    failure: Failure | None = None
    doomed: Failure | None = None
    """Why it cannot be finished; it is taken back."""


@dataclasses.dataclass(frozen=True, slots=True)
class SeenSwap:
    """One volume's names as they stand now; an empty handle means that the name is free."""

    here: str
    users: tuple[str, ...] = ()
    kept: str = ""
    kept_users: tuple[str, ...] = ()
    ready: bool = True
    """The snapshot is there and ready."""


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """All that one step has seen. `plugins` by driver; `state` is None where there is no workload."""

    journal: Journal
    swaps: tuple[SeenSwap, ...]
    plugins: dict[str, PluginView]
    state: WorkloadState | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """Find out who uses the volumes; refuse what would lose data."""


@dataclasses.dataclass(frozen=True, slots=True)
class CreateVolume:
    """CreateVolume from the snapshot, under the operation's own name. `at` is the swap's place in the journal."""

    at: int


@dataclasses.dataclass(frozen=True, slots=True)
class Keep:
    """Register the old volume under its second name as well."""

    at: int


@dataclasses.dataclass(frozen=True, slots=True)
class Pause:
    """Stop the workload. With `again`, one that we had started."""

    again: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Forget:
    """Take the registration away; refused while in use. The data stays."""

    at: int


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Register a handle under the volume's name: the new one, or the old one with `back`."""

    at: int
    back: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Resume:
    """Start the workload; with `back`, as it was."""

    back: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Unkeep:
    """Take the second name away again."""

    at: int


@dataclasses.dataclass(frozen=True, slots=True)
class DeleteVolume:
    """Undo our own CreateVolume."""

    at: int


@dataclasses.dataclass(frozen=True, slots=True)
class Succeed:
    """All is done. `left` says what somebody else has changed meanwhile."""

    left: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Fail:
    """It is taken back, or nothing of it was done."""

    failure: Failure


@dataclasses.dataclass(frozen=True, slots=True)
class Doom:
    """It cannot be finished: write that down, then take it back."""

    failure: Failure


@dataclasses.dataclass(frozen=True, slots=True)
class Stick:
    """Taking it back cannot move the registration: write that down, then start the workload all the same."""


@dataclasses.dataclass(frozen=True, slots=True)
class Later:
    """Look again. `phase` names what is waited for, where that has a limit."""

    seconds: float
    why: str
    phase: str = ""


Effect = Note | CreateVolume | Keep | Pause | Forget | Place | Resume | Unkeep | DeleteVolume
Step = Effect | Succeed | Fail | Doom | Stick | Later
WANTED = (WorkloadState.RUNNING, WorkloadState.STARTING)
STANDARD = Limits()


def decide(seen: Observed, now: float, limits: Limits = STANDARD) -> Step:
    """The one next step."""
    journal = seen.journal
    if journal.doomed is not None:
        return _back(seen, journal.doomed, now, limits)
    if not journal.noted:
        return _begin(seen, now)
    return _make(seen, now) or _stop(seen, now, limits) or _move(seen, now, limits) or _end(seen, now, limits)


# Forward


def _begin(seen: Observed, now: float) -> Step:
    for swap, one in zip(seen.journal.swaps, seen.swaps, strict=True):
        if not one.ready:
            return Fail(Failure(FailureKind.REFUSED, "NOT_READY", f"the snapshot {swap.snapshot} is not ready"))
        if one.here != swap.old_handle:
            return Fail(_other(swap, one.here))
        if gate := _gate(seen.plugins[swap.driver]):
            return gate
    return _early(seen.journal, now) or Note()


def _make(seen: Observed, now: float) -> Step | None:
    """New volumes and second names: nothing is stopped before all of them are there."""
    journal = seen.journal
    for at, (swap, one) in enumerate(zip(journal.swaps, seen.swaps, strict=True)):
        if not swap.new_handle:
            if not one.ready:
                if swap.unsure:
                    why = "the snapshot is gone and a create may have taken effect"
                    return Later(backoff.UNKNOWN_PLUGIN_SECONDS, why)
                return Doom(Failure(FailureKind.REFUSED, "NOT_READY", f"the snapshot {swap.snapshot} is not ready"))
            return _gate(seen.plugins[swap.driver], doom=not swap.unsure) or _early(journal, now) or CreateVolume(at)
    for at, (swap, one) in enumerate(zip(journal.swaps, seen.swaps, strict=True)):
        if not swap.kept or (one.here == swap.old_handle and not one.kept):
            if one.here != swap.old_handle:
                return Doom(_other(swap, one.here))
            if one.kept not in ("", swap.old_handle):
                message = f"the name {swap.keep_as!r} is taken (by {one.kept!r})"
                return Doom(Failure(FailureKind.REFUSED, "CONFLICT", message, "deregister it"))
            return _early(journal, now) or Keep(at)
    return None


def _stop(seen: Observed, now: float, limits: Limits) -> Step | None:
    journal = seen.journal
    if journal.workload is None or journal.resumed or _moved(seen):
        return None
    if seen.state in WANTED:
        if journal.paused:
            return Doom(_meddled(journal.workload, "was started by somebody else while it was stopped for this"))
        for swap, one in zip(journal.swaps, seen.swaps, strict=True):
            if one.here != swap.old_handle:
                return Doom(_other(swap, one.here))
        if _elapsed(journal, "pause", now) > limits.pause:
            why = str(journal.failure) if journal.failure else "it could not be stopped"
            return Doom(Failure(FailureKind.REFUSED, "NOT_STOPPED", f"{journal.workload.name}: {why}"))
        return _early(journal, now, "pause") or Pause()
    return None


def _move(seen: Observed, now: float, limits: Limits) -> Step | None:
    """The registrations, once nobody uses an old volume."""
    journal = seen.journal
    pairs = list(enumerate(zip(journal.swaps, seen.swaps, strict=True)))
    for _, (swap, one) in pairs:
        if one.here not in ("", swap.old_handle, swap.new_handle):
            return Doom(_other(swap, one.here))
    if users := [user for _, (swap, one) in pairs if one.here == swap.old_handle for user in one.users]:
        if _elapsed(journal, "free", now) > limits.free:
            message = f"the volume is still in use: {'; '.join(users[:3])}"
            hint = "a claim of an allocation in no list goes with the orchestrator's own clean-up; then try again"
            return Doom(Failure(FailureKind.REFUSED, "IN_USE", message, hint))
        return Later(LOOK_SECONDS, f"in use: {users[0]}", "free")
    for at, (swap, one) in pairs:
        if one.here == swap.old_handle:
            return _early(journal, now) or Forget(at)
    for at, (swap, one) in pairs:
        if not one.here or not swap.placed:
            return _early(journal, now) or Place(at)
    return None


def _end(seen: Observed, now: float, limits: Limits) -> Step:
    journal = seen.journal
    if journal.workload is None:
        return Succeed()
    if not journal.pausing:
        return Succeed(f"{journal.workload.name} was stopped by somebody else before and is left so")
    if seen.state is WorkloadState.PAUSED and not journal.resumed:
        return _early(journal, now) or Resume()
    if seen.state is WorkloadState.RUNNING:
        ours = journal.resuming or journal.resumed
        return Succeed("" if ours else f"{journal.workload.name} was started by somebody else, as it is now")
    if seen.state is not WorkloadState.STARTING:
        return Succeed(f"{journal.workload.name} was stopped by somebody else and is left so")
    if _elapsed(journal, "verify", now) > limits.verify:
        message = f"{journal.workload.name} does not run on the restored volume after {limits.verify:g} s"
        hint = "look at its own logs; the snapshot is still there"
        return Doom(Failure(FailureKind.REFUSED, "NOT_STARTED", message, hint))
    return Later(LOOK_SECONDS, f"{journal.workload.name} starts", "verify")


# Backward


def _back(seen: Observed, why: Failure, now: float, limits: Limits) -> Step:
    journal = seen.journal
    if journal.noted and now < journal.settle_until <= now + limits.settle:
        return Later(journal.settle_until - now, "a stop without an answer may still take effect")
    return _put_back(seen, now, limits) or _clean(seen, now) or Fail(_told(seen, why))


def _put_back(seen: Observed, now: float, limits: Limits) -> Step | None:
    """Registrations as they were, then the workload as it was."""
    journal = seen.journal
    pairs = list(enumerate(zip(journal.swaps, seen.swaps, strict=True)))
    new_here = [(at, one) for at, (swap, one) in pairs if one.here and one.here == swap.new_handle]
    if new_here and not journal.stuck:
        if journal.pausing and seen.state in WANTED:
            return _early(journal, now) or Pause(again=True)
        if users := [user for _, one in new_here for user in one.users]:
            if _elapsed(journal, "free again", now) > limits.free:
                return Stick()
            return Later(LOOK_SECONDS, f"in use: {users[0]}", "free again")
        return _early(journal, now) or Forget(new_here[0][0])
    for at, (swap, one) in pairs:
        if not one.here and swap.kept:
            return _early(journal, now) or Place(at, back=True)
    if journal.pausing and seen.state is WorkloadState.PAUSED:
        return _early(journal, now) or Resume(back=True)
    return None


def _clean(seen: Observed, now: float) -> Step | None:
    journal = seen.journal
    for at, (swap, one) in enumerate(zip(journal.swaps, seen.swaps, strict=True)):
        placed = bool(one.here) and one.here == swap.new_handle
        doubled = one.here == one.kept == swap.old_handle
        if swap.kept and not swap.unkept and doubled and not one.kept_users:
            return _early(journal, now) or Unkeep(at)
        if swap.new_handle and not swap.undone and not placed:
            return _gate(seen.plugins[swap.driver], doom=False) or _early(journal, now) or DeleteVolume(at)
    return None


def _told(seen: Observed, why: Failure) -> Failure:
    """The failure, with what is left of the revert."""
    left = [
        f"{swap.volume!r} is the restored volume still; its old one is registered as {swap.keep_as!r}"
        for swap, one in zip(seen.journal.swaps, seen.swaps, strict=True)
        if one.here and one.here == swap.new_handle
    ]
    return dataclasses.replace(why, message="; ".join((why.message, *left))) if left else why


# What both ways ask


def _moved(seen: Observed) -> bool:
    """A registration is away or new: then what is started meanwhile starts on the new volume."""
    return any(one.here != swap.old_handle for swap, one in zip(seen.journal.swaps, seen.swaps, strict=True))


def _elapsed(journal: Journal, phase: str, now: float) -> float:
    return now - journal.phase_at if journal.phase == phase else 0.0


def _early(journal: Journal, now: float, phase: str = "") -> Later | None:
    if not now < journal.retry_at <= now + RETRY_MOST_SECONDS:  # beyond it, the clock was set back
        return None
    return Later(journal.retry_at - now, str(journal.failure) if journal.failure else "backing off", phase)


def _gate(plugin: PluginView, *, doom: bool | None = None) -> Step | None:
    """Why no volume can be made or deleted now. `doom` None: nothing is done yet, so fail; False: wait for ever."""
    if not plugin.known or not plugin.healthy:
        return Later(backoff.UNKNOWN_PLUGIN_SECONDS, f"the plugin of {plugin.driver!r} does not serve")
    if plugin.can(Capability.CREATE_DELETE_VOLUME):
        return None
    why = f"the driver {plugin.driver!r} cannot make volumes (no CREATE_DELETE_VOLUME)"
    failure = Failure(FailureKind.REFUSED, "UNSUPPORTED", why)
    if doom is None:
        return Fail(failure)
    return Doom(failure) if doom else Later(backoff.UNKNOWN_PLUGIN_SECONDS, why)


def _other(swap: Swap, handle: str) -> Failure:
    held = repr(handle) if handle else "nothing"
    message = f"the volume {swap.volume!r} stands for {held} now, not for {swap.old_handle!r}"
    return Failure(FailureKind.REFUSED, "CONFLICT", message, "somebody else changed it; look at it and ask again")


def _meddled(workload: Workload, what: str) -> Failure:
    hint = "ask again when nobody else works on it"
    return Failure(FailureKind.REFUSED, "CONFLICT", f"{workload.name} {what}", hint)


# Outcomes


def fold_wait(journal: Journal, step: Later, now: float) -> Journal:
    """The journal while a wait with a limit goes on."""
    if not step.phase or step.phase == journal.phase:
        return journal
    return dataclasses.replace(journal, phase=step.phase, phase_at=now)


def intent(journal: Journal, step: Effect) -> Journal:
    """What must be on record before this step's effect leaves the process."""
    match step:
        case CreateVolume(at):
            return _swapped(journal, at, unsure=True)
        case Keep(at):
            return _swapped(journal, at, kept=True)
        case Pause():
            return dataclasses.replace(journal, pausing=True, paused=False, resumed=False, resuming=False)
        case Resume():
            return dataclasses.replace(journal, resuming=True)
        case _:
            return journal


def fold_failure(journal: Journal, step: Effect, failure: Failure, now: float, limits: Limits = STANDARD) -> Journal:
    """The journal after a failed step; `journal` is the one before its intent.

    Going forward, a refusal dooms it; going back, it is tried again.
    """
    failures = journal.failures + 1
    delay = backoff.retry_delay(failures, most_seconds=RETRY_MOST_SECONDS)
    after = dataclasses.replace(journal, failure=failure, failures=failures, retry_at=now + delay)
    refused = failure.kind is FailureKind.REFUSED and journal.doomed is None
    match step:
        case Pause():
            if failure.kind is FailureKind.UNSURE:
                after = dataclasses.replace(after, pausing=True, settle_until=now + limits.settle)
            return doom(after, failure) if refused else fold_wait(after, Later(0.0, "", "pause"), now)
        case CreateVolume(at):
            known = failure.kind is FailureKind.REFUSED and not journal.swaps[at].unsure
            return doom(after, failure) if known else _swapped(after, at, unsure=True)
        case Keep(at):
            # Refused means that this call registered nothing; what an earlier one may have stays on record as ours.
            return doom(after, failure) if refused else _swapped(after, at, kept=True)
        case Resume() if failure.kind is FailureKind.UNSURE:
            return dataclasses.replace(after, resuming=True)
        case Note() | Place() | Resume():
            return doom(after, failure) if refused else after
        case _:
            return after


def fold_noted(journal: Journal, workload: Workload | None) -> Journal:
    """The journal once it is known who uses the volumes."""
    return dataclasses.replace(_clean_slate(journal), noted=True, workload=workload)


def fold_done(journal: Journal, step: Effect, handle: str = "", context: Mapping[str, str] | None = None) -> Journal:
    """The journal after a step that was done; `handle` and `context` are a new volume's."""
    clean = _clean_slate(journal)
    match step:
        case CreateVolume(at):
            return _swapped(clean, at, new_handle=handle, context=dict(context or {}))
        case Keep(at):
            return _swapped(clean, at, kept=True)
        case Place(at, back):
            return clean if back else _swapped(clean, at, placed=True)
        case Pause():
            begun = intent(clean, step)
            return dataclasses.replace(begun, paused=True, settle_until=0.0)
        case Resume():
            return dataclasses.replace(clean, paused=False, resumed=True, resuming=True)
        case Unkeep(at):
            return _swapped(clean, at, unkept=True)
        case DeleteVolume(at):
            return _swapped(clean, at, undone=True)
        case _:
            return clean


def doom(journal: Journal, failure: Failure) -> Journal:
    """The journal of a revert that is taken back from now on."""
    return dataclasses.replace(journal, doomed=failure, failures=0, retry_at=0.0, phase="")


def stick(journal: Journal) -> Journal:
    """The journal of one that cannot be taken back whole."""
    return dataclasses.replace(journal, stuck=True)


def seen_paused(journal: Journal, state: WorkloadState | None) -> Journal:
    """A stop whose answer was lost and that is seen to have been done."""
    if journal.pausing and not journal.paused and not journal.resumed and state is WorkloadState.PAUSED:
        return dataclasses.replace(journal, paused=True, settle_until=0.0)
    return journal


def _clean_slate(journal: Journal) -> Journal:
    return dataclasses.replace(journal, failure=None, failures=0, retry_at=0.0, phase="")


def _swapped(journal: Journal, at: int, **changes: object) -> Journal:
    changed = dataclasses.replace(journal.swaps[at], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(journal, swaps=(*journal.swaps[:at], changed, *journal.swaps[at + 1 :]))
