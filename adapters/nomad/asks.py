"""Snapshots that jobs want, asked for: once each, again after what may pass, at rest data where a stop asks for it.

Once each holds without any memory of ours: an ask carries a uid made from the job's version, and the intake takes a
uid that it has ever seen for done. It must not know where the wishes come from; hooks.py does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from adapters.nomad.client import Client
from adapters.nomad.decide import hooks as decide
from adapters.nomad.errors import AnswerError
from adapters.nomad.handles import list_volumes
from bridge.model.failure import BridgeError, NotFoundError, UnavailableError
from bridge.model.keys import Key, snapshot_key
from bridge.model.secret import NO_SECRET, SnapshotSecrets
from bridge.model.snapshot import DeletionPolicy
from bridge.ports.orchestrator import Intake, SnapshotDraft, Volumes

log = logging.getLogger(__name__)

JobKey = tuple[str, str]

_AT_ONCE = 16
_ASK_SECONDS = 60.0
_RETRY_FIRST_SECONDS = 1.0
_RETRY_MOST_SECONDS = 60.0
_LOOK_FIRST_SECONDS = 0.25
_LOOK_MOST_SECONDS = 2.0


@dataclasses.dataclass(slots=True)
class Ask:
    """One snapshot that is wanted and not accepted yet."""

    wanted: decide.Wanted
    last_chance: bool
    """Its job is gone: a volume that is not there will not come."""
    quiet_by: float | None
    """It waits until nobody writes to the volume, at most until this moment (monotonic); None: it does not wait."""
    failures: int = 0
    due: float = 0.0
    busy: bool = False
    dropped: bool = False
    held_by: str = ""
    """Who still writes, as seen last."""
    trouble: str = ""

    @property
    def key(self) -> JobKey:
        return self.wanted.namespace, self.wanted.job


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A snapshot that the service has taken up."""

    wanted: decide.Wanted
    key: Key
    why: str
    asked_by: str
    policy: DeletionPolicy


