"""In-place reverts: the operation's row is the journal. What a step needs to be found again is saved before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bridge.decide import backoff, names
from bridge.decide import revert as decide
from bridge.model.failure import (
    BridgeError,
    ElsewhereError,
    Failure,
    FailureKind,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from bridge.model.keys import Key
from bridge.model.operation import Operation, OperationState
from bridge.model.outcome import Failed
from bridge.model.revert import Swap, Workload
from bridge.model.secret import NO_SECRET, SecretRef
from bridge.model.snapshot import HandleSource
from bridge.model.volume import Volume
from bridge.ports.identity import Caller
from bridge.ports.workloads import Workloads
from bridge.service import operations as ops
from bridge.service import revert_journal, work
from bridge.service.admission import Hold
from bridge.service.catalogue import Catalogue
from bridge.service.lane import Lane
from bridge.service.new_volumes import CALLED, Asking, NewVolumes, Wanted, ask_fence, source_of
from bridge.service.saga import Saga, key_of

ANYONE = Caller("service")


class Reverts:
    """Runs the revert operations, a few at a time."""

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        catalogue: Catalogue,
        operations: ops.Operations,
        tools: work.Tools,
        *,
        limits: decide.Limits = decide.STANDARD,
    ) -> None:
        self._lanes = lanes
        self._catalogue = catalogue
        self._operations = operations
        self._tools = tools
        self._limits = limits
        self._new = NewVolumes(tools)
        self._saga = Saga(ops.REVERT, self.turn, operations, tools.clock, workers=4)
        tools.admission.listen(self._saga.wake_key, ops.REVERT)

    def busy(self, key: Key) -> str:
        """A sentence when a revert reads this snapshot now."""
        for operation in self._operations.running(ops.REVERT):
            if any(swap.snapshot == key.uid for swap in revert_journal.load(operation).swaps):
                return f"revert {operation.id} reads it"
        return ""

    def wake(self, operation: Operation) -> None:
        """Have the operation looked at soon."""
        self._saga.wake(operation)

    async def run(self) -> None:
        """Work until cancelled; what was running at the last stop is resumed."""
        await self._saga.run()

    async def turn(self, operation_id: str) -> float | None:
        """One step; the seconds until the next, or None when the operation has ended."""
        operation = await self._operations.get(operation_id)
        if operation.state is not OperationState.RUNNING:
            return None
        lane = self._lanes.get(operation.cluster)
        if lane is None or lane.workloads is None:
            return backoff.RETRY_MOST_SECONDS
        seen = await self._observe(operation, lane, lane.workloads)
        now = self._tools.clock.now()
        step = decide.decide(seen, now, self._limits)
        match step:
            case decide.Succeed(left):
                await self._end(operation, seen.journal, None, left)
            case decide.Fail(failure):
                await self._end(operation, seen.journal, failure, "")
            case decide.Later(seconds, why):
                await self._save(operation, decide.fold_wait(seen.journal, step, now), f"waiting: {why}")
                return seconds
            case decide.Doom(failure):
                await self._save(operation, decide.doom(seen.journal, failure), "taking it back", str(failure))
                return 0.0
            case decide.Stick():
                await self._save(operation, decide.stick(seen.journal), "the claims do not go")
                return 0.0
            case _:
                return await self._carry_out(operation, _Ports(lane, lane.workloads), seen.journal, step)
        return None

    # Observing

    async def _observe(self, operation: Operation, lane: Lane, workloads: Workloads) -> decide.Observed:
        journal = revert_journal.load(operation)
        swaps = [await self._seen(operation, lane, swap) for swap in journal.swaps]
        state = None
        if journal.workload is not None:
            state = await workloads.look(operation.namespace, journal.workload)
        able = lane.of(self._tools.plugins)
        plugins = {swap.driver: able.view(swap.driver) for swap in journal.swaps}
        return decide.Observed(decide.seen_paused(journal, state), tuple(swaps), plugins, state)

    async def _seen(self, operation: Operation, lane: Lane, swap: Swap) -> decide.SeenSwap:
        here = await _find(lane, operation.namespace, swap.volume)
        kept = await _find(lane, operation.namespace, swap.keep_as)
        return decide.SeenSwap(
            here=here.handle if here else "",
            users=here.users if here else (),
            kept=kept.handle if kept else "",
            kept_users=kept.users if kept else (),
            ready=bool(swap.new_handle) or bool(await self._snapshot_handle(swap)),
        )

    async def _snapshot_handle(self, swap: Swap) -> str:
        try:
            status = (await self._catalogue.find(ANYONE, swap.snapshot, whole=True)).status
        except NotFoundError:
            return ""
        return status.handle if status.ready else ""

    # Steps

    async def _carry_out(
        self, operation: Operation, ports: _Ports, journal: decide.Journal, step: decide.Effect
    ) -> float:
        """Take the step; the seconds until the next one."""
        for swap in journal.swaps:
            ask_fence(ports.lane, swap.driver)
        intended = decide.intent(journal, step)
        if intended != journal and not isinstance(step, decide.CreateVolume):  # that is noted once it is admitted
            await self._save(operation, intended, _intention(step))
        now = self._tools.clock.now
        try:
            performed = await self._perform(operation, ports, journal, step)
            if isinstance(performed, Hold):
                if performed.why:
                    await self._save(operation, journal, f"waiting: {performed.why}")
                return performed.seconds
            after = performed
        except ElsewhereError:
            raise
        except UnavailableError as error:
            after = decide.fold_failure(journal, step, _failure(error, FailureKind.UNSURE), now(), self._limits)
        except BridgeError as error:
            after = decide.fold_failure(journal, step, _failure(error, FailureKind.REFUSED), now(), self._limits)
        done = after.failure is None and after.doomed == journal.doomed
        await self._save(operation, after, _words(step) if done else f"{_intention(step)} failed", _why(after))
        return 0.0

    async def _perform(
        self, operation: Operation, ports: _Ports, journal: decide.Journal, step: decide.Effect
    ) -> decide.Journal | Hold:
        namespace, workload = operation.namespace, journal.workload
        match step:
            case decide.Note():
                found = await self._note(operation, ports.workloads, journal)
                return decide.fold_noted(journal, found)
            case decide.CreateVolume(at):
                return await self._create(operation, ports.lane, journal, step, journal.swaps[at])
            case decide.DeleteVolume(at):
                return await self._delete(operation, ports.lane, journal, step, journal.swaps[at])
            case decide.Pause(again):
                assert workload is not None
                await ports.workloads.pause(namespace, workload, again=again)
            case decide.Resume(back):
                assert workload is not None
                await ports.workloads.resume(namespace, workload, back=back)
            case decide.Keep(at):
                swap = journal.swaps[at]
                await self._register(operation, ports.lane, swap.keep_as, swap.old_handle, swap.volume)
            case decide.Place(at, back):
                swap = journal.swaps[at]
                handle = swap.old_handle if back else swap.new_handle
                context = None if back else swap.context
                await self._register(operation, ports.lane, swap.volume, handle, swap.keep_as, context)
            case decide.Forget(at):
                await ports.lane.orchestrator.volumes.forget(namespace, journal.swaps[at].volume)
            case decide.Unkeep(at):
                await ports.lane.orchestrator.volumes.forget(namespace, journal.swaps[at].keep_as)
        return decide.fold_done(journal, step)

    async def _note(self, operation: Operation, workloads: Workloads, journal: decide.Journal) -> Workload | None:
        given = operation.arguments
        return await workloads.note(
            operation.namespace,
            [swap.volume for swap in journal.swaps],
            mark=operation.id,
            name=given["workload"],
            version=given["version"],
        )

    async def _create(
        self, operation: Operation, lane: Lane, journal: decide.Journal, step: decide.Effect, swap: Swap
    ) -> decide.Journal | Hold:
        here = await lane.orchestrator.volumes.find(operation.namespace, swap.volume)
        view = await self._catalogue.find(ANYONE, swap.snapshot, whole=True)
        capacity = max(view.status.size_bytes or 0, here.capacity_bytes or 0)
        shape = dataclasses.replace(here, capacity_bytes=capacity, context={}, users=())
        name = names.restore_name(f"{operation.id}-{journal.swaps.index(swap)}")
        cut_from = await source_of(self._lanes[view.key.cluster], view.key)
        outcome = await self._new.create(
            lane,
            shape,
            Wanted(name, HandleSource(view.status.handle), cut_from),
            asking=dataclasses.replace(self._asking(operation, journal, step), noted=swap.unsure),
        )
        if isinstance(outcome, Hold):
            return outcome
        if isinstance(outcome, Failed):
            return decide.fold_failure(journal, step, outcome.failure, self._tools.clock.now(), self._limits)
        return decide.fold_done(journal, step, outcome.value.handle, outcome.value.context)

    async def _delete(
        self, operation: Operation, lane: Lane, journal: decide.Journal, step: decide.Effect, swap: Swap
    ) -> decide.Journal | Hold:
        secret = SecretRef.parse(swap.secret) if swap.secret else NO_SECRET
        asking = self._asking(operation, journal, step)
        outcome = await self._new.delete(lane, swap.driver, swap.new_handle, secret, asking=asking)
        if isinstance(outcome, Hold):
            return outcome
        if isinstance(outcome, Failed):
            return decide.fold_failure(journal, step, outcome.failure, self._tools.clock.now(), self._limits)
        return decide.fold_done(journal, step)

    def _asking(self, operation: Operation, journal: decide.Journal, step: decide.Effect) -> Asking:
        async def note(called: str) -> None:
            await self._save(operation, decide.intent(journal, step), _intention(step), called=called)

        return Asking(key_of(operation), operation.result.get(CALLED, ""), note)

    async def _register(
        self,
        operation: Operation,
        lane: Lane,
        name: str,
        handle: str,
        pattern: str,
        context: Mapping[str, str] | None = None,
    ) -> None:
        """Register a handle under a name, like the registration `pattern`, which is there now.

        `context`: what the driver gave for a volume of its own; None keeps the pattern's.
        """
        like = await lane.orchestrator.volumes.find(operation.namespace, pattern)
        volume = dataclasses.replace(like, name=name, handle=handle, users=())
        if context is not None:
            volume = dataclasses.replace(volume, context=context)
        await lane.orchestrator.volumes.register(volume, like)

    # The row

    async def _save(
        self, operation: Operation, journal: decide.Journal, words: str, note: str = "", *, called: str = ""
    ) -> None:
        fresh = await self._operations.get(operation.id)
        now = self._tools.clock.now()
        steps = ops.step_added(fresh.steps, words, now, note)
        noted = {CALLED: called} if called else {}
        result = {**fresh.result, **noted, revert_journal.JOURNAL: revert_journal.dump(journal)}
        if steps == fresh.steps and result == dict(fresh.result):
            return
        failure = journal.failure or journal.doomed
        await self._operations.put(
            dataclasses.replace(fresh, updated_at=now, failure=failure, steps=steps, result=result)
        )

    async def _end(self, operation: Operation, journal: decide.Journal, failure: Failure | None, left: str) -> None:
        now = self._tools.clock.now()
        state = OperationState.DONE if failure is None else OperationState.FAILED
        await self._operations.put(
            dataclasses.replace(
                operation,
                state=state,
                failure=failure,
                updated_at=now,
                steps=ops.step_added(operation.steps, state.value, now, left),
                result=_result(journal) if failure is None or journal.stuck else {},
            )
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Ports:
    lane: Lane
    workloads: Workloads


async def _find(lane: Lane, namespace: str, name: str) -> Volume | None:
    try:
        return await lane.orchestrator.volumes.find(namespace, name)
    except (NotFoundError, InvalidError):
        return None


def _result(journal: decide.Journal) -> dict[str, str]:
    """What people ask for first, and all of it for the acknowledgement."""
    return {
        "volume": ", ".join(swap.volume for swap in journal.swaps),
        "handle": ", ".join(swap.new_handle for swap in journal.swaps),
        "kept": ", ".join(swap.keep_as for swap in journal.swaps),
        "kept_handle": ", ".join(swap.old_handle for swap in journal.swaps),
        revert_journal.SWAPS: revert_journal.dump_swaps(journal.swaps),
    }


def _failure(error: BridgeError, kind: FailureKind) -> Failure:
    return Failure(kind, error.code, error.message, error.hint)


def _why(journal: decide.Journal) -> str:
    return str(journal.failure) if journal.failure else ""


def _intention(step: decide.Effect) -> str:
    return {
        decide.Note: "looking who uses it",
        decide.CreateVolume: "creating the restored volume",
        decide.Keep: "keeping the old volume",
        decide.Pause: "stopping",
        decide.Forget: "taking the registration away",
        decide.Place: "registering",
        decide.Resume: "starting",
        decide.Unkeep: "forgetting the second name",
        decide.DeleteVolume: "deleting the restored volume",
    }[type(step)]


def _words(step: decide.Effect) -> str:
    if isinstance(step, decide.Place):
        return "old volume registered again" if step.back else "restored volume registered"
    return {
        decide.Note: "checked",
        decide.CreateVolume: "restored volume created",
        decide.Keep: "old volume kept under its second name",
        decide.Pause: "stopped",
        decide.Forget: "registration taken away",
        decide.Resume: "started",
        decide.Unkeep: "second name forgotten",
        decide.DeleteVolume: "restored volume deleted",
    }[type(step)]
