"""Leader election on Leases: which of several replicas acts, and that upstream's replicas stand by beside us.

The right to act is an instant on this host's monotonic clock that is compared at the moment of acting. No timer has
to fire for it to end: a process that was stopped, or whose election task has died, finds out before its next write.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import pathlib
import random
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, assert_never

from adapters.kubernetes import connection, names
from adapters.kubernetes.client import Client
from adapters.kubernetes.decide import election as decide
from adapters.kubernetes.ownership import lease_name
from adapters.kubernetes.problem import ApiError
from adapters.kubernetes.settings import Settings
from bridge.model import failure
from bridge.ports.clock import Clock

Object = dict[str, Any]
log = logging.getLogger(__name__)

NEW_DRIVERS_SECONDS = 0.5
TOGETHER_SECONDS = 0.05
GOODBYE_SECONDS = 2.0
LATE_SECONDS = 20.0
"""How long after a lease's end its holder may still hope to renew it, before a probe calls it stuck."""
_NEVER = float("-inf")


def monotonic() -> float:
    """Seconds that go on while this process is stopped and, where the system knows how, while the host sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def identity(wanted: str) -> str:
    """Who we are in a lease: a name for people, and a suffix that no other process has."""
    name = wanted or os.environ.get("POD_NAME") or socket.gethostname()
    return f"{name}_{secrets.token_hex(4)}"


def namespace(wanted: str, service_account_dir: str) -> str:
    """Where the leases are: as upstream looks for it, the pod's own namespace unless told otherwise."""
    if wanted:
        return wanted
    if os.environ.get("POD_NAMESPACE"):
        return os.environ["POD_NAMESPACE"]
    with contextlib.suppress(OSError):
        return (pathlib.Path(service_account_dir) / "namespace").read_text(encoding="utf-8").strip() or "default"
    return "default"


