"""The guard around a cut on Nomad: the tasks that write to a volume are frozen before it and thawed after it.

Which tasks those are is read from the running allocations that claim the volume, at the cut. What is frozen is
always thawed: after the cut, after any failure, when the time is up, after a crash (the notes in the book), and by
the switch that each freeze leaves in its task.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import uuid
import weakref
from collections.abc import Iterable, Sequence

from adapters.nomad.decide.quiesce import Event
from adapters.nomad.freezing import Freezing, Means, Target
from adapters.nomad.writers import Writers
from bridge.model.failure import BridgeError, ConflictError, Failure, FailureKind
from bridge.model.snapshot import SnapshotRequest
from bridge.ports.guard import (
    CONSISTENCY,
    CONSISTENCY_WHY,
    FREEZE,
    NOT_QUIESCED,
    QUIESCE_UNAVAILABLE,
    CutEnd,
    Hold,
)

log = logging.getLogger(__name__)

WHY = CONSISTENCY_WHY
QUIESCED, CRASH_CONSISTENT = "quiesced", "crash-consistent"
RETRY_SECONDS = 5.0
PAUSE_FIRST_SECONDS, PAUSE_MOST_SECONDS = 10.0, 300.0
"""A freeze that failed is not tried again at once: the snapshot's own first pauses would stall its task."""
_MARGIN_SECONDS = 2.0
_MOST_NOTES = 100_000
_MOST_WHY = 300
_LABEL_TRIES = 10


@dataclasses.dataclass(slots=True)
class Held:
    """The `Hold` of this guard."""

    requests: Sequence[SnapshotRequest]
    freezings: list[Freezing] = dataclasses.field(default_factory=list)
    locks: contextlib.AsyncExitStack = dataclasses.field(default_factory=contextlib.AsyncExitStack)
    limit: float = 0.0
    """On the loop's clock; the writers are let go then."""
    why: str = ""
    """Why the copy is not a quiesced one, as far as it is known before it is made."""
    is_up: bool = False
    watch: asyncio.Task[None] | None = None

    def seconds_left(self) -> float:
        """See the port."""
        if self.is_up or not any(one.is_frozen for one in self.freezings):
            return 0.0
        return max(0.0, self.limit - asyncio.get_running_loop().time())


