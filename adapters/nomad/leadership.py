"""Leadership by a lock on a Nomad variable: which of several replicas of the service acts.

The servers keep a lock for at least its TTL after a renewal (in truth for twice that, and the delay on top), so the
right to act ends earlier than the TTL, counted from the moment before the renewal was sent. It is compared at the
moment of acting: no timer has to fire for it to end, and a process that was stopped finds out before its next write.

The variable is written by the lock's own verbs only. A plain put with the lock's id would set its times to 15 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable

from adapters.nomad import errors
from adapters.nomad.client import Client
from adapters.nomad.errors import AnswerError
from adapters.nomad.settings import LeadershipSettings
from adapters.nomad.wire import Row
from bridge.model import quantity
from bridge.model.failure import BridgeError, FailureKind, UnavailableError

log = logging.getLogger(__name__)

ACT_FRACTION = 0.8
"""Of the TTL: how long after a renewal was sent we may act."""
RENEW_FRACTION = 0.2
_LOOK_MOST_SECONDS = 5.0
_LOOK_LEAST_SECONDS = 0.1
_RETRY_SECONDS = 1.0
_GOODBYE_SECONDS = 2.0
_NEVER = float("-inf")


def monotonic() -> float:
    """Seconds that go on while this process is stopped and, where the system knows how, while the host sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def identity() -> str:
    """A name for people, and a suffix that no other process has."""
    name = os.environ.get("NOMAD_ALLOC_ID", "")[:8] or socket.gethostname()
    return f"{name}_{secrets.token_hex(4)}"


