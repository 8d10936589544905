"""Hooks in job files and variables: jobs seen by list and stream -> what each version wants, and what is told of it.

An event is a hint; the list is the truth, so a missed event costs time only. It must not ask for snapshots itself
(asks.py) nor decide what a setting means (decide/).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.nomad.asks import Ask, Asks, JobKey
from adapters.nomad.client import Client, part
from adapters.nomad.decide import claims, paths, settings
from adapters.nomad.decide import hooks as decide
from adapters.nomad.errors import AnswerError
from adapters.nomad.events import Event
from adapters.nomad.telling import Telling
from adapters.nomad.variables import JobVariables, Place
from bridge.model.failure import UnavailableError
from bridge.model.snapshot import DeletionPolicy
from bridge.ports.orchestrator import Intake, Volumes

log = logging.getLogger(__name__)

_AT_ONCE = 16
_PAGE = 500
_MISSING_SECONDS = 600.0
_GONE = ("JobDeregistered", "JobBatchDeregistered")


class Hooks:
    """What the jobs of one cluster ask for."""

    def __init__(self, cluster: str, client: Client, volumes: Volumes) -> None:
        self._cluster = cluster
        self._client = client
        self._known: dict[JobKey, decide.Plan] = {}
        self._jobs_at: dict[Place, JobKey] = {}
        self._floor: dict[str, int] = {}
        self._listing: dict[str, asyncio.Lock] = {}
        self._again: set[JobKey] = set()
        """To be read again although their version is known: their variable has changed."""
        self._departing: set[JobKey] = set()
        """Purged, and their final snapshot is still to be asked for."""
        self._missing: dict[JobKey, tuple[int, float]] = {}
        """Not in a list any more -> the index that was known, and when (monotonic): their purge may still be told."""
        self._told_at: dict[JobKey, float] = {}
        """When an event told of a job (monotonic): a list that was begun before may not know it."""
        self._missed: dict[JobKey, tuple[str, ...]] = {}
        self._policies: dict[Place, dict[str, DeletionPolicy]] = {}
        """(namespace, volume id) -> what each job sets for its snapshots."""
        self._variables = JobVariables(client)
        self._asks = Asks(cluster, client, volumes, policy_of=self._policy_of, on_change=self._changed)
        self._telling = Telling(client, self._asks, self._known, self._texts)

    def problems(self) -> Sequence[str]:
        """Everything that is wrong in settings or with their asks, one sentence each, in a stable order."""
        found: list[str] = []
        for (namespace, job), plan in sorted(self._known.items()):
            found.extend(f"job {job!r} in {namespace!r}: {text}" for text in self._texts(plan))
        if self._variables.sentence:
            found.append(self._variables.sentence)
        return [*found, *self._telling.problems()]

    async def run(self, intake: Intake) -> None:
        """Ask for what is pending, follow variables and write summaries, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._asks.run(intake), name=f"nomad-asks-{self._cluster}")
            group.create_task(self._telling.run(intake), name=f"nomad-summaries-{self._cluster}")
            for namespace in self._client.settings.namespaces:
                following = self._variables.follow(namespace, self._on_variable)
                group.create_task(following, name=f"nomad-variables-{self._cluster}-{namespace}")

    async def resync(self, namespace: str) -> None:
        """List variables and jobs, and read the jobs that changed. AnswerError, UnavailableError."""
        began = time.monotonic()
        try:
            async with self._listing.setdefault(namespace, asyncio.Lock()):
                listed, read = await self._list(namespace)
        finally:
            self._asks.open(namespace)
            self._telling.open()
        self._telling.look_again(namespace, self._variables.summaries(namespace))
        facts = {"jobs": listed, "read": read, "seconds": round(time.monotonic() - began, 3)}
        level = logging.INFO if read else logging.DEBUG
        log.log(level, "the jobs of namespace %s are listed", namespace, extra=facts)

    async def _list(self, namespace: str) -> tuple[int, int]:
        """One list, and the reads that it asks for; how many jobs there are, and how many were read."""
        began = time.monotonic()
        await self._list_variables(namespace)
        floor, listed = await self._indexes(namespace)
        self._floor[namespace] = floor
        for key in [key for key in self._known if namespace in ("*", key[0]) and key not in listed]:
            if key not in self._departing and self._told_at.get(key, 0.0) < began:
                if self._known[key].asks:
                    self._missing[key] = (self._known[key].index, began)
                self._forget(key)
        self._missing = {
            key: (index, at) for key, (index, at) in self._missing.items()
            if key not in listed and began - at < _MISSING_SECONDS
        }  # fmt: skip
        self._told_at = {key: at for key, at in self._told_at.items() if at >= began}
        todo = [key for key, index in listed.items() if key in self._again or self._differs(key, index)]
        await self._read_all(todo)
        return len(listed), len(todo)

    async def _indexes(self, namespace: str) -> tuple[int, dict[JobKey, int]]:
        """The index of the list (of its first page: events tell of what came later), and of each job that may ask.

        In pages: the rows of thousands of jobs at once would cost more memory than all that is kept of them.
        """
        query = {"namespace": namespace, "per_page": str(_PAGE)}
        floor = 0
        listed: dict[JobKey, int] = {}
        while True:
            answer = await self._client.get("/v1/jobs", query)
            floor = floor or answer.index
            for stub in answer.data or ():
                if decide.may_ask(stub):
                    key = (str(stub["Namespace"]), str(stub["ID"]))
                    listed[key] = int(stub.get("JobModifyIndex") or 0)
            if not answer.next_token:
                return floor, listed
            query = {**query, "next_token": answer.next_token}

    async def on_event(self, event: Event) -> None:
        """Take one event of the topic Job. Anything that the last list holds already is left alone, but for the purge
        of a job that we knew: the list was faster, and only the event carries the job.

        UnavailableError when the job's variable could not be read: the list that follows finds the job again.
        """
        floor = self._floor.get("*", self._floor.get(event.namespace, 0))
        job = event.payload.get("Job")
        if event.topic != "Job" or not isinstance(job, dict) or not job.get("ID") or not decide.may_ask(job):
            return
        key = (str(job.get("Namespace") or "default"), str(job["ID"]))
        is_purge = event.type in _GONE and bool(event.payload.get("Deleted"))
        if event.index <= floor and not (is_purge and self._is_missing(key, event.index)):
            return
        if is_purge:
            await self._depart(key, job)
        elif decide.stub_is_newer(job, self._known[key].index if key in self._known else 0):
            try:
                self._learn(job, await self._items(key, fresh=claims.claims_any(job)))
                self._told_at[key] = time.monotonic()
            except AnswerError as error:
                raise UnavailableError(f"the settings of job {key[1]!r} could not be read: {error}") from None

    def _is_missing(self, key: JobKey, index: int) -> bool:
        """Whether a list has just missed this job, and this is newer than what was known of it."""
        known = self._missing.get(key)
        return known is not None and index > known[0]

    async def _list_variables(self, namespace: str) -> None:
        try:
            changed = await self._variables.refresh(namespace)
        except AnswerError as error:
            log.warning(
                "the variables of %s cannot be listed, so settings come from meta alone: %s", namespace, error
            )
            return
        self._again.update(self._jobs_at[place] for place in changed if place in self._jobs_at)

    async def _on_variable(self, place: Place) -> None:
        """A settings variable came, changed or went; its job is not restarted, only read again."""
        key = self._jobs_at.get(place)
        if key is None or key in self._departing:
            return
        self._again.add(key)
        await self._read(key)

    def _differs(self, key: JobKey, index: int) -> bool:
        known = self._known.get(key)
        return known is None or known.index != index

    async def _read_all(self, keys: Sequence[JobKey]) -> None:
        """Read these jobs, a few at once. UnavailableError when one could not be read."""
        left = iter(keys)

        async def work() -> None:
            for key in left:
                await self._read(key)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(_AT_ONCE, len(keys))):
                    group.create_task(work(), name=f"nomad-jobs-{number}")
        except* (AnswerError, UnavailableError) as broken:
            first = broken.exceptions[0]
            raise UnavailableError(f"a job could not be read: {first}") from None

    async def _read(self, key: JobKey) -> None:
        try:
            answer = await self._client.get(f"/v1/job/{part(key[1])}", {"namespace": key[0]})
        except AnswerError as error:
            if error.status == 404:
                if key not in self._departing:
                    self._forget(key)
                return
            raise
        self._learn(answer.data, await self._items(key))
        self._again.discard(key)

    async def _items(self, key: JobKey, *, fresh: bool = False) -> Mapping[str, str] | None:
        return await self._variables.of((key[0], paths.settings_path(key[1])), fresh=fresh)

    async def _depart(self, key: JobKey, job: dict[str, Any]) -> None:
        """A purged job keeps nothing to find it by; but its event carries it whole, once."""
        plan = decide.plan(self._cluster, job, await self._items(key), purged=True)
        if all(self._asks.asked(wanted.uid) is not None for wanted in plan.wanted):
            self._forget(key)
            return
        self._departing.add(key)
        self._missing.pop(key, None)
        self._take(plan)

    def _learn(self, job: dict[str, Any], items: Mapping[str, str] | None) -> None:
        plan = decide.plan(self._cluster, job, items)
        self._departing.discard((plan.namespace, plan.job))
        self._take(plan)

    def _take(self, plan: decide.Plan) -> None:
        key = (plan.namespace, plan.job)
        before = self._known.get(key)
        self._known[key] = plan
        self._jobs_at[(plan.namespace, paths.settings_path(plan.job))] = key
        self._agree(key, before.policies if before else {}, plan.policies)
        told = set(before.problems + before.notes) if before is not None else set()
        for text in (*plan.problems, *plan.notes, *self._conflicts(plan)):
            if text not in told:
                log.warning("job %r in %r: %s", plan.job, plan.namespace, text)
        keep = {wanted.uid for wanted in plan.wanted}
        missed = tuple(_missed(ask, plan) for ask in self._asks.drop(key, keep))
        for text in missed:
            log.warning("job %r in %r: %s", plan.job, plan.namespace, text)
        if missed:
            self._missed[key] = missed
        elif before is None or before.index != plan.index:
            self._missed.pop(key, None)
        if before is not None:
            self._asks.forget(wanted.uid for wanted in before.wanted if wanted.uid not in keep)
        self._asks.want(plan.wanted, last_chance=key in self._departing)
        if plan.asks or (before is not None and before.asks):
            self._telling.mark(key)

    def _forget(self, key: JobKey) -> None:
        """The job is gone."""
        plan = self._known.pop(key, None)
        for ask in self._asks.drop(key, set()):
            log.warning("job %r in %r is gone: no snapshot of %r was made", key[1], key[0], ask.wanted.volume)
        self._departing.discard(key)
        self._again.discard(key)
        self._missed.pop(key, None)
        self._jobs_at.pop((key[0], paths.settings_path(key[1])), None)
        if plan is not None:
            self._agree(key, plan.policies, {})
            self._asks.forget(wanted.uid for wanted in plan.wanted)
        self._telling.forget(key, was_told=plan is not None and plan.asks)

    def _changed(self, key: JobKey) -> None:
        """Something happened to an ask of this job."""
        self._telling.mark(key)
        if key in self._departing and not self._asks.pending(key):
            self._forget(key)

    def _agree(self, key: JobKey, before: Mapping[str, DeletionPolicy], now: Mapping[str, DeletionPolicy]) -> None:
        """Keep what each job says of a volume; tell the others when that changes."""
        for volume in {*before, *now}:
            if before.get(volume) is now.get(volume):
                continue
            place = (key[0], volume)
            holders = self._policies.setdefault(place, {})
            said = set(holders.values())
            if volume in now:
                holders[key[1]] = now[volume]
            else:
                holders.pop(key[1], None)
            if said != set(holders.values()):
                for job in holders:
                    self._telling.mark((key[0], job))
            if not holders:
                del self._policies[place]

    def _others(self, namespace: str, job: str, volume: str) -> dict[str, DeletionPolicy]:
        return {other: p for other, p in self._policies.get((namespace, volume), {}).items() if other != job}

    def _policy_of(self, wanted: decide.Wanted) -> DeletionPolicy:
        return decide.agreed(wanted.policy, self._others(wanted.namespace, wanted.job, wanted.volume))[0]

    def _conflicts(self, plan: decide.Plan) -> Sequence[str]:
        found = []
        for volume, policy in plan.policies.items():
            _, against = decide.agreed(policy, self._others(plan.namespace, plan.job, volume))
            if against:
                found.append(
                    f"the jobs {', '.join(sorted([plan.job, *against]))} want different {settings.DELETION_POLICY} "
                    f"for {volume!r}; Retain is taken"
                )
        return found

    def _texts(self, plan: decide.Plan) -> list[str]:
        troubles = ((wanted, self._asks.trouble(wanted.uid)) for wanted in plan.wanted)
        asks = [f"snapshot of {wanted.volume!r}: {text}" for wanted, text in troubles if text]
        missed = self._missed.get((plan.namespace, plan.job), ())
        return [*plan.problems, *self._conflicts(plan), *asks, *missed]


def _missed(ask: Ask, plan: decide.Plan) -> str:
    """Why a snapshot that was wanted will never be made."""
    wanted = ask.wanted
    detail = ask.trouble or ask.held_by or "there was no time"
    if wanted.moment is decide.Moment.STOP and not plan.stopped:
        return (
            f"the job was started again (version {plan.version}) before {wanted.volume!r} was quiet, so no final "
            f"snapshot of its stop (version {wanted.version}) was made: {detail}"
        )
    if wanted.moment is decide.Moment.DEPLOY and plan.stopped:
        return f"the job was stopped before a snapshot of {wanted.volume!r} was made: {detail}"
    if wanted.version == plan.version:
        return f"no snapshot of {wanted.volume!r} was made: the settings want none any more"
    return f"no snapshot of {wanted.volume!r} was made before version {wanted.version} went: {detail}"