class Quiescer:
    """Implements bridge.ports.guard.Guard for one cluster."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._writers = Writers(means.client)
        self._locks: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = weakref.WeakValueDictionary()
        self._owed: dict[tuple[str, str], list[Freezing]] = {}
        self._failed: dict[Target, tuple[int, float, str]] = {}
        self._loading = asyncio.Lock()
        self._loaded = False
        self._bell = asyncio.Event()

    def problems(self) -> Sequence[str]:
        """Tasks that could not be thawed yet."""
        return [f"not thawed yet: {one.target}: {one.why}" for ones in self._owed.values() for one in ones]

    async def before_cut(self, requests: Sequence[SnapshotRequest]) -> Hold | Failure:
        """See the port."""
        try:
            await self._load()
            wanted = await self._writers.of(requests)
        except BridgeError as error:
            message = f"it is not known whom to hold still: {error.message}"
            return Failure(FailureKind.REFUSED, QUIESCE_UNAVAILABLE, message, error.hint)
        if wanted.refusal:
            hint = 'put it right, or set snapbridge_quiesce_required = "false"'
            return Failure(FailureKind.REFUSED, NOT_QUIESCED, wanted.refusal, hint)
        held = Held(requests, why=wanted.why)
        try:
            refusal = await self._hold(held, wanted.targets, wanted.required)
        except BaseException:
            await self._let_go(held, Event.STOPPED)
            raise
        if refusal:
            await self._let_go(held, Event.STOPPED)
            hint = "see the task's own log; the snapshot is tried again"
            return Failure(FailureKind.REFUSED, NOT_QUIESCED, refusal, hint)
        if any(one.is_frozen for one in held.freezings):
            held.watch = asyncio.create_task(self._watch(held), name="nomad-freeze-limit")
        return held

    async def _hold(self, held: Held, targets: Sequence[Target], required: bool) -> str:
        """Freeze all at once. A sentence when that failed and nothing may be cut without."""
        for place in sorted({(target.allocation, target.task) for target in targets}):
            await held.locks.enter_async_context(self._lock(place))
        for target in targets:
            await self._settle((target.allocation, target.task))
            if self._owed.get((target.allocation, target.task)):
                return f"{target} still has to be thawed from an earlier freeze"
            if required and (pause := self._pause(target)):
                return pause
        loop = asyncio.get_running_loop()
        began = loop.time()
        what_for = ", ".join(str(request.key) for request in held.requests)
        held.freezings = [Freezing.new(self._means, one, f"freeze-{uuid.uuid4()}", what_for) for one in targets]
        async with asyncio.TaskGroup() as group:
            for one in held.freezings:
                group.create_task(one.freeze(), name="nomad-freeze")
        held.limit = began + min((_limit_seconds(one) for one in targets), default=0.0)
        for one in held.freezings:
            self._remember(one)
        failed = [one.why for one in held.freezings if not one.is_frozen]
        if held.freezings and not failed and loop.time() >= held.limit:
            failed = ["the freeze took so long that no time is left for the cut"]
        if failed and required:
            return "; ".join(failed)
        held.why = held.why or "; ".join(failed)
        return ""

    def _pause(self, target: Target) -> str:
        """Why this freeze may not be tried yet; empty when it may."""
        _, until, why = self._failed.get(target, (0, 0.0, ""))
        left = until - asyncio.get_running_loop().time()
        return f"{why}; it is tried again in {left:.0f} s" if left > 0 else ""

    def _remember(self, one: Freezing) -> None:
        """How often it failed in a row. Other texts, or another allocation, are another target."""
        count, _, _ = self._failed.pop(one.target, (0, 0.0, ""))
        if not one.is_frozen:
            now = asyncio.get_running_loop().time()
            pause = min(PAUSE_MOST_SECONDS, PAUSE_FIRST_SECONDS * 2.0 ** min(count, 16))
            self._failed[one.target] = (count + 1, now + pause, one.why)
            for old in [target for target, (_, until, _) in self._failed.items() if until + PAUSE_MOST_SECONDS < now]:
                del self._failed[old]

    def _lock(self, place: tuple[str, str]) -> asyncio.Lock:
        """One freeze at a time in one task. It lives as long as somebody wants it."""
        lock = self._locks.get(place)
        if lock is None:
            lock = self._locks[place] = asyncio.Lock()
        return lock

    async def after_cut(self, hold: Hold, end: CutEnd) -> None:
        """See the port."""
        if not isinstance(hold, Held):
            raise TypeError("this hold is another guard's")
        in_time = hold.seconds_left() > 0
        await self._let_go(hold, Event.DONE)
        if not end.made:
            return
        why = hold.why or next((one.lost for one in hold.freezings if one.lost), "")
        if hold.freezings and not why and not in_time:
            why = "the time of the freeze was up before the driver had answered"
        if hold.freezings and not why and not end.sure:
            why = "an earlier call that was not answered may have cut it, without this freeze"
        for request in hold.requests:
            await self._label(request, why)

    async def _let_go(self, held: Held, event: Event) -> None:
        """Thaw all; what cannot be thawed now is owed. The locks go last."""
        try:
            if held.watch is not None and not held.is_up:
                held.watch.cancel()
            if held.watch is not None:
                await asyncio.wait({held.watch})
            await self._release(held.freezings, event)
        finally:
            for one in held.freezings:
                self._owe(one)
            await held.locks.aclose()

    async def _release(self, freezings: Iterable[Freezing], event: Event) -> None:
        async with asyncio.TaskGroup() as group:
            for one in freezings:
                group.create_task(one.release(event), name="nomad-thaw")

    async def _watch(self, held: Held) -> None:
        """The bound of the freeze: nobody stands still longer, whatever the driver does."""
        await asyncio.sleep(held.seconds_left())
        held.is_up = True
        log.warning("the time of a freeze is up before the cut was over: %s", held.freezings[0].target)
        await self._release(held.freezings, Event.STOPPED)

    def _owe(self, one: Freezing) -> None:
        if not one.is_over:
            place = (one.target.allocation, one.target.task)
            ones = self._owed.setdefault(place, [])
            if one not in ones:
                ones.append(one)
            self._bell.set()

    async def _settle(self, place: tuple[str, str]) -> None:
        """Pay what is owed to one task. Its lock is held."""
        for one in list(self._owed.get(place, ())):
            await one.release()
            if one.is_over:
                self._owed[place].remove(one)
        if not self._owed.get(place):
            self._owed.pop(place, None)

    async def _pay(self, place: tuple[str, str]) -> None:
        async with self._lock(place):
            await self._settle(place)

    async def _load(self) -> None:
        """Find the notes of earlier processes, once."""
        async with self._loading:
            if self._loaded:
                return
            for note in await self._means.book.operations(running=True, limit=_MOST_NOTES):
                if note.verb == FREEZE and note.cluster == self._means.cluster:
                    one = Freezing.found(self._means, note)
                    log.warning("a freeze of an earlier process is thawed: %s", one.target)
                    self._owed.setdefault((one.target.allocation, one.target.task), []).append(one)
            self._loaded = True

    async def run(self) -> None:
        """Thaw what is owed, until cancelled; first of all what an earlier process left."""
        while True:
            self._bell.clear()
            try:
                await self._load()
            except BridgeError as error:
                log.warning("the notes of earlier freezes cannot be read: %s", error)
            async with asyncio.TaskGroup() as group:  # one that hangs keeps no other waiting
                for place in list(self._owed):
                    group.create_task(self._pay(place), name="nomad-thaw-owed")
            if self._owed or not self._loaded:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await self._bell.wait()

    async def _label(self, request: SnapshotRequest, why: str) -> None:
        """Put on record what the copy is worth."""
        value = CRASH_CONSISTENT if why else QUIESCED
        for _ in range(_LABEL_TRIES):
            try:
                entry = await self._means.book.entry(request.key)
                if entry is None:
                    return
                labels = {key: text for key, text in entry.labels.items() if key != WHY}
                labels |= {CONSISTENCY: value, **({WHY: why[:_MOST_WHY]} if why else {})}
                if labels != entry.labels:
                    await self._means.book.change(dataclasses.replace(entry, labels=labels))
                return
            except ConflictError:
                continue
            except BridgeError as error:
                log.warning("the consistency of %s could not be put on record: %s", request.key, error)
                return
        log.warning("the consistency of %s could not be put on record: its entry changes too fast", request.key)


def _limit_seconds(target: Target) -> float:
    """When the bridge itself lets go: a little before the switch in the task does."""
    return target.seconds - min(_MARGIN_SECONDS, target.seconds / 4)
