"""A summary per job as a Nomad variable, for people who look in Nomad first. It is told, never read back.

The path `snapbridge/status/<job>` is ours alone; settings of a job may live beside it, and are not touched.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from adapters.nomad.client import Client
from adapters.nomad.decide import paths
from adapters.nomad.errors import AnswerError
from bridge.model.failure import UnavailableError

log = logging.getLogger(__name__)

_MOST_TEXT = 8000


class Summaries:
    """Writes summaries that changed, while the token may."""

    def __init__(self, client: Client, *, enabled: bool) -> None:
        self._client = client
        self._written: dict[tuple[str, str], Mapping[str, str]] = {}
        self.sentence = "" if enabled else "summaries are off (hooks.write_status)"
        """Why nothing is written; empty while it is."""

    async def tell(self, namespace: str, job: str, items: Mapping[str, str]) -> None:
        """Write the summary if it is another than the last one. Never raises: it is for people only."""
        if self.sentence or self._written.get((namespace, job)) == items:
            return
        bounded = {key: value[:_MOST_TEXT] for key, value in items.items()}
        path = f"/v1/var/{paths.status_path(job)}"
        try:
            index, there = await self._read(path, namespace)
            if there != bounded:
                await self._client.call(
                    "PUT", path, {"namespace": namespace, "cas": str(index)}, body={"Items": bounded}
                )
            self._written[(namespace, job)] = dict(items)
        except AnswerError as error:
            if error.status == 403:
                self.sentence = f"the token may not write variables under snapbridge/status in {namespace!r}"
                log.warning("no summaries of jobs are written: %s", self.sentence)
            else:
                log.warning("the summary of job %s was not written: %s", job, error)
        except UnavailableError as error:
            log.warning("the summary of job %s was not written: %s", job, error)

    async def _read(self, path: str, namespace: str) -> tuple[int, Mapping[str, str]]:
        """The variable's index and items; (0, {}) when there is none, so that the write makes it or fails."""
        try:
            answer = await self._client.get(path, {"namespace": namespace})
        except AnswerError as error:
            if error.status == 404:
                return 0, {}
            raise
        row = answer.data or {}
        return int(row.get("ModifyIndex") or 0), dict(row.get("Items") or {})
