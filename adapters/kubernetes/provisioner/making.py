"""Turns of claims: from a claim that wants a volume to the PersistentVolume, or to nothing left behind.

What must survive this process is on the claim: a finalizer from before the first CreateVolume until the
PersistentVolume is known to stand for the volume, or the volume is known not to be. What is kept here in memory may
be lost: it only shapes pauses, and says that a note may be taken off without asking the plugin again.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, assert_never

from adapters.kubernetes import metrics, names
from adapters.kubernetes.decide import persistent_volume, provision, source, topology, verdict
from adapters.kubernetes.decide.verdict import Ignored, Refusal, State
from adapters.kubernetes.provisioner import asking
from adapters.kubernetes.provisioner.holds import Holds
from adapters.kubernetes.provisioner.parts import Parts, about
from adapters.kubernetes.provisioner.scene import source_key
from bridge.model.failure import Failure
from bridge.model.outcome import Failed
from bridge.model.plugin import Capability
from bridge.model.volume import MadeVolume
from bridge.ports.loop import Loop
from bridge.ports.plugin import PluginCalls

Object = dict[str, Any]
log = logging.getLogger(__name__)

CLEAN_UP_TRIES = 5


@dataclasses.dataclass(slots=True)
class Memory:
    """What is remembered of one claim while this process runs."""

    failures: int = 0
    retry_at: float = 0.0
    told: str = ""
    settled: bool = False
    doubts: int = 0
    """Answers in a row, since nobody wants the volume, that are final and yet prove nothing."""
    asked: tuple[str, str] = ("", "")
    """The class's uid and the selected node of the call that failed: another is tried at once."""