class VariableLock:
    """The `Leadership` port. `client` must be one of its own: it may write while we do not lead."""

    def __init__(
        self, client: Client, settings: LeadershipSettings, me: str = "", now: Callable[[], float] = monotonic
    ) -> None:
        self._client = client
        self._now = now
        self._settings = settings
        self.me = me or identity()
        self._path = f"/v1/var/{settings.variable}"
        self._lock = ""
        """The id of our lock; empty while it is not ours."""
        self._until = _NEVER
        self._holder: Row = {}
        self._index = 0
        self._error = ""
        self._trouble = ""
        self._turn = asyncio.Condition()

    @property
    def leader(self) -> str:
        return str(self._holder.get("holder") or "")

    @property
    def leader_address(self) -> str:
        return str(self._holder.get("address") or "")

    @property
    def trouble(self) -> str:
        return self._trouble

    def why_not(self) -> str:
        if self._now() < self._until:
            return ""
        where = f"the variable {self._settings.variable} in the namespace {self._settings.namespace!r}"
        if self._lock:
            return f"the lock on {where} was not renewed in time"
        who = f"{self.leader} leads" if self.leader else "nobody is known to lead yet"
        return f"standing by ({where}); {who}" + (f"; {self._error}" if self._error else "")

    async def gained(self) -> None:
        async with self._turn:
            await self._turn.wait_for(lambda: self._now() < self._until)

    async def lost(self) -> None:
        async with self._turn:
            await self._turn.wait_for(lambda: not self._lock)

    @property
    def mark_place(self) -> str:
        return f"the Nomad variable {self._settings.variable}/ledger in the namespace {self._settings.namespace!r}"

    async def last_mark(self) -> str:
        _, mark = await self._mark()
        return mark

    async def leave_mark(self, mark: str) -> None:
        index, _ = await self._mark()
        query = {"namespace": self._settings.namespace, "cas": str(index)}
        try:
            await self._client.call("PUT", f"{self._path}/ledger", query, body={"Items": {"mark": mark}})
        except AnswerError as error:
            raise UnavailableError(str(errors.as_error(error, f"write {self.mark_place}"))) from None

    async def _mark(self) -> tuple[int, str]:
        """The variable's index and the mark in it; (0, "") where there is none: then the write makes it or fails."""
        try:
            answer = await self._client.get(f"{self._path}/ledger", {"namespace": self._settings.namespace})
        except AnswerError as error:
            if error.status == 404:
                return 0, ""
            raise UnavailableError(str(errors.as_error(error, f"read {self.mark_place}"))) from None
        row: Row = answer.data or {}
        return int(row.get("ModifyIndex") or 0), str((row.get("Items") or {}).get("mark") or "")

    async def run(self) -> None:
        try:
            while True:
                try:
                    pause = await (self._keep() if self._lock else self._stand())
                    self._error = self._trouble = ""
                except (AnswerError, BridgeError) as error:
                    pause = self._failed(error)
                async with self._turn:
                    self._turn.notify_all()
                await asyncio.sleep(pause * random.uniform(0.9, 1.0))
        finally:
            await self._goodbye()

    def _failed(self, error: AnswerError | BridgeError) -> float:
        told = errors.as_error(error, "take or keep the lock") if isinstance(error, AnswerError) else error
        if str(told) != self._error:
            log.warning("the lock could not be taken or kept", extra={"error": str(told)})
        self._error = str(told)
        hopeless = isinstance(error, AnswerError) and error.status in (400, 403)
        self._trouble = f"leadership: {told}" if hopeless or isinstance(error, _NoLocksError) else ""
        return _RETRY_SECONDS

    async def _stand(self) -> float:
        """Wait until the lock is free, then take it. A lock that carries our own name is an answer that was lost."""
        row = await self._look()
        lock = str((row.get("Lock") or {}).get("ID") or "")
        self._holder = dict(row.get("Items") or {}) if lock else {}
        if lock and self.leader == self.me:
            self._lock = lock
            return await self._keep()
        if lock:
            return _LOOK_LEAST_SECONDS  # the look itself waits
        return await self._take()

    async def _look(self) -> Row:
        """The variable, or {}. Waits for a change of one that was seen before."""
        query = {"namespace": self._settings.namespace}
        try:
            if self._index:
                answer = await self._client.wait(
                    self._path, query, index=self._index, wait_seconds=min(self._ttl / 3, _LOOK_MOST_SECONDS)
                )
            else:
                answer = await self._client.get(self._path, query)
        except AnswerError as error:
            self._index = 0
            if error.status == 404:
                return {}
            raise
        row: Row = answer.data or {}
        self._index = answer.index if row.get("Lock") else 0
        return row

    async def _take(self) -> float:
        settings = self._settings
        items = {"holder": self.me, **({"address": settings.address} if settings.address else {})}
        lock = {"TTL": f"{settings.ttl_seconds}s", "LockDelay": f"{settings.delay_seconds}s"}
        sent = self._now()
        try:
            row = await self._call("lock-acquire", {"Items": items, "Lock": lock})
        except AnswerError as error:
            if error.status != 409:
                raise
            return _RETRY_SECONDS  # another was faster, or the delay after a holder's death runs
        found = str((row.get("Lock") or {}).get("ID") or "")
        if not found:
            raise _NoLocksError(
                "Nomad wrote the variable and locked nothing: variables have locks since 1.7",
                hint="upgrade Nomad, or take `leadership` out and run one replica",
            )
        self._lock, self._holder = found, items
        self._win(sent, row)
        log.info("this replica leads", extra={"identity": self.me, "variable": settings.variable})
        return self._ttl * RENEW_FRACTION

    async def _keep(self) -> float:
        """Renew. What is refused is lost; what is not answered is tried again until our own time is over."""
        sent = self._now()
        try:
            row = await self._call("lock-renew", {"Lock": {"ID": self._lock}})
        except (AnswerError, UnavailableError) as error:
            refused = isinstance(error, AnswerError) and _is_lost(error)
            if refused or sent >= self._until:
                self._drop(str(error))
            if refused:
                return 0.0
            raise
        self._win(sent, row)
        return self._ttl * RENEW_FRACTION

    def _win(self, sent: float, row: Row) -> None:
        told = quantity.parse_duration(str((row.get("Lock") or {}).get("TTL") or f"{self._settings.ttl_seconds}s"))
        self._until = sent + min(self._ttl, told) * ACT_FRACTION

    def _drop(self, reason: str) -> None:
        log.warning("the lock is lost", extra={"identity": self.me, "reason": reason})
        self._lock, self._until, self._index, self._holder = "", _NEVER, 0, {}

    async def _goodbye(self) -> None:
        lock, self._lock, self._until = self._lock, "", _NEVER
        if lock:
            with contextlib.suppress(AnswerError, BridgeError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await self._call("lock-release", {"Lock": {"ID": lock}})
                    log.info("the lock is given back", extra={"identity": self.me})
        await self._client.close()

    async def _call(self, verb: str, body: Row) -> Row:
        query = {"namespace": self._settings.namespace, verb: ""}
        answer = await self._client.call(
            "PUT", self._path, query, body=body, timeout_seconds=max(1.0, self._ttl * RENEW_FRACTION)
        )
        return answer.data or {}

    @property
    def _ttl(self) -> float:
        return float(self._settings.ttl_seconds)


def _is_lost(error: AnswerError) -> bool:
    """Whether Nomad said that the lock is another's, or nobody's."""
    failure = errors.classify(error.status, error.text)
    return failure.kind is FailureKind.REFUSED and failure.code in ("CONFLICT", "INVALID_ARGUMENT", "NOT_FOUND")


class _NoLocksError(UnavailableError):
    """This Nomad has no locks on variables (versions.py, NO_LOCKS)."""
