"""One freeze of one task, carried out: the steps of decide/quiesce.py as writes to the book and commands in the task.

Its note is an operation of the verb `freeze`, so people see it in `op list`, and a process that starts finds those
that are still running. Nothing here chooses an order.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable

from adapters.nomad import exec as tasks
from adapters.nomad.client import Client, part
from adapters.nomad.decide import freeze_lines, quiesce
from adapters.nomad.decide.quiesce import Do, Event, State
from adapters.nomad.errors import AnswerError
from adapters.nomad.exec import ExecError
from bridge.model.failure import BridgeError, Failure, FailureKind, UnavailableError
from bridge.model.operation import Operation, OperationState, Step
from bridge.ports.clock import Clock
from bridge.ports.guard import FREEZE
from bridge.ports.ledger import Book

log = logging.getLogger(__name__)

THAW_SECONDS = 30.0
_NOTE_SECONDS = 10.0
_LIVE = ("pending", "running", "unknown")
"""`unknown`: its client is not heard of; its tasks run on, and it may come back."""
_UNDER_WAY = (State.NOTING, State.FREEZING, State.THAWING, State.CLOSING)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What is frozen, and how."""

    namespace: str
    job: str
    allocation: str
    task: str
    freeze: str
    thaw: str
    seconds: int

    def __str__(self) -> str:
        return f"task {self.task!r} of job {self.job!r} (allocation {self.allocation[:8]})"


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """What a freeze needs."""

    cluster: str
    client: Client
    book: Book
    clock: Clock