class Asks:
    """Everything that the jobs of one cluster want at the moment."""

    def __init__(
        self,
        cluster: str,
        client: Client,
        volumes: Volumes,
        *,
        policy_of: Callable[[decide.Wanted], DeletionPolicy],
        on_change: Callable[[JobKey], None],
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._volumes = volumes
        self._policy_of = policy_of
        self._on_change = on_change
        self._open: set[str] = set()
        self._pending: dict[str, Ask] = {}
        self._of_job: dict[JobKey, dict[str, Ask]] = {}
        """The same by job: thousands may be pending after a start."""
        self._asked: dict[str, Asked] = {}
        self._refused: dict[str, tuple[decide.Wanted, str]] = {}
        self._bell = asyncio.Event()
        self._claims_bell = asyncio.Event()

    def open(self, namespace: str) -> None:
        """Its jobs have been read (`*`: all jobs), so that what one job says of a volume counts for the others."""
        self._open.add(namespace)
        self._bell.set()

    def want(self, wanted: Iterable[decide.Wanted], *, last_chance: bool = False) -> None:
        """Ask for these, unless it is done or under way."""
        for one in wanted:
            known = self._pending.get(one.uid)
            if known is not None:
                known.wanted, known.dropped = one, False
                known.last_chance = known.last_chance or last_chance
            elif one.uid not in self._asked and self._refused.get(one.uid, (None, ""))[0] != one:
                quiet = time.monotonic() + one.wait_seconds if one.moment is decide.Moment.STOP else None
                self._add(Ask(one, last_chance, quiet))
        self._bell.set()
        self._claims_bell.set()

    def drop(self, key: JobKey, keep: set[str]) -> Sequence[Ask]:
        """Let go of what this job wants no more, and return it. What is just being asked for is not lost."""
        gone = [ask for uid, ask in self._of_job.get(key, {}).items() if uid not in keep]
        for ask in gone:
            ask.dropped = True
            if not ask.busy:
                self._remove(ask)
        return [ask for ask in gone if not ask.busy]

    def forget(self, uids: Iterable[str]) -> None:
        """Nobody will ask for these any more."""
        for uid in uids:
            self._asked.pop(uid, None)
            self._refused.pop(uid, None)

    def pending(self, key: JobKey) -> Sequence[Ask]:
        """What this job still waits for."""
        return list(self._of_job.get(key, {}).values())

    def asked(self, uid: str) -> Asked | None:
        """What the service has taken up under this uid."""
        return self._asked.get(uid)

    def trouble(self, uid: str) -> str:
        """Why it is not asked for yet, or never will be; empty when nothing is wrong."""
        ask = self._pending.get(uid)
        return ask.trouble if ask is not None else self._refused.get(uid, (None, ""))[1]

    async def run(self, intake: Intake) -> None:
        """Ask until cancelled. One that hangs holds up no other."""
        gate = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_claims(), name=f"nomad-claims-{self._cluster}")
            while True:
                self._bell.clear()
                now = time.monotonic()
                for asks in self._batches() if self._open else ():
                    if all(self._is_due(ask, now) for ask in asks):
                        for ask in asks:
                            ask.busy = True
                        group.create_task(self._ask(asks, intake, gate), name=f"nomad-ask-{asks[0].wanted.uid}")
                await self._rest(now)

    def _batches(self) -> Sequence[Sequence[Ask]]:
        """What is to be cut at one moment is asked for at once, when all of it is due."""
        found: dict[str, list[Ask]] = {}
        for uid, ask in self._pending.items():
            found.setdefault(ask.wanted.group_uid or uid, []).append(ask)
        return list(found.values())

    def _is_due(self, ask: Ask, now: float) -> bool:
        opened = "*" in self._open or ask.wanted.namespace in self._open
        return opened and not ask.busy and ask.quiet_by is None and ask.due <= now

    async def _rest(self, now: float) -> None:
        """Until something new is pending, or the next retry is due."""
        idle = [ask.due for ask in self._pending.values() if not ask.busy and ask.quiet_by is None and ask.due > now]
        due = min([*idle, now + _RETRY_MOST_SECONDS])
        try:
            async with asyncio.timeout(max(0.02, due - time.monotonic())):
                await self._bell.wait()
        except TimeoutError:
            return

    async def _ask(self, asks: Sequence[Ask], intake: Intake, gate: asyncio.Semaphore) -> None:
        try:
            async with gate, asyncio.timeout(_ASK_SECONDS):
                drafts = await self._drafts(asks)
                first = asks[0].wanted
                if first.group_uid:
                    await intake.ask_group(drafts, name=first.group_name, uid=first.group_uid)
                else:
                    await intake.ask(drafts[0])
        except (NotFoundError, UnavailableError, TimeoutError) as error:
            for ask in asks:
                self._failed(ask, str(error) or "the service did not answer in time", hopeless=_hopeless(ask, error))
        except BridgeError as error:
            for ask in asks:
                self._failed(ask, str(error), hopeless=True)
        else:
            for ask, draft in zip(asks, drafts, strict=True):
                self._taken(ask, draft)
        for ask in asks:
            ask.busy = False
        self._on_change(asks[0].key)

    def _add(self, ask: Ask) -> None:
        self._pending[ask.wanted.uid] = ask
        self._of_job.setdefault(ask.key, {})[ask.wanted.uid] = ask

    def _remove(self, ask: Ask) -> None:
        self._pending.pop(ask.wanted.uid, None)
        mine = self._of_job.get(ask.key, {})
        mine.pop(ask.wanted.uid, None)
        if not mine:
            self._of_job.pop(ask.key, None)

    def _taken(self, ask: Ask, draft: SnapshotDraft) -> None:
        wanted = ask.wanted
        key = snapshot_key(self._cluster, wanted.uid)
        self._refused.pop(wanted.uid, None)
        self._asked[wanted.uid] = Asked(wanted, key, draft.why, draft.asked_by, draft.policy)
        self._remove(ask)
        log.info("job %r version %d asked for %s of %r", wanted.job, wanted.version, wanted.name, wanted.volume)

    def _failed(self, ask: Ask, text: str, *, hopeless: bool) -> None:
        wanted = ask.wanted
        if ask.trouble != text:
            log.warning("job %r in %r: snapshot of %r: %s", wanted.job, wanted.namespace, wanted.volume, text)
        ask.trouble = text
        ask.failures += 1
        delay = min(_RETRY_MOST_SECONDS, _RETRY_FIRST_SECONDS * 2.0 ** min(ask.failures - 1, 16))
        ask.due = time.monotonic() + delay
        self._bell.set()
        if hopeless or ask.dropped:
            self._remove(ask)
            self._refused[wanted.uid] = (wanted, text)

    async def _drafts(self, asks: Sequence[Ask]) -> Sequence[SnapshotDraft]:
        """One for each; what is cut together has one policy, and of two it is Retain."""
        policies = {self._policy_of(ask.wanted) for ask in asks}
        policy = DeletionPolicy.RETAIN if DeletionPolicy.RETAIN in policies else DeletionPolicy.DELETE
        return [await self._draft(ask, policy) for ask in asks]

    async def _draft(self, ask: Ask, policy: DeletionPolicy) -> SnapshotDraft:
        wanted = ask.wanted
        secret = NO_SECRET
        if any(plugin.secret for plugin in self._client.settings.plugins.values()):
            secret = (await self._volumes.find(wanted.namespace, wanted.volume)).secret
        return SnapshotDraft(
            cluster=self._cluster,
            namespace=wanted.namespace,
            name=wanted.name,
            volume=wanted.volume,
            policy=policy,
            parameters=wanted.parameters,
            secrets=SnapshotSecrets(secret, secret, secret),
            asked_by=f"nomad job {wanted.job}",
            why=f"{wanted.why}; {ask.held_by}" if ask.held_by else wanted.why,
            labels=wanted.labels,
            users={"job": (wanted.job,), "group": wanted.groups},
            uid=wanted.uid,
        )

    async def _watch_claims(self) -> None:
        """Look who writes to the volumes whose last snapshot waits for quiet: one list for all of a namespace."""
        pause = _LOOK_FIRST_SECONDS
        while True:
            waiting = [ask for ask in self._pending.values() if ask.quiet_by is not None]
            if not waiting:
                self._claims_bell.clear()
                await self._claims_bell.wait()
                pause = _LOOK_FIRST_SECONDS
                continue
            for namespace in sorted({ask.wanted.namespace for ask in waiting}):
                await self._look(namespace, [ask for ask in waiting if ask.wanted.namespace == namespace])
            self._claims_bell.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._claims_bell.wait()
                pause = _LOOK_FIRST_SECONDS
            except TimeoutError:
                pause = min(_LOOK_MOST_SECONDS, pause * 1.5)

    async def _look(self, namespace: str, waiting: Sequence[Ask]) -> None:
        writers: dict[str, int] | None = None
        trouble = ""
        try:
            rows = await list_volumes(self._client, namespace)
            writers = {str(row["ID"]): int(row.get("CurrentWriters") or 0) for row in rows}
        except (AnswerError, UnavailableError) as error:
            trouble = str(error)
        now = time.monotonic()
        for ask in waiting:
            self._judge(ask, writers, trouble, now)

    def _judge(self, ask: Ask, writers: dict[str, int] | None, trouble: str, now: float) -> None:
        """A volume that is not listed has no writers; asking for it will say what is wrong."""
        if ask.quiet_by is None:
            return
        count = None if writers is None else writers.get(ask.wanted.volume, 0)
        over = now >= ask.quiet_by
        if count == 0:
            held = ""
        elif count is None:
            held = f"who writes to it is not known: {trouble}"
        else:
            held = f"{count} allocations still {'wrote' if over else 'write'} to it"
        if over and held:
            held = f"not quiet: {held} after {ask.wanted.wait_seconds:g} s"
            wanted = ask.wanted
            log.warning("job %r in %r: snapshot of %r is %s", wanted.job, wanted.namespace, wanted.volume, held)
        changed, ask.held_by = held != ask.held_by, held
        if over or count == 0:
            ask.quiet_by = None
            self._bell.set()
        if changed:
            self._on_change(ask.key)


def _hopeless(ask: Ask, error: Exception) -> bool:
    return ask.last_chance and isinstance(error, NotFoundError)