class Making:
    """Looks at one claim at a time."""

    def __init__(
        self, parts: Parts, holds: Holds, options: provision.Options, rules: topology.Rules, *, identity: str
    ) -> None:
        self._parts = parts
        self._holds = holds
        self._options = options
        self._identity = identity
        self._asking = asking.Asking(parts, options, rules)
        self._memory: dict[str, Memory] = {}
        holds.settled = self._is_settled
        self.sources: Loop | None = None
        """Told when a source may have become free."""

    async def turn(self, uid: str) -> float | None:
        """One look. Returns when to look again; what fails on the way to the API server is the loop's to repeat."""
        claim = self._parts.scene.claims.by_uid(uid)
        if claim is None:
            self._memory.pop(uid, None)
            return None
        self._parts.check()
        memory = self._memory.setdefault(uid, Memory())
        klass = self._parts.scene.classes.get("", source.class_name(claim) or "")
        name = provision.volume_name(uid, self._options)
        volume = self._parts.scene.volumes.get("", name) if isinstance(name, str) else None
        step = provision.decide(provision.Seen(claim, klass, volume, memory.settled), self._options)
        match step:
            case provision.Rest():
                self._memory.pop(uid, None)
                return None
            case provision.Refuse(message, told):
                return await self._refused(claim, memory, message, told=told)
            case provision.LetGo(unsettled):
                await self._let_go(claim, unsettled=unsettled)
                return None
            case provision.Make(node):
                assert klass is not None
                return await self._make(claim, klass, memory, node)
            case provision.Undo(node):
                assert klass is not None
                return await self._undo(claim, klass, memory, node)
            case _:
                assert_never(step)

    def forget(self) -> None:
        """Another replica may have acted meanwhile: nothing counts as settled."""
        self._memory.clear()

    def _is_settled(self, uid: str) -> bool:
        memory = self._memory.get(uid)
        return memory is not None and memory.settled

    # -- making ----------------------------------------------------------------------------------------------------

    async def _make(self, claim: Object, klass: Object, memory: Memory, node: str) -> float | None:
        began = self._parts.clock.now()
        asked = (klass["metadata"]["uid"], node)
        if memory.asked == asked and began < memory.retry_at:
            return memory.retry_at - began
        noted = provision.is_noted(claim)
        repeat = noted and not memory.settled
        request = await self._asking.request(claim, klass, node, repeat=repeat)
        if isinstance(request, Ignored):
            await self._parts.events.tell(about(names.CLAIMS, claim), "Provisioning", request.message)
            return None
        if isinstance(request, Refusal):
            if request.state is State.RESCHEDULE and node and not repeat:
                await self._told(claim, request.message)
                await self._reschedule(claim)
                return None
            return await self._refused(claim, memory, request.message)
        calls = self._parts.calls()
        claim = await self._note(claim, request, memory, repeat=repeat)
        if memory.failures == 0 and memory.told != "Provisioning":
            memory.told = "Provisioning"
            where = f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
            text = f'External provisioner is provisioning volume for claim "{where}"'
            await self._parts.events.tell(about(names.CLAIMS, claim), "Provisioning", text)
        before = await self._hold(request, memory)
        outcome = await calls.create_volume(new=request.new, secrets=request.secrets)
        if isinstance(outcome, Failed):
            memory.asked = asked
            memory.settled = verdict.is_settled(outcome.failure.code, before=before)
            return await self._failed(claim, memory, outcome.failure, node, calls, request)
        await self._record(claim, klass, request, outcome.value, began)
        return None

    async def _hold(self, request: asking.Request, memory: Memory) -> bool:
        """The source, protected. From here on the claim counts as under way, so that nobody drops that again.

        Returns whether it counted as settled before.
        """
        before, memory.settled = memory.settled, False
        try:
            if request.origin is not None:
                await self._holds.take(request.origin)
            self._parts.check()
        except BaseException:
            memory.settled = before
            raise
        return before

    async def _note(self, claim: Object, request: asking.Request, memory: Memory, *, repeat: bool) -> Object:
        """The claim, noted: from now on it outlives whatever the plugin may make."""
        places = request.places_text
        noted = provision.is_noted(claim)
        if repeat or (noted and provision.notes(claim).get(names.PLACES, "") == places):
            return claim
        changed = provision.with_note(claim, self._parts.driver, places)
        written = await self._parts.writer.put(names.CLAIMS, changed)
        if not noted:
            memory.settled = True
        return written

    async def _record(
        self, claim: Object, klass: Object, request: asking.Request, volume: MadeVolume, began: float
    ) -> None:
        made = persistent_volume.Made(claim, klass, request.outline, volume, self._identity)
        body = persistent_volume.build(made, self._options)
        await self._parts.writer.create(names.VOLUMES, "", body)
        name = request.outline.name
        self._parts.meters.made(claim, self._parts.clock.now() - began)
        log.info("a volume is made", extra={"volume": name, "handle": volume.handle, "driver": self._parts.driver})
        await self._parts.events.tell(
            about(names.CLAIMS, claim), "ProvisioningSucceeded", f"Successfully provisioned volume {name}"
        )

    async def _failed(
        self,
        claim: Object,
        memory: Memory,
        failure: Failure,
        node: str,
        calls: PluginCalls,
        request: asking.Request,
    ) -> float | None:
        can = self._parts.view().capabilities
        places = Capability.VOLUME_ACCESSIBILITY_CONSTRAINTS in can
        state = verdict.state_after(failure.code, may_reschedule=places and bool(node))
        memory.failures += 1
        text = _rpc_text(failure)
        if failure.leftover:
            text += await self._clean_up(failure.leftover, calls, request)
        pause = self._parts.retry(memory.failures)
        if failure.code in verdict.SLOW:
            pause = max(pause, self._parts.slow_seconds)
            text = f"Volume provisioning failed with infeasible error. Retries will be delayed. {text}"
        await self._told(claim, text)
        if state is State.RESCHEDULE:
            await self._reschedule(claim)
            return None
        memory.retry_at = self._parts.clock.now() + pause
        return pause

    async def _clean_up(self, handle: str, calls: PluginCalls, request: asking.Request) -> str:
        """Delete what was made and is not what was asked. Returns what there is to say about it."""
        key = f"{self._parts.driver}/{handle}"
        if self._parts.scene.volumes.count("by-handle", key):
            return f". The volume {handle} is a PersistentVolume's: it was not deleted"
        trouble = ""
        for _ in range(CLEAN_UP_TRIES):
            outcome = await calls.delete_volume(handle=handle, secrets=request.secrets)
            if not isinstance(outcome, Failed):
                return ""
            trouble = _rpc_text(outcome.failure)
        return f". Cleanup of volume {request.outline.name} failed, volume is orphaned: {trouble}"

    # -- not making ------------------------------------------------------------------------------------------------

    async def _undo(self, claim: Object, klass: Object, memory: Memory, node: str) -> float | None:
        """Find what an unanswered call made, by the same call, and delete it."""
        now = self._parts.clock.now()
        if memory.asked == ("undo", "") and now < memory.retry_at:
            return memory.retry_at - now
        request = await self._asking.lenient(claim, klass, node)
        if isinstance(request, Refusal):
            return await self._refused(claim, memory, request.message)
        calls = self._parts.calls()
        outcome = await calls.create_volume(new=request.new, secrets=request.secrets)
        failure: Failure | None
        if isinstance(outcome, Failed):
            memory.doubts += 1
            failure = outcome.failure
            if failure.leftover:
                trouble = await self._clean_up(failure.leftover, calls, request)
                memory.settled = not trouble
            elif verdict.may_let_go(failure.code, memory.doubts):
                log.info(
                    "no volume was made for a claim that is gone",
                    extra={"volume": request.outline.name, "answer": str(failure)},
                )
                memory.settled = True
        else:
            failure = await self._delete(claim, request, outcome.value.handle, calls)
            memory.settled = failure is None
        if memory.settled:
            await self._let_go(claim, unsettled=False)
            return None
        assert failure is not None
        memory.failures += 1
        memory.asked, memory.retry_at = ("undo", ""), now + self._parts.retry(memory.failures)
        text = f"a volume that is not wanted any more cannot be deleted yet: {_rpc_text(failure)}"
        await self._told(claim, f'{text}. To leave it behind set the annotation {names.ABANDON}="true"')
        return self._parts.retry(memory.failures)

    async def _delete(
        self, claim: Object, request: asking.Request, handle: str, calls: PluginCalls
    ) -> Failure | None:
        """Delete the volume unless a PersistentVolume tells of it, which is then in charge of its end."""
        known = await self._parts.read(names.VOLUMES, "", request.outline.name)
        if known is not None or self._parts.scene.volumes.count("by-handle", f"{self._parts.driver}/{handle}"):
            return None
        outcome = await calls.delete_volume(handle=handle, secrets=request.secrets)
        if isinstance(outcome, Failed):
            return outcome.failure
        log.info("a volume that nobody wants any more is deleted", extra={"handle": handle})
        return None

    async def _let_go(self, claim: Object, *, unsettled: bool) -> None:
        """Take the note off."""
        if unsettled:
            text = "The claim is let go though a volume may have been made for it: look for it at the backend"
            await self._parts.events.warn(about(names.CLAIMS, claim), "VolumeMayBeLeftBehind", text)
        await self._parts.writer.put(names.CLAIMS, provision.without_note(claim))
        self._memory.pop(claim["metadata"]["uid"], None)
        self._freed(claim)

    async def _reschedule(self, claim: Object) -> None:
        """Ask the scheduler for another node. Nothing is at the plugin, so the note goes with the choice."""
        changed = provision.without_note(claim)
        marks = dict(changed["metadata"].get("annotations") or {})
        marks.pop(names.SELECTED_NODE, None)
        changed["metadata"]["annotations"] = marks
        await self._parts.writer.put(names.CLAIMS, changed)
        self._memory.pop(claim["metadata"]["uid"], None)
        self._freed(claim)

    def _freed(self, claim: Object) -> None:
        where = source.named(claim)
        if where is not None and self.sources is not None:
            self.sources.wake(source_key(where))

    async def _refused(self, claim: Object, memory: Memory, message: str, *, told: bool = True) -> float:
        """It cannot be made now: say so once, and look again later, or as soon as something changes."""
        now = self._parts.clock.now()
        if memory.told == message and now < memory.retry_at:
            return memory.retry_at - now
        memory.told = message
        memory.failures += 1
        pause = self._parts.retry(memory.failures)
        memory.retry_at, memory.asked = now + pause, ("", "")
        if told:
            await self._told(claim, message)
        else:
            log.warning("a claim cannot be served", extra={"claim": _name(claim), "error": message})
        return pause

    async def _told(self, claim: Object, message: str) -> None:
        self._parts.meters.not_made(claim)
        log.warning("provisioning failed", extra={"claim": _name(claim), "error": message})
        await self._parts.events.warn(about(names.CLAIMS, claim), "ProvisioningFailed", message)


def _name(claim: Object) -> str:
    return f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"


def _rpc_text(failure: Failure) -> str:
    """A failure as upstream's events show it, for those who search for the text."""
    if not failure.code or failure.code in verdict.WRONG_ANSWER:
        return str(failure)
    text = f"rpc error: code = {metrics.code_name(failure.code)} desc = {failure.message}"
    return f"{text}. {failure.hint}" if failure.hint else text