class Freezing:
    """One freeze, from its note to the end of its note. `why` says what went wrong last."""

    def __init__(self, means: Means, target: Target, note: Operation, *, is_found: bool = False) -> None:
        self._means = means
        self._note = note
        self.target = target
        self.state = State.NEW
        self.why = ""
        self.lost = ""
        """Why it was over before it was thawed: what was cut under it is not what it seems."""
        self._is_found = is_found

    @classmethod
    def new(cls, means: Means, target: Target, freeze_id: str, what_for: str) -> Freezing:
        """A freeze that has not begun."""
        now = means.clock.now()
        arguments = {
            "job": target.job, "allocation": target.allocation, "task": target.task, "thaw": target.thaw,
            "seconds": str(target.seconds),
        }  # fmt: skip
        place = (means.cluster, target.namespace, what_for)
        note = Operation(freeze_id, FREEZE, *place, OperationState.RUNNING, now, now, "snapbridge", arguments)
        return cls(means, target, note)

    @classmethod
    def found(cls, means: Means, note: Operation) -> Freezing:
        """The freeze of a process that is no more: it owes a thaw."""
        given = note.arguments
        target = Target(
            namespace=note.namespace,
            job=given.get("job", ""),
            allocation=given.get("allocation", ""),
            task=given.get("task", ""),
            freeze="",
            thaw=given.get("thaw", ""),
            seconds=int(given.get("seconds", "0")),
        )
        return cls(means, target, note, is_found=True)

    @property
    def is_frozen(self) -> bool:
        return self.state is State.FROZEN

    @property
    def is_over(self) -> bool:
        """Whether nothing is owed: it was thawed, or nothing was ever begun."""
        return self.state is State.OVER or (self.state is State.NEW and not self._is_found)

    async def freeze(self) -> None:
        """Note and freeze. In the end it is frozen, or it is not and `why` says why; it may then owe a thaw."""
        await self._drive(Event.BEGIN)

    async def release(self, event: Event = Event.DONE) -> None:
        """Thaw, if it is frozen or owes it; whatever goes wrong, the note stays and it may be called again."""
        if self.state in _UNDER_WAY:  # an error of our own broke the step off: nobody knows what it did
            self.state = State.OWED
        if self.state is State.OWED:
            await self._drive(Event.BEGIN)
        elif self.state is State.NEW and self._is_found:
            await self._drive(Event.FOUND)
        elif self.state is State.FROZEN:
            await self._drive(event)

    async def _drive(self, event: Event) -> None:
        """Step after step. Cancelled, it takes the way to the thaw first; cancelled again, the thaw stays owed."""
        effects: dict[Do, Callable[[], Awaitable[Event]]] = {
            Do.WRITE_NOTE: self._write_note,
            Do.FREEZE: self._freeze,
            Do.THAW: self._thaw,
            Do.DROP_NOTE: self._drop_note,
        }
        cancelled: asyncio.CancelledError | None = None
        while True:
            self.state, do = quiesce.step(self.state, event)
            if do not in effects:
                break
            try:
                event = await effects[do]()
            except asyncio.CancelledError as error:
                cancelled, event = error, Event.STOPPED
                self.why = self.why or f"stopped while it was to {do.value}"
        if cancelled is not None:
            if self.is_frozen:
                await self._drive(Event.STOPPED)
            raise cancelled

    async def _write_note(self) -> Event:
        return await self._put(self._note)

    async def _drop_note(self) -> Event:
        now = self._means.clock.now()
        steps = (*self._note.steps, Step("thawed", now))
        failure = Failure(FailureKind.REFUSED, "NOT_FROZEN", self.why) if self.why else None
        ended = OperationState.FAILED if failure is not None else OperationState.DONE
        if not self._note.version:
            return Event.DONE  # it was never written
        note = dataclasses.replace(self._note, state=ended, steps=steps, failure=failure, updated_at=now)
        event = await self._put(note)
        return Event.DONE if event is Event.FAILED and await self._is_dropped() else event

    async def _is_dropped(self) -> bool:
        """After a failed write: whether it was done all the same. If not, the next one starts from what is there."""
        try:
            async with asyncio.timeout(_NOTE_SECONDS):
                there = await self._means.book.operation(self._note.id)
        except (BridgeError, TimeoutError):
            return False
        if there is None:
            return True
        self._note = dataclasses.replace(self._note, version=there.version)
        return there.state is not OperationState.RUNNING

    async def _put(self, note: Operation) -> Event:
        try:
            async with asyncio.timeout(_NOTE_SECONDS):
                self._note = await self._means.book.put_operation(note)
        except (BridgeError, TimeoutError) as error:
            self.why = f"the note of the freeze could not be kept: {error}"
            return Event.FAILED
        return Event.DONE

    async def _freeze(self) -> Event:
        target = self.target
        argv = freeze_lines.freeze(self._note.id, target.freeze, target.thaw, target.seconds)
        event = await self._run(argv, "freeze", target.seconds)
        if event is Event.DONE:
            self._note = dataclasses.replace(
                self._note, steps=(*self._note.steps, Step("frozen", self._means.clock.now()))
            )
        return event

    async def _thaw(self) -> Event:
        argv = freeze_lines.thaw(self._note.id, self.target.thaw)
        before, event = self.why, await self._run(argv, "thaw", THAW_SECONDS)
        if event is Event.FAILED and await self._is_gone():
            event = Event.GONE
            self.lost = f"{self.target} ended while it was frozen"
        if event is not Event.FAILED:
            self.why = before  # why it was not frozen; that a thaw had failed once is over
        return event

    async def _run(self, argv: list[str], what: str, seconds: float) -> Event:
        target = self.target
        try:
            ran = await tasks.run(
                self._means.client, target.namespace, target.allocation, target.task, argv, timeout_seconds=seconds
            )
        except ExecError as error:
            self.why = f"the {what} in {target} failed: {error}"
        else:
            if ran.exit_code == 0:
                if ran.output.endswith(freeze_lines.LOST):
                    self.lost = f"{target} was thawed by something else before"
                return Event.DONE
            said = f": {ran.output[-300:]}" if ran.output else ""
            late = " (its time was over when it ended)" if ran.exit_code == freeze_lines.LATE else ""
            self.why = f"the {what} in {target} ended with exit code {ran.exit_code}{late}{said}"
        log.warning("%s", self.why)
        return Event.FAILED

    async def _is_gone(self) -> bool:
        """Whether the allocation has ended for good. A task that only restarts is waited for."""
        try:
            row = (await self._means.client.get(f"/v1/allocation/{part(self.target.allocation)}")).data
        except AnswerError as error:
            return error.status == 404
        except UnavailableError:
            return False
        return row.get("ClientStatus") not in _LIVE