class Candidate:
    """One lease, and our part in it."""

    def __init__(
        self, client: Client, clock: Clock, *, namespace: str, name: str, me: str, terms: decide.Terms
    ) -> None:
        self._client = client
        self._clock = clock
        self._namespace = namespace
        self._me = me
        self._terms = terms
        self.name = name
        self.seen: decide.Seen | None = None
        self.hold = decide.Hold()
        self.fresh_term = 0
        """The term for which the caches have been read anew."""
        self.error = ""
        """What the last try ended with; `trouble` is the part of it that only people can mend."""
        self.trouble = ""
        self.kick = asyncio.Event()
        self._unsure = False
        """A write of ours was not answered: the lease may have another version than we know."""

    @property
    def holding(self) -> bool:
        """Whether it is ours at this moment."""
        return monotonic() < self.hold.until

    @property
    def leading(self) -> bool:
        """Whether it is ours, and the caches are newer than the instant at which it became so."""
        return self.holding and self.fresh_term == self.hold.term

    @property
    def leader(self) -> str:
        """Who holds it, as last read; empty for nobody."""
        return self.seen.holder if self.seen is not None else ""

    def drop(self) -> None:
        """Stop acting, now."""
        if self.hold.until > _NEVER:
            log.warning("the lease is lost", extra={"lease": self.name, "holder": self.leader})
        self.hold = decide.Hold(_NEVER, self.hold.term)

    async def step(self, wanted: bool) -> float:
        """Do the one next thing. Returns the seconds until the next look."""
        if self.leader != self._me or self._unsure:
            await self._look()
        action = decide.decide(self.seen, me=self._me, wanted=wanted, now=monotonic(), terms=self._terms)
        match action:
            case decide.StandBy(_, seconds):
                return seconds
            case decide.Create() | decide.Take() | decide.Renew() | decide.Release():
                await self._write(action)
            case _:
                assert_never(action)
        return self._terms.retry_seconds * random.uniform(0.9, 1.0)

    async def release(self) -> None:
        """Empty the lease if it is ours, so that the next one need not wait for its end."""
        self.hold = decide.Hold(_NEVER, self.hold.term)
        if self._unsure:
            await self._look()
        if self.leader == self._me:
            await self._write(decide.Release())

    async def _look(self) -> None:
        try:
            lease = await self._ask(self._client.get(names.LEASES, self._namespace, self.name))
        except ApiError as error:
            if not error.missing:
                raise
            self.seen = None
        else:
            self.seen = decide.look(self.seen, lease, monotonic(), self._terms)
        self._unsure = False
        if self.leader != self._me:
            self.drop()

    async def _write(self, action: decide.Create | decide.Take | decide.Renew | decide.Release) -> None:
        """Write the lease. Where somebody else wrote it before us, look anew: it may be theirs now."""
        if isinstance(action, decide.Release):
            self.hold = decide.Hold(_NEVER, self.hold.term)
        now = datetime.datetime.fromtimestamp(self._clock.now(), datetime.UTC)
        stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = self._metadata()
        spec = decide.spec_for(action, self.seen, me=self._me, stamp=stamp, terms=self._terms)
        body = {"apiVersion": names.LEASES.api_version, "kind": names.LEASES.kind, "metadata": metadata, "spec": spec}
        sent = monotonic()
        self._unsure = True
        try:
            if self.seen is None:
                answer = await self._ask(self._client.create(names.LEASES, self._namespace, body))
            else:
                answer = await self._ask(self._client.put(names.LEASES, body))
        except ApiError as error:
            self._unsure = False
            if error.conflict or (error.missing and self.seen is not None):
                return await self._look()
            raise
        self._unsure = False
        self.seen = decide.look(None, answer, monotonic(), self._terms)
        if not isinstance(action, decide.Release):
            self._won(sent)
        return None

    def _metadata(self) -> Object:
        """Of the lease that is written: what others have put on it stays."""
        kept = {} if self.seen is None else dict(self.seen.kept)
        metadata: Object = {**kept, "name": self.name, "namespace": self._namespace}
        if self._terms.labels:
            metadata["labels"] = {**(metadata.get("labels") or {}), **self._terms.labels}
        if self.seen is not None:
            metadata["resourceVersion"] = self.seen.version
        return metadata

    def _won(self, sent: float) -> None:
        before = self.hold.term
        self.hold = decide.held(self.hold, sent=sent, now=monotonic(), terms=self._terms)
        if self.hold.term != before:
            log.info("the lease is ours", extra={"lease": self.name, "identity": self._me})

    async def _ask(self, request: Awaitable[Object]) -> Object:
        seconds = decide.request_seconds(self.hold, monotonic(), self._terms)
        try:
            async with asyncio.timeout(seconds):
                return await request
        except TimeoutError as error:
            raise failure.UnavailableError(f"no answer about the lease {self.name} in {seconds:.1f} s") from error


