"""Which summaries are to be written when: jobs marked by what happens to them, followed until they come to rest.

It must not decide what stands in a summary (decide/summary.py) nor how it is kept (status.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from adapters.nomad.asks import Ask, Asked, Asks, JobKey
from adapters.nomad.client import Client
from adapters.nomad.decide import hooks as decide
from adapters.nomad.decide import paths, summary
from adapters.nomad.status import Place, Summaries
from bridge.model.failure import BridgeError
from bridge.ports.orchestrator import Intake

log = logging.getLogger(__name__)

_AT_ONCE = 4
_FIRST_SECONDS = 0.25
_MOST_SECONDS = 10.0
_IDLE_SECONDS = 60.0


class Telling:
    """Keeps the summaries of one cluster's jobs in step."""

    def __init__(
        self,
        client: Client,
        asks: Asks,
        plans: Mapping[JobKey, decide.Plan],
        texts: Callable[[decide.Plan], Sequence[str]],
    ) -> None:
        self._asks = asks
        self._plans = plans
        self._texts = texts
        self._link = client.settings.hooks.link
        self._summaries = Summaries(client, enabled=client.settings.hooks.write_status)
        self._last: dict[JobKey, dict[str, Asked]] = {}
        self._due: dict[JobKey, float] = {}
        self._pace: dict[JobKey, float] = {}
        self._removals: dict[Place, float] = {}
        self._bell = asyncio.Event()
        self._opened = asyncio.Event()

    def open(self) -> None:
        """The first list is through: until then summaries would only be in its way."""
        self._opened.set()

    def problems(self) -> Sequence[str]:
        """Why summaries are not written."""
        return self._summaries.problems()

    def mark(self, job: JobKey) -> None:
        """Something about this job may be new."""
        if job in self._plans:
            self._due[job] = 0.0
            self._pace.pop(job, None)
            self._bell.set()

    def look_again(self, namespace: str, seen: Mapping[Place, int]) -> None:
        """After a list: look how the told snapshots stand now, and drop summaries of jobs that are gone."""
        for job, last in self._last.items():
            if last and namespace in ("*", job[0]):
                self._due.setdefault(job, 0.0)
        mine = {(job[0], paths.status_path(job[1])) for job in self._plans}
        for place, index in seen.items():
            if place not in mine and not self._summaries.is_foreign(place, index):
                self._removals.setdefault(place, 0.0)
        self._bell.set()

    def forget(self, job: JobKey, *, was_told: bool) -> None:
        """The job is gone, and so goes its summary."""
        self._due.pop(job, None)
        self._pace.pop(job, None)
        if self._last.pop(job, None) is not None or was_told:
            self._removals[(job[0], paths.status_path(job[1]))] = 0.0
            self._bell.set()

    async def run(self, intake: Intake) -> None:
        """Write what is due, until cancelled."""
        await self._opened.wait()
        while True:
            self._bell.clear()
            now = time.monotonic()
            jobs = iter([job for job, due in self._due.items() if due <= now])
            places = iter([place for place, due in self._removals.items() if due <= now])

            async def work(jobs: Iterator[JobKey] = jobs, places: Iterator[Place] = places) -> None:
                for job in jobs:
                    await self._tell(job, intake)
                    await asyncio.sleep(0)  # what did not change costs no await: a crowd of it may not block the loop
                for place in places:
                    await self._remove(place)

            async with asyncio.TaskGroup() as group:
                for number in range(_AT_ONCE):
                    group.create_task(work(), name=f"nomad-summary-{number}")
            await self._rest()

    async def _rest(self) -> None:
        now = time.monotonic()
        due = min([*self._due.values(), *self._removals.values(), now + _IDLE_SECONDS])
        try:
            async with asyncio.timeout(max(0.02, due - now)):
                await self._bell.wait()
        except TimeoutError:
            return

    async def _tell(self, job: JobKey, intake: Intake) -> None:
        plan = self._plans.get(job)
        self._due.pop(job, None)
        if plan is None:
            return
        try:
            lines = await self._lines(job, plan, intake)
        except BridgeError as error:
            log.warning("the snapshots of job %r in %r could not be looked at: %s", job[1], job[0], error)
            self._later(job)
            return
        facts = summary.Facts(
            namespace=plan.namespace, job=plan.job, version=plan.version, lines=lines, problems=self._texts(plan),
            notes=plan.notes, link=self._link,
        )  # fmt: skip
        unknown = [line.volume for line in lines if line.last is None and not line.awaited]
        written = await self._summaries.tell(job, summary.items(facts), unknown)
        if not written or not all(line.settled for line in lines):
            self._later(job)

    def _later(self, job: JobKey) -> None:
        if job in self._plans:
            pace = self._pace.get(job, _FIRST_SECONDS)
            self._pace[job] = min(_MOST_SECONDS, pace * 2)
            self._due.setdefault(job, time.monotonic() + pace)

    async def _remove(self, place: Place) -> None:
        back = any(paths.status_path(name) == place[1] for namespace, name in self._plans if namespace == place[0])
        if back or await self._summaries.remove(place):
            self._removals.pop(place, None)
        else:
            self._removals[place] = time.monotonic() + _MOST_SECONDS

    async def _lines(self, job: JobKey, plan: decide.Plan, intake: Intake) -> Sequence[summary.VolumeLine]:
        last = self._last.get(job, {})
        for wanted in plan.wanted:
            asked = self._asks.asked(wanted.uid)
            if asked is not None:
                last = self._last.setdefault(job, {})
                last[wanted.volume] = asked
        pending = {ask.wanted.volume: _awaited(ask) for ask in self._asks.pending(job)}
        lines = []
        for volume in sorted({*plan.policies, *last, *pending}):
            known = await self._last_of(last[volume], intake) if volume in last else None
            lines.append(summary.VolumeLine(volume, known, pending.get(volume, "")))
        return lines

    async def _last_of(self, asked: Asked, intake: Intake) -> summary.Last:
        wanted = asked.wanted
        status = await intake.status(asked.key)
        return summary.Last(
            wanted.name, wanted.uid, asked.why, asked.asked_by, asked.policy, wanted.group_name, status
        )


def _awaited(ask: Ask) -> str:
    """Empty also for what is about to be asked for: a restart would tell it of every job."""
    if ask.quiet_by is None or not ask.held_by:
        return ask.trouble
    return f"the final snapshot waits, {ask.wanted.wait_seconds:g} s at most, until nobody writes: {ask.held_by}"
