"""Restores and clones: the operation's row is the journal; each step is saved before the next begins."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import Mapping

from bridge.decide import backoff, names
from bridge.decide import restore as decide
from bridge.model.failure import (
    ConflictError,
    Failure,
    FailureKind,
    InvalidError,
    NotFoundError,
)
from bridge.model.keys import Key
from bridge.model.operation import Operation, OperationState
from bridge.model.outcome import Failed, Outcome
from bridge.model.secret import NO_SECRET
from bridge.model.snapshot import HandleSource, VolumeSource
from bridge.model.view import RestoreDraft
from bridge.model.volume import MadeVolume, Volume, VolumeShape
from bridge.ports.identity import Caller
from bridge.service import operations as ops
from bridge.service import shapes, work
from bridge.service.admission import Hold
from bridge.service.catalogue import Catalogue
from bridge.service.lane import Lane
from bridge.service.new_volumes import CALLED, Asking, NewVolumes, Wanted, source_of
from bridge.service.saga import Saga, key_of

log = logging.getLogger(__name__)
ANYONE = Caller("service")
JOURNAL = "journal"


class Restores:
    """Runs the operations that make a volume from a snapshot or from another one, a few at a time."""

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        catalogue: Catalogue,
        operations: ops.Operations,
        tools: work.Tools,
        *,
        workers: int = 4,
    ) -> None:
        self._lanes = lanes
        self._catalogue = catalogue
        self._operations = operations
        self._tools = tools
        self._new = NewVolumes(tools)
        self._sagas = {
            verb: Saga(verb, self._turn, operations, tools.clock, workers=workers)
            for verb in (ops.RESTORE, ops.CLONE)
        }
        for verb, saga in self._sagas.items():
            tools.admission.listen(saga.wake_key, verb)

    def busy(self, key: Key) -> str:
        """A sentence when a restore reads this snapshot now."""
        for operation in self._operations.running(ops.RESTORE):  # a clone reads no snapshot
            if operation.arguments.get("key") == str(key):
                return f"restore {operation.id} reads it"
        return ""

    def wake(self, operation: Operation) -> None:
        """Have the operation looked at soon."""
        self._sagas[operation.verb].wake(operation)

    async def run(self) -> None:
        """Work until cancelled; what was running at the last stop is resumed."""
        async with asyncio.TaskGroup() as group:
            for verb, saga in self._sagas.items():
                group.create_task(saga.run(), name=f"{verb}s")

    async def _turn(self, operation_id: str) -> float | None:
        """One step; the seconds until the next, or None when the operation has ended."""
        operation = await self._operations.get(operation_id)
        if operation.state is not OperationState.RUNNING:
            return None
        lane = self._lanes.get(operation.cluster)
        if lane is None:
            log.warning("a restore's cluster is not configured", extra={"operation": operation_id})
            return backoff.RETRY_MOST_SECONDS
        seen = await self._observe(operation, lane)
        step = decide.decide(seen, self._tools.clock.now())
        match step:
            case decide.Succeed():
                await self._end(operation, OperationState.DONE, None)
                return None
            case decide.Fail(failure):
                await self._end(operation, OperationState.FAILED, failure)
                return None
            case decide.Later(seconds, why):
                await self._save(operation, seen.journal, f"waiting: {why}")
                return seconds
            case _:
                after = await self._perform(operation, lane, seen, step)
                if isinstance(after, Hold):
                    if after.why:
                        await self._save(operation, seen.journal, f"waiting: {after.why}")
                    return after.seconds
                await self._save(operation, after, _words(step))
                return 0.0

    async def _observe(self, operation: Operation, lane: Lane) -> decide.Observed:
        arguments = operation.arguments
        try:
            taken = (await lane.orchestrator.volumes.find(operation.namespace, arguments["name"])).handle
        except (NotFoundError, InvalidError):
            taken = ""
        return decide.Observed(
            journal_of(operation),
            await self._content(operation),
            lane.of(self._tools.plugins).view(arguments["driver"]),
            taken,
            name=names.restore_name(operation.id),
            abandoned=arguments.get("abandon") == "true",
        )

    async def _content(self, operation: Operation) -> HandleSource | VolumeSource | None:
        """What to make it from; None when the snapshot is gone or not ready."""
        if operation.verb == ops.CLONE:
            return VolumeSource(operation.arguments["content"])
        try:
            status = (await self._catalogue.find(ANYONE, operation.arguments["key_ref"], whole=True)).status
        except NotFoundError:
            return None
        return HandleSource(status.handle) if status.ready else None

    async def _perform(
        self, operation: Operation, lane: Lane, seen: decide.Observed, step: decide.Step
    ) -> decide.Journal | Hold:
        """The journal after the step, or how long its call has to wait."""
        now = self._tools.clock.now
        match step:
            case decide.CreateVolume(content):
                return await self._create(operation, lane, seen.journal, step, content)
            case decide.Register(handle):
                volume, like = await self._volume(operation, lane, handle)
                try:
                    await lane.orchestrator.volumes.register(volume, like)
                except (ConflictError, InvalidError) as error:
                    failure = Failure(FailureKind.REFUSED, error.code, error.message, error.hint)
                    return decide.fold_failure(seen.journal, step, failure, now())
                return decide.fold_done(seen.journal, step)
            case decide.DeleteVolume(handle):
                volume, _ = await self._volume(operation, lane, handle)
                asking = self._asking(operation, seen.journal, "undoing")
                driver = operation.arguments["driver"]
                gone = await self._new.delete(lane, driver, handle, volume.secret, asking=asking)
                return gone if isinstance(gone, Hold) else _folded(seen.journal, step, gone, now())
            case _:
                raise AssertionError("this step has no effect")

    async def _create(
        self,
        operation: Operation,
        lane: Lane,
        journal: decide.Journal,
        step: decide.Step,
        content: HandleSource | VolumeSource,
    ) -> decide.Journal | Hold:
        """The journal says "unsure" before the call leaves, so that a crash here forgets nothing."""
        source, _ = await self._volume(operation, lane, "")
        restores = operation.verb == ops.RESTORE
        cut_from = await source_of(lane, Key.parse(operation.arguments["key"])) if restores else ""
        asking = self._asking(operation, dataclasses.replace(journal, unsure=True), "creating the volume")
        outcome = await self._new.create(
            lane,
            source,
            Wanted(names.restore_name(operation.id), content, cut_from),
            asking=dataclasses.replace(asking, noted=journal.unsure),
        )
        return outcome if isinstance(outcome, Hold) else _folded(journal, step, outcome, self._tools.clock.now())

    def _asking(self, operation: Operation, journal: decide.Journal, words: str) -> Asking:
        """`journal` is what must be on record before the call leaves."""

        async def note(called: str) -> None:
            await self._save(operation, journal, words, called)

        return Asking(key_of(operation), operation.result.get(CALLED, ""), note)

    async def _volume(self, operation: Operation, lane: Lane, handle: str) -> tuple[Volume, Volume | None]:
        """The volume to be, and the source's description where it still exists."""
        arguments = operation.arguments
        like: Volume | None
        try:
            like = await lane.orchestrator.volumes.find(arguments["source_namespace"], arguments["volume"])
        except (NotFoundError, InvalidError):
            like = None
        shape = _shape(operation, like)
        volume = Volume(
            cluster=operation.cluster,
            namespace=operation.namespace,
            name=arguments["name"],
            driver=arguments["driver"],
            handle=handle or "-",
            capacity_bytes=shape.capacity_bytes,
            mode=shape.mode,
            access_modes=shape.access_modes,
            fs_type=shape.fs_type,
            parameters=shape.parameters,
            context=journal_of(operation).context,
            secret=shape.secret,
            accessible=shape.accessible,
        )
        return volume, like

    async def _save(self, operation: Operation, journal: decide.Journal, words: str, called: str = "") -> None:
        """Write the journal; the in-memory copy follows."""
        fresh = await self._operations.get(operation.id)
        now = self._tools.clock.now()
        noted = {CALLED: called} if called else {}
        await self._operations.put(
            dataclasses.replace(
                fresh,
                updated_at=now,
                failure=journal.failure,
                steps=ops.step_added(fresh.steps, words, now),
                result={**fresh.result, **noted, JOURNAL: dump(journal), "handle": journal.handle},
            )
        )

    async def _end(self, operation: Operation, state: OperationState, failure: Failure | None) -> None:
        now = self._tools.clock.now()
        if failure is not None and failure.leftover:
            detail = {"orphan": failure.leftover, "driver": operation.arguments["driver"], "operation": operation.id}
            await self._operations.audit(operation.target, "orphan", detail)
        own = (JOURNAL, CALLED)
        result = {name: value for name, value in operation.result.items() if name not in own and value}
        result["volume"] = operation.arguments["name"]
        await self._operations.put(
            dataclasses.replace(
                operation,
                state=state,
                failure=failure,
                updated_at=now,
                steps=ops.step_added(operation.steps, state.value, now),
                result=result if state is OperationState.DONE else {},
            )
        )


