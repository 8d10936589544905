"""Hooks in job files, carried out: job versions seen by list and stream -> snapshots asked for, once each.

Once each holds without any memory of ours: an ask carries a uid made from the job's version, and the intake takes a
uid that it has ever seen for done. An event is a hint; the list is the truth, so a missed event costs time only.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

from adapters.nomad.client import Client, part
from adapters.nomad.decide import hooks as decide
from adapters.nomad.errors import AnswerError
from adapters.nomad.events import Event
from adapters.nomad.status import Summaries
from bridge.model.failure import BridgeError, NotFoundError, UnavailableError
from bridge.model.keys import Key
from bridge.model.secret import NO_SECRET, SnapshotSecrets
from bridge.model.snapshot import SnapshotState
from bridge.ports.orchestrator import Intake, SnapshotDraft, Volumes

log = logging.getLogger(__name__)

JobKey = tuple[str, str]

_AT_ONCE = 16
_ASK_SECONDS = 60.0
_RETRY_FIRST_SECONDS = 1.0
_RETRY_MOST_SECONDS = 60.0
_SUMMARY_SECONDS = 10.0
_SETTLED = (SnapshotState.READY.value, SnapshotState.RETAINED.value, SnapshotState.GONE.value)
_GONE = ("JobDeregistered", "JobBatchDeregistered")


@dataclasses.dataclass(slots=True)
class _Pending:
    """One ask that is not accepted yet."""

    wanted: decide.Wanted
    failures: int = 0
    due: float = 0.0


class Hooks:
    """What the jobs of one cluster ask for."""

    def __init__(self, cluster: str, client: Client, volumes: Volumes) -> None:
        self._cluster = cluster
        self._client = client
        self._volumes = volumes
        self._known: dict[JobKey, decide.Plan] = {}
        self._floor: dict[str, int] = {}
        self._pending: dict[str, _Pending] = {}
        self._asked: dict[str, Key] = {}
        self._troubles: dict[str, str] = {}
        self._stale: set[JobKey] = set()
        self._bell = asyncio.Event()
        self._summaries = Summaries(client, enabled=client.settings.hooks.write_status)

    def problems(self) -> Sequence[str]:
        """Everything that is wrong in job files or with their asks, one sentence each, in a stable order."""
        found: list[str] = []
        for (namespace, job), plan in sorted(self._known.items()):
            found.extend(f"job {job!r} in {namespace!r}: {text}" for text in self._texts(plan))
        return found

    async def resync(self, namespace: str) -> None:
        """List the jobs and read those that changed. AnswerError, UnavailableError."""
        answer = await self._client.get("/v1/jobs", {"namespace": namespace, "meta": "true"})
        stubs = list(answer.data or ())
        self._floor[namespace] = answer.index
        listed = {(str(stub["Namespace"]), str(stub["ID"])): stub for stub in stubs}
        for key in [key for key in self._known if namespace in ("*", key[0]) and key not in listed]:
            self._forget(key)
        changed = [key for key, stub in listed.items() if self._differs(key, stub)]
        gate = asyncio.Semaphore(_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                for key in changed:
                    group.create_task(self._read(key, gate), name="nomad-job")
        except* (AnswerError, UnavailableError) as broken:
            first = broken.exceptions[0]
            raise UnavailableError(f"a job could not be read: {first}") from None

    async def on_event(self, event: Event) -> None:
        """Take one event of the topic Job. Anything that the last list holds already is left alone."""
        floor = self._floor.get("*", self._floor.get(event.namespace, 0))
        if event.topic != "Job" or event.index <= floor:
            return
        job = event.payload.get("Job")
        if not isinstance(job, dict) or not job.get("ID"):
            return
        key = (str(job.get("Namespace") or "default"), str(job["ID"]))
        if event.type in _GONE and event.payload.get("Deleted"):
            self._forget(key)
        elif decide.stub_is_newer(job, self._known[key].index if key in self._known else 0):
            self._learn(job)

    async def run(self, intake: Intake) -> None:
        """Ask for what is pending and write summaries, until cancelled."""
        while True:
            self._bell.clear()
            due = [ask for ask in self._pending.values() if ask.due <= time.monotonic()]
            gate = asyncio.Semaphore(_AT_ONCE)
            async with asyncio.TaskGroup() as group:
                for ask in due:
                    group.create_task(self._ask(ask, intake, gate), name=f"nomad-ask-{ask.wanted.uid}")
            await self._summarize(intake)
            await self._rest()

    async def _rest(self) -> None:
        """Until something new is pending, or the next retry is due."""
        most = _SUMMARY_SECONDS if self._stale else _RETRY_MOST_SECONDS
        due = min([ask.due for ask in self._pending.values()] + [time.monotonic() + most])
        try:
            async with asyncio.timeout(max(0.02, due - time.monotonic())):
                await self._bell.wait()
        except TimeoutError:
            return

    def _differs(self, key: JobKey, stub: dict[str, Any]) -> bool:
        known = self._known.get(key)
        return known is None or known.index != int(stub.get("JobModifyIndex") or 0)

    async def _read(self, key: JobKey, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                answer = await self._client.get(f"/v1/job/{part(key[1])}", {"namespace": key[0]})
            except AnswerError as error:
                if error.status == 404:
                    self._forget(key)
                    return
                raise
        self._learn(answer.data)

    def _learn(self, job: dict[str, Any]) -> None:
        plan = decide.plan(self._cluster, job)
        deploys = tuple(one for one in plan.wanted if one.moment is decide.Moment.DEPLOY)
        plan = dataclasses.replace(plan, wanted=deploys)  # snapshots of stopped jobs are not carried out yet
        key = (plan.namespace, plan.job)
        before = self._known.get(key)
        self._known[key] = plan
        for text in plan.problems:
            if before is None or text not in before.problems:
                log.warning("job %r in %r: %s", plan.job, plan.namespace, text)
        uids = {wanted.uid for wanted in plan.wanted}
        self._drop(key, uids)
        for wanted in plan.wanted:
            if wanted.uid not in self._asked and wanted.uid not in self._pending:
                self._pending[wanted.uid] = _Pending(wanted)
        if plan.asks or (before is not None and before.asks):
            self._stale.add(key)
            self._bell.set()

    def _forget(self, key: JobKey) -> None:
        self._drop(key, set())
        self._known.pop(key, None)
        self._stale.discard(key)

    def _drop(self, key: JobKey, keep: set[str]) -> None:
        """Let go of asks of another version: its moment has passed."""
        for uid, ask in list(self._pending.items()):
            if (ask.wanted.namespace, ask.wanted.job) == key and uid not in keep:
                log.warning(
                    "job %r version %d: no snapshot of %r was made before the version went: %s",
                    ask.wanted.job, ask.wanted.version, ask.wanted.volume, self._troubles.get(uid, "no time"),
                )  # fmt: skip
                del self._pending[uid]
                self._troubles.pop(uid, None)
        for wanted in self._known[key].wanted if key in self._known else ():
            if wanted.uid not in keep:
                self._asked.pop(wanted.uid, None)
                self._troubles.pop(wanted.uid, None)

    async def _ask(self, ask: _Pending, intake: Intake, gate: asyncio.Semaphore) -> None:
        wanted = ask.wanted
        try:
            async with gate, asyncio.timeout(_ASK_SECONDS):
                key = await intake.ask(await self._draft(wanted))
        except (NotFoundError, UnavailableError, TimeoutError) as error:
            ask.failures += 1
            delay = min(_RETRY_MOST_SECONDS, _RETRY_FIRST_SECONDS * 2.0 ** min(ask.failures - 1, 16))
            ask.due = time.monotonic() + delay
            self._trouble(wanted, str(error) or "the service did not answer in time")
        except BridgeError as error:
            self._pending.pop(wanted.uid, None)
            self._trouble(wanted, str(error))
        else:
            self._pending.pop(wanted.uid, None)
            self._asked[wanted.uid] = key
            self._troubles.pop(wanted.uid, None)
            log.info("job %r version %d asked for %s of %r", wanted.job, wanted.version, wanted.name, wanted.volume)
        self._stale.add((wanted.namespace, wanted.job))

    def _trouble(self, wanted: decide.Wanted, text: str) -> None:
        if self._troubles.get(wanted.uid) != text:
            log.warning("job %r in %r: snapshot of %r: %s", wanted.job, wanted.namespace, wanted.volume, text)
        self._troubles[wanted.uid] = text

    async def _draft(self, wanted: decide.Wanted) -> SnapshotDraft:
        secret = NO_SECRET
        if any(plugin.secret for plugin in self._client.settings.plugins.values()):
            secret = (await self._volumes.find(wanted.namespace, wanted.volume)).secret
        return SnapshotDraft(
            cluster=self._cluster,
            namespace=wanted.namespace,
            name=wanted.name,
            volume=wanted.volume,
            policy=wanted.policy,
            parameters=wanted.parameters,
            secrets=SnapshotSecrets(secret, secret, secret),
            asked_by=f"nomad job {wanted.job}",
            why=f"deploy of version {wanted.version}",
            labels={"job": wanted.job, "group": ",".join(wanted.groups)},
            users={"job": (wanted.job,), "group": tuple(wanted.groups)},
            uid=wanted.uid,
        )

    def _texts(self, plan: decide.Plan) -> list[str]:
        asks = [f"snapshot of {w.volume!r}: {self._troubles[w.uid]}" for w in plan.wanted if w.uid in self._troubles]
        return [*plan.problems, *asks]

    async def _summarize(self, intake: Intake) -> None:
        stale, self._stale = self._stale, set()
        for key in sorted(stale):
            plan = self._known.get(key)
            if plan is None:
                continue
            lines = []
            for wanted in plan.wanted:
                asked = self._asked.get(wanted.uid)
                status = await intake.status(asked) if asked is not None else None
                state = status.state.value if status is not None else ("asked" if asked else "not asked yet")
                if state not in _SETTLED:
                    self._stale.add(key)
                lines.append(f"{wanted.volume}: {wanted.name} ({wanted.uid}) {state}")
            items = {
                "job_version": str(plan.version),
                "snapshots": "\n".join(lines) or "none",
                "problems": "\n".join(self._texts(plan)) or "none",
            }
            await self._summaries.tell(key[0], key[1], items)