class Election:
    """The leases of one `Scope`: the cluster's, one per driver, or both."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        *,
        namespace: str,
        me: str,
        terms: decide.Terms,
        drivers: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._client = client
        self._clock = clock
        self._terms = terms
        self._drivers = drivers if terms.scope is not decide.Scope.CLUSTER else tuple
        self._scope = terms.scope
        self.namespace = namespace
        self.me = me
        self._candidates: dict[str, Candidate] = {}
        """By driver; the empty name is the cluster's lease."""
        if self._scope is not decide.Scope.DRIVERS:
            self._candidates[""] = self._candidate("")
        self._news = asyncio.Event()

    def lease(self, driver: str) -> str:
        """The name of a driver's lease; of the cluster's for no driver."""
        return lease_name(driver)

    def why_not(self, driver: str) -> str:
        """Why we may not act for this driver at this moment; empty when we may. The empty driver: for the cluster."""
        names_needed = self._needed(driver)
        if not names_needed:
            return "standing by: no driver is known yet"
        for name in names_needed:
            candidate = self._candidates.get(name)
            if candidate is None:
                return f"driver {name}: its lease {self.lease(name)} is not ours yet"
            if not candidate.holding:
                who = candidate.leader if candidate.leader not in ("", self.me) else "not known yet"
                where = f"the lease {self.namespace}/{candidate.name}"
                apart = name and self._scope is decide.Scope.BOTH
                what = f"driver {name}: {where} is not ours" if apart else f"standing by ({where})"
                return f"{what}; leader is {who}"
            if not candidate.leading:
                return f"taking over ({self.namespace}/{candidate.name} is ours): reading the cluster anew"
        return ""

    def trouble(self) -> str:
        """Why no replica of ours can lead: we are not allowed to, or the namespace is missing. Else empty."""
        for name in self._needed(""):
            candidate = self._candidates.get(name)
            if candidate is not None and candidate.trouble:
                return candidate.trouble
        return ""

    def held(self) -> Mapping[str, bool]:
        """Each lease that we stand for, by name, and whether it is ours."""
        return {candidate.name: candidate.holding for candidate in self._candidates.values()}

    def late(self) -> str:
        """Why this process should be started anew: a lease that names us was not renewed for long. Else empty."""
        most = self._terms.lease_seconds + LATE_SECONDS
        for candidate in self._candidates.values():
            ours = candidate.leader == self.me and candidate.hold.until > _NEVER
            renewed = candidate.hold.until - self._terms.renew_deadline_seconds
            if ours and monotonic() - renewed > most:
                return f"the lease {self.namespace}/{candidate.name} was not renewed for {most:.0f} s"
        return ""

    def standing_by(self) -> Sequence[str]:
        """What people may want to know though nothing is wrong."""
        whole = self.why_not("")
        if whole:
            return [whole]
        return [reason for driver in sorted(self._drivers()) if (reason := self.why_not(driver))]

    @contextlib.asynccontextmanager
    async def acting(self, driver: str = "") -> AsyncIterator[None]:
        """Wrap a write: ElsewhereError when we may not act; an answer that would come too late is not waited for.

        For a driver that we do not stand for (an owner's own write through the API) the cluster's lease is enough.
        """
        driver = driver if driver in self._candidates else ""
        reason = self.why_not(driver)
        if reason:
            raise failure.ElsewhereError(reason)
        until = min(self._candidates[name].hold.until for name in self._needed(driver))
        margin = self._terms.lease_seconds - self._terms.renew_deadline_seconds
        try:
            async with asyncio.timeout(until + margin - monotonic()):
                yield
        except TimeoutError as error:
            raise failure.UnavailableError("no answer while the lease was ours") from error

    async def run(self, catch_up: Callable[[bool], Awaitable[None]], leading: Callable[[], None]) -> None:
        """Stand, lead and stand by until cancelled; then give the leases back.

        After a win `catch_up` must read the cluster anew (its argument: whether we led before); `leading` is
        called when we may act.
        """
        try:
            async with asyncio.TaskGroup() as group:
                if "" in self._candidates:
                    group.create_task(self._stand("", self._candidates[""]), name="lease-cluster")
                group.create_task(self._catch_up(catch_up, leading), name="lease-catch-up")
                while True:
                    for driver in self._drivers():
                        if driver not in self._candidates:
                            self._candidates[driver] = self._candidate(driver)
                            stand = self._stand(driver, self._candidates[driver])
                            group.create_task(stand, name=f"lease-{driver}")
                    await asyncio.sleep(NEW_DRIVERS_SECONDS)
        finally:
            await self._goodbye()

    async def _stand(self, driver: str, candidate: Candidate) -> None:
        while True:
            term = candidate.hold.term
            candidate.kick.clear()
            try:
                pause = await candidate.step(decide.wanted(self._scope, driver, self._holds_cluster()))
                candidate.error = candidate.trouble = ""
            except failure.BridgeError as error:
                pause = self._failed(candidate, error)
            if candidate.hold.term != term:
                self._news.set()
                if not driver:
                    for other in self._candidates.values():
                        other.kick.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await candidate.kick.wait()

    def _failed(self, candidate: Candidate, error: failure.BridgeError) -> float:
        if candidate.error != str(error):
            log.warning("a lease could not be kept or taken", extra={"lease": candidate.name, "error": str(error)})
        candidate.error = str(error)
        hopeless = isinstance(error, ApiError) and error.status in (403, 404)
        candidate.trouble = f"the lease {self.namespace}/{candidate.name}: {error}" if hopeless else ""
        return min(self._terms.retry_seconds, self._terms.renew_deadline_seconds / 5)

    async def _catch_up(self, catch_up: Callable[[bool], Awaitable[None]], leading: Callable[[], None]) -> None:
        while True:
            await self._news.wait()
            # The drivers' leases follow the cluster's at once: one reading for all.
            await asyncio.sleep(TOGETHER_SECONDS)
            self._news.clear()
            won = {
                candidate: candidate.hold.term
                for driver, candidate in self._candidates.items()
                if candidate.holding
                and not candidate.leading
                and decide.wanted(self._scope, driver, self._holds_cluster())
            }
            if not won:
                continue
            try:
                await catch_up(any(term > 1 for term in won.values()))
            except (failure.BridgeError, TimeoutError) as error:
                log.warning("the cluster cannot be read after the take-over", extra={"error": repr(error)})
                await asyncio.sleep(NEW_DRIVERS_SECONDS)
                self._news.set()
                continue
            for candidate, term in won.items():
                if candidate.hold.term == term:
                    candidate.fresh_term = term
            leading()

    async def _goodbye(self) -> None:
        """Stop acting. First the drivers' leases: who takes the cluster's then finds them free."""
        drivers = [candidate for driver, candidate in self._candidates.items() if driver]
        cluster = [candidate for driver, candidate in self._candidates.items() if not driver]
        for candidate in self._candidates.values():
            candidate.hold = decide.Hold(_NEVER, candidate.hold.term)
        for some in (drivers, cluster):
            done = await asyncio.gather(*(self._let_go(one) for one in some), return_exceptions=True)
            for one, error in zip(some, done, strict=True):
                if error is not None:
                    log.warning("a lease was not given back", extra={"lease": one.name, "error": repr(error)})
        await self._client.close()

    async def _let_go(self, candidate: Candidate) -> None:
        async with asyncio.timeout(GOODBYE_SECONDS):
            await candidate.release()

    def _needed(self, driver: str) -> tuple[str, ...]:
        standing = tuple(name for name in self._candidates if name)
        return decide.needed(self._scope, driver, standing)

    def _holds_cluster(self) -> bool:
        cluster = self._candidates.get("")
        return cluster is not None and cluster.holding

    def _candidate(self, driver: str) -> Candidate:
        return Candidate(
            self._client,
            self._clock,
            namespace=self.namespace,
            name=self.lease(driver),
            me=self.me,
            terms=self._terms,
        )


async def stand(
    settings: Settings,
    clock: Clock,
    *,
    scope: decide.Scope,
    drivers: Callable[[], Iterable[str]] = tuple,
    kind: type[Election] = Election,
) -> Election:
    """An election as the settings want it; `drivers` are asked for again and again. Nothing is sent before `run`.

    Its own connections: a busy process must not lose its lease in the queue for one.
    """
    way = await connection.open_connection(settings)
    return kind(
        Client(way, timeout_seconds=settings.renew_deadline_seconds),
        clock,
        namespace=namespace(settings.lease_namespace, settings.service_account_dir),
        me=identity(settings.identity),
        terms=decide.Terms(
            settings.lease_seconds,
            settings.renew_deadline_seconds,
            settings.retry_seconds,
            scope,
            settings.lease_labels,
        ),
        drivers=drivers,
    )
