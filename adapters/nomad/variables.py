"""Settings of jobs in Nomad variables: `snapbridge/<job>`. One list for all jobs; one read for each that changed.

Variables have no event that every version tells, so a blocking query on the list notices changes, and each resync
looks again. Only variables of jobs that exist are ever read: others below `snapbridge/` may be anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from adapters.nomad.client import Client
from adapters.nomad.decide import paths
from adapters.nomad.errors import AnswerError
from bridge.model.failure import UnavailableError

log = logging.getLogger(__name__)

Place = tuple[str, str]
"""(namespace, path)"""
OnChange = Callable[[Place], Awaitable[None]]

_WAIT_SECONDS = 60.0
_LEAST_PAUSE_SECONDS = 1.0
"""Between two lists: our own summaries move the same index."""
_MOST_WAITING = 4
_POLL_SECONDS = 10.0
"""With more namespaces than `_MOST_WAITING` no query is left waiting: each one would hold a connection."""


class JobVariables:
    """The settings variables that we may see."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._listed: dict[Place, int] = {}
        self._read: dict[Place, tuple[int, Mapping[str, str] | None]] = {}
        self._denied: set[Place] = set()
        self._index: dict[str, int] = {}
        self._told: dict[str, Mapping[Place, int]] = {}
        leader = client.settings.leadership
        self._lock = (leader.namespace, leader.variable) if leader is not None else None
        """The variable that says who leads: never a job's, also not of a job called `leader`."""
        self.sentence = ""
        """Why settings in variables are not read; empty while they are."""

    async def refresh(self, namespace: str) -> set[Place]:
        """List; returns the settings that came, changed or went. AnswerError, UnavailableError."""
        query = {"namespace": namespace, "prefix": paths.ROOT}
        return await self._take(namespace, query, index=0, wait_seconds=0.0)

    async def follow(self, namespace: str, on_change: OnChange) -> None:
        """Tell of changes until cancelled."""
        query = {"namespace": namespace, "prefix": paths.ROOT}
        waits = len(self._client.settings.namespaces) <= _MOST_WAITING
        failures = 0
        while True:
            await asyncio.sleep(_LEAST_PAUSE_SECONDS if waits else _POLL_SECONDS)
            try:
                index = self._index.get(namespace, 0) if waits else 0
                for place in await self._take(namespace, query, index=index, wait_seconds=_WAIT_SECONDS):
                    await on_change(place)
                failures = 0
            except (AnswerError, UnavailableError) as error:
                failures += 1
                self._index[namespace] = 0  # whoever answers next may count from the beginning
                log.info("settings in variables of %s are not followed at the moment: %s", namespace, error)
                await asyncio.sleep(min(self._client.settings.backoff_most_seconds, 2.0 ** min(failures, 16)))

    async def of(self, place: Place, *, fresh: bool = False) -> Mapping[str, str] | None:
        """The items at a place, None when there are none. `fresh`: ask although the list knows of no change.

        AnswerError, UnavailableError. What may not be read counts as not there, and is said.
        """
        listed = self._listed.get(place)
        if place == self._lock:
            return None
        if not fresh:
            if listed is None:
                return None
            index, items = self._read.get(place, (0, None))
            if index == listed:
                return items
        return await self._get(place)

    def summaries(self, namespace: str) -> Mapping[Place, int]:
        """Where the last list of this namespace (or of `*`) saw summaries, and their ModifyIndex."""
        return self._told.get(namespace, {})

    async def _take(self, namespace: str, query: Mapping[str, str], *, index: int, wait_seconds: float) -> set[Place]:
        if index:
            answer = await self._client.wait("/v1/vars", query, index=index, wait_seconds=wait_seconds)
        else:
            answer = await self._client.get("/v1/vars", query)
        self._index[namespace] = max(1, answer.index)
        rows = {
            (str(row["Namespace"]), str(row["Path"])): int(row.get("ModifyIndex") or 0) for row in answer.data or ()
        }
        self._told[namespace] = {place: at for place, at in rows.items() if paths.is_status(place[1])}
        fresh = {place: at for place, at in rows.items() if paths.is_settings(place[1]) and place != self._lock}
        mine = {place for place in self._listed if namespace in ("*", place[0])}
        changed = {place for place in mine | set(fresh) if self._listed.get(place) != fresh.get(place)}
        for place in mine - set(fresh):
            del self._listed[place]
            self._read.pop(place, None)
            self._denied.discard(place)
        self._listed.update(fresh)
        return changed | await self._allowed_now()

    async def _allowed_now(self) -> set[Place]:
        """Of what was denied, everything, once one of it can be read."""
        if not self._denied:
            return set()
        before = set(self._denied)
        await self._get(min(before))
        if self._denied == before:
            return set()
        for place in before & set(self._read):
            self._read[place] = (-1, self._read[place][1])  # to be read again; what was known counts until then
        self._denied.clear()
        self.sentence = ""
        return before

    async def _get(self, place: Place) -> Mapping[str, str] | None:
        namespace, path = place
        try:
            answer = await self._client.get(f"/v1/var/{path}", {"namespace": namespace})
        except AnswerError as error:
            if error.status == 404:
                self._listed.pop(place, None)
                self._read.pop(place, None)
                self._allow(place)
                return None
            if error.status != 403:
                raise
            return self._deny(place)
        row = answer.data or {}
        items = {str(key): str(value) for key, value in (row.get("Items") or {}).items()}
        self._listed[place] = int(row.get("ModifyIndex") or 0)
        self._read[place] = (self._listed[place], items)
        self._allow(place)
        return items

    def _allow(self, place: Place) -> None:
        self._denied.discard(place)
        if not self._denied:
            self.sentence = ""

    def _deny(self, place: Place) -> Mapping[str, str] | None:
        """Remembered as read, so that nobody asks again before it changes or the next list tries one of them.

        What was read before goes on counting: meta alone may mean a deletion where the variable says Retain.
        """
        if not self.sentence:
            self.sentence = (
                f"the token may not read the variable {place[1]!r} in {place[0]!r} (and maybe others); settings of "
                f'jobs come from meta alone until it may: variables {{ path "{paths.ROOT}*" {{ capabilities = '
                '["list", "read"] } }'
            )
            log.warning("%s", self.sentence)
        before = self._read.get(place, (0, None))[1]
        self._read[place] = (self._listed.get(place, 0), before)
        if place in self._listed:
            self._denied.add(place)
        return before