def journal_of(operation: Operation) -> decide.Journal:
    """Read the journal back from the operation's row."""
    text = operation.result.get(JOURNAL)
    if not text:
        return decide.Journal()
    values = json.loads(text)
    for field in ("failure", "doomed"):
        if values[field] is not None:
            values[field]["kind"] = FailureKind(values[field]["kind"])
            values[field] = Failure(**values[field])
    return decide.Journal(**values)


def dump(journal: decide.Journal) -> str:
    """The journal as JSON."""
    values = dataclasses.asdict(journal)
    for field in ("failure", "doomed"):
        if values[field] is not None:
            values[field]["kind"] = values[field]["kind"].value
    return json.dumps(values, sort_keys=True)


def _folded(
    journal: decide.Journal, step: decide.Step, outcome: Outcome[MadeVolume | None], now: float
) -> decide.Journal:
    if isinstance(outcome, Failed):
        return decide.fold_failure(journal, step, outcome.failure, now)
    made = outcome.value
    return decide.fold_done(journal, step, made.handle, made.context) if made else decide.fold_done(journal, step)


def _shape(operation: Operation, like: Volume | None) -> VolumeShape:
    """As it was written when the operation began. One from before there was such a text is put together as then."""
    arguments = operation.arguments
    if "shape" in arguments:
        return shapes.from_text(arguments["shape"])
    draft = RestoreDraft(
        arguments["name"],
        capacity_bytes=int(arguments["capacity_bytes"]),
        parameters=json.loads(arguments["parameters"]),
    )
    return shapes.choose(draft, None, like, least_bytes=int(arguments["size_bytes"]), secret=NO_SECRET)


def _words(step: decide.Step) -> str:
    words = {
        decide.CreateVolume: "volume created",
        decide.Register: "volume registered",
        decide.DeleteVolume: "undone",
    }
    return words[type(step)]
