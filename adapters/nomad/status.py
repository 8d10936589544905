"""A summary per job as a Nomad variable, for people who look in Nomad first. It is for people only.

The path `snapbridge/status/<job>` is ours, but only a variable that carries our mark is written over or removed, and
only by check-and-set. Settings of a job live beside it and are not touched.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence

from adapters.nomad.client import Client
from adapters.nomad.decide import paths, summary
from adapters.nomad.errors import AnswerError
from bridge.model.failure import UnavailableError

log = logging.getLogger(__name__)

JobKey = tuple[str, str]
Place = tuple[str, str]


class Summaries:
    """Writes summaries that changed and removes those of jobs that are gone, while the token may."""

    def __init__(self, client: Client, *, enabled: bool) -> None:
        self._client = client
        self._written: dict[Place, bytes] = {}
        self._foreign: set[Place] = set()
        self._left: dict[Place, int] = {}
        self.enabled = enabled
        self._sentence = ""

    def problems(self) -> Sequence[str]:
        """Why some summary is not written, one sentence each."""
        foreign = [_foreign(place) for place in sorted(self._foreign)]
        return [self._sentence, *foreign] if self._sentence else foreign

    async def tell(self, job: JobKey, items: Mapping[str, str], volumes: Sequence[str] = ()) -> bool:
        """Write the summary if it is another than the last one. False: try again later.

        `volumes` are those of which nothing is known since the start: their last lines are carried over.
        """
        digest = _digest(items)
        place = (job[0], paths.status_path(job[1]))
        if not self.enabled or self._written.get(place) == digest:
            return True
        try:
            index, there = await self._read(place)
            if there and not summary.is_ours(there):
                self._leave(place, index)
                return True
            self._foreign.discard(place)
            whole = summary.bounded({**items, **summary.carried(there, volumes)})
            if there != whole:
                query = {"namespace": place[0], "cas": str(index)}
                await self._client.call("PUT", f"/v1/var/{place[1]}", query, body={"Items": whole})
        except AnswerError as error:
            self._refused(place, "written", error)
            return False
        except UnavailableError as error:
            log.warning("the summary of job %r in %r was not written: %s", job[1], job[0], error)
            return False
        self._sentence = ""
        self._written[place] = digest
        return True

    async def remove(self, place: Place) -> bool:
        """Remove the summary of a job that is gone, and all that is remembered of it. False: try again later."""
        self._written.pop(place, None)
        self._foreign.discard(place)
        if not self.enabled:
            return True
        try:
            index, there = await self._read(place)
            if there and not summary.is_ours(there):
                self._leave(place, index, gone=True)
            elif there:
                query = {"namespace": place[0], "cas": str(index)}
                await self._client.call("DELETE", f"/v1/var/{place[1]}", query)
        except AnswerError as error:
            self._refused(place, "removed", error)
            return False
        except UnavailableError as error:
            log.warning("the summary %r in %r was not removed: %s", place[1], place[0], error)
            return False
        return True

    def is_foreign(self, place: Place, index: int) -> bool:
        """Whether this variable, unchanged since, was seen to be somebody else's."""
        return self._left.get(place) == index

    def _leave(self, place: Place, index: int, *, gone: bool = False) -> None:
        self._left[place] = index
        if not gone and place not in self._foreign:
            self._foreign.add(place)
            log.warning("%s", _foreign(place))

    def _refused(self, place: Place, what: str, error: AnswerError) -> None:
        if error.status != 403:
            log.warning("the summary %r in %r was not %s: %s", place[1], place[0], what, error)
            return
        sentence = (
            f"summaries of jobs are not {what}: the token may not do it in {place[0]!r}; it needs "
            f'variables {{ path "{paths.STATUS}*" {{ capabilities = ["read", "write", "destroy"] }} }}'
        )
        if sentence != self._sentence:
            log.warning("%s", sentence)
        self._sentence = sentence

    async def _read(self, place: Place) -> tuple[int, Mapping[str, str]]:
        """The variable's index and items; (0, {}) when there is none, so that the write makes it or fails."""
        try:
            answer = await self._client.get(f"/v1/var/{place[1]}", {"namespace": place[0]})
        except AnswerError as error:
            if error.status == 404:
                return 0, {}
            raise
        row = answer.data or {}
        return int(row.get("ModifyIndex") or 0), dict(row.get("Items") or {})


def _digest(items: Mapping[str, str]) -> bytes:
    """Stands for what was written: thousands of summaries are not kept."""
    return hashlib.sha256(repr(sorted(items.items())).encode()).digest()


def _foreign(place: Place) -> str:
    return (
        f"the variable {place[1]!r} in {place[0]!r} is not ours, so no summary is written there; remove or rename it"
    )
