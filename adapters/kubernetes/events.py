"""Events on VolumeSnapshots: what `kubectl describe` shows. Telling is best effort; it never stops the work."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from adapters.kubernetes import names, shape
from adapters.kubernetes.client import Client
from adapters.kubernetes.decide import bound_status
from adapters.kubernetes.writer import Acting, always
from bridge.model import failure
from bridge.ports.clock import Clock

Object = dict[str, Any]
log = logging.getLogger(__name__)

MOST_MESSAGE = 1024
"""The API server refuses longer messages."""
REMEMBERED = 4096


class Events:
    """Writes events; the same one about the same object is not written twice in a row."""

    def __init__(
        self, client: Client, clock: Clock, acting: Acting = always, *, component: str = names.COMPONENT
    ) -> None:
        """`component`: who the events say they are from."""
        self._client = client
        self._acting = acting
        self._clock = clock
        self._component = component
        self._last: dict[str, tuple[str, str]] = {}
        self._count = 0

    async def tell(self, about: Object, reason: str, message: str) -> None:
        """Good news."""
        await self._write(about, "Normal", reason, message)

    async def warn(self, about: Object, reason: str, message: str) -> None:
        """Bad news, once until something else is told of the same object."""
        await self._write(about, "Warning", reason, message)

    @contextlib.asynccontextmanager
    async def refusals(self, about: Object | None, reason: str) -> AsyncIterator[None]:
        """Tell the owner of `about` when the API server refuses a write in this block; the refusal goes on."""
        try:
            yield
        except (failure.DeniedError, failure.InvalidError) as error:
            if about is not None:
                told = bound_status.refusal(about, reason, str(error))
                await self.warn(about, told.reason, told.message)
            raise

    async def _write(self, about: Object, kind: str, reason: str, message: str) -> None:
        metadata = about["metadata"]
        if self._last.get(metadata["uid"]) == (reason, message):
            return
        if len(self._last) >= REMEMBERED:
            self._last.clear()
        self._last[metadata["uid"]] = (reason, message)
        self._count += 1
        now = shape.rfc3339(self._clock.now())
        namespace = metadata.get("namespace") or "default"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:200]}.{time.time_ns():x}{self._count & 0xFFF:03x}",
                "namespace": namespace,
            },
            "involvedObject": {
                "apiVersion": about.get("apiVersion") or names.API_VERSION,
                "kind": about.get("kind") or names.SNAPSHOTS.kind,
                "namespace": metadata.get("namespace", ""),
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": kind,
            "reason": reason,
            "message": message[:MOST_MESSAGE],
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            async with self._acting(""):
                await self._client.create(names.EVENTS, namespace, body)
        except failure.BridgeError as error:
            log.warning("an event could not be written", extra={"reason": reason, "error": str(error)})
