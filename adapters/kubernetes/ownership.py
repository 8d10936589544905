"""For which drivers this process may act. Two controllers never act on one driver.

A driver is ours when the settings name it (or, when they name none, when this process holds its plugin) and no
other controller shows itself: by a live lease, or by creating snapshots of that driver before our eyes. With leader
election the leases of one namespace must be ours besides.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from adapters.kubernetes import names
from adapters.kubernetes.client import Client
from adapters.kubernetes.facts import path
from bridge.model import failure
from bridge.ports.clock import Clock

Object = dict[str, Any]
log = logging.getLogger(__name__)

SKEW_SECONDS = 5.0
LONG_DEAD_SECONDS = 600.0
"""A lease that was last renewed so long ago is dead at first sight, whatever the difference between the clocks."""
TAKE_BACK_SECONDS = 0.5


class Elected(Protocol):
    """What leader election says."""

    @property
    def namespace(self) -> str:
        """Whose leases are the election's own business."""
        ...

    def why_not(self, driver: str) -> str:
        """Why this process may not act for the driver at this moment; empty when it may."""
        ...


class Ownership:
    """Answers `ours`, and wakes what it had to turn away when the answer changes."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        *,
        drivers: Sequence[str],
        serves: Callable[[str], bool] | None,
        check_seconds: float,
        quiet_seconds: float,
    ) -> None:
        self._client = client
        self._clock = clock
        self._drivers = frozenset(drivers)
        self._serves = serves
        self._check_seconds = check_seconds
        self._quiet_seconds = quiet_seconds
        self._leases: dict[str, str] = {}
        """Driver -> who holds its lease, while that lease is live. The empty driver is the cluster's controller."""
        self._renewals: dict[str, tuple[float, float]] = {}
        """Lease -> (its last renewal by its holder's clock, when that was first seen here by ours)."""
        self._foreign_until: dict[str, float] = {}
        self._turned_away: dict[str, set[str]] = {}
        self._seen: set[str] = set(drivers)
        self._looked_up: set[str] = set()
        self._news = asyncio.Event()
        self._blind = ""
        self.election: Elected | None = None
        """Set where replicas share the work."""
        self.cluster_lease = True
        """Whether the cluster half's lease is in our way too: not for a driver half, which works beside it."""
        self.lease: Callable[[str], str] = lease_name
        """What the leases of the others are called."""
        self.lease_namespace = ""
        """Where to look when the leases of the whole cluster may not be read; empty for nowhere else."""

    def chosen_drivers(self) -> Sequence[str]:
        """The drivers that we have met and are to serve, whoever else does."""
        return [driver for driver in sorted(self._seen) if self._chosen(driver)]

    def ours(self, driver: str, uid: str) -> bool:
        """Whether this process may act on this snapshot. A no is remembered, and taken back by `run`."""
        if driver:
            self.meet(driver)
        if self._may(driver):
            return True
        self._turned_away.setdefault(driver, set()).add(uid)
        return False

    def acts(self, driver: str) -> bool | None:
        """`ours` without a snapshot that waits for the answer; None while it is not known."""
        self.meet(driver)
        if driver not in self._looked_up and not self._blind:
            return None
        return self._may(driver)

    def why_not(self, driver: str) -> str:
        """Why `ours` said no."""
        reason = self._reason(driver)
        if reason:
            return reason
        if not self._chosen(driver):
            return f"driver {driver} is not served here"
        if self.election is not None and (reason := self.election.why_not(driver)):
            return reason
        return f"driver {driver or '(none)'}: not known yet whether another controller acts for it"

    def delegated(self) -> Sequence[tuple[str, bool, str]]:
        """(driver, whether somebody is seen to act for it, why we do not) for each driver met that is not ours."""
        found = []
        for driver in sorted(self._seen):
            reason = self._reason(driver)
            if reason:
                found.append((driver, True, f"delegated: {reason.partition('; ')[0]}"))
            elif not self._chosen(driver):
                missing = f"no live lease {self.lease(driver)} shows who acts for it"
                found.append((driver, False, f"delegated: not served here, and {missing}"))
        return found

    def meet(self, driver: str) -> None:
        """A driver exists: its lease is looked up soon, and nothing is done for it before that."""
        if driver not in self._seen:
            self._seen.add(driver)
            self._news.set()

    def forget(self, uid: str) -> None:
        """The snapshot is gone."""
        for uids in self._turned_away.values():
            uids.discard(uid)

    def sentence(self) -> str:
        """Why we do not act for a driver that would be ours; empty when there is none."""
        if "" in self._leases:
            return self._reason("")
        reasons = [self._reason(driver) for driver in sorted(self._seen) if self._chosen(driver)]
        return "; ".join(reason for reason in reasons if reason)

    def saw_foreign_create(self, driver: str, content: str) -> None:
        """Another controller marked a content as being created. Who holds the driver's lease is known already."""
        if driver in self._leases:
            return
        if driver not in self._foreign_until:
            log.warning("another controller creates snapshots", extra={"driver": driver, "content": content})
        self._foreign_until[driver] = self._clock.now() + self._quiet_seconds

    async def check(self) -> None:
        """Look at the leases of every driver that we have met."""
        live: dict[str, str] = {}
        drivers = ("", *sorted(self._seen)) if self.cluster_lease else tuple(sorted(self._seen))
        for driver in drivers:
            holder = await self._live_holder(self.lease(driver))
            if holder:
                live[driver] = holder
        for driver in live.keys() - self._leases.keys():
            log.warning("another controller holds the lease", extra={"driver": driver, "holder": live[driver]})
            if driver:
                self._foreign_until.pop(driver, None)  # It was this one. Its lease says when it ends.
        self._leases = live
        self._looked_up.update(drivers)
        self._blind = ""

    async def run(self, wake: Callable[[str], None]) -> None:
        """Check now and then, and at once when a driver is new, until cancelled."""
        pause = self._check_seconds
        while True:
            self._news.clear()
            try:
                await self.check()
                pause = self._check_seconds
            except failure.DeniedError as error:
                self._go_blind(error)
            except failure.BridgeError as error:
                log.warning("leases cannot be read", extra={"error": str(error)})
                pause = min(1.0, self._check_seconds)
            self._take_back(wake)
            await self._pause(pause, wake)

    async def _pause(self, seconds: float, wake: Callable[[str], None]) -> None:
        """Sleep; end early for a new driver, and look often whether a plugin has appeared that we waited for."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while not self._news.is_set() and (left := ends - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), min(left, TAKE_BACK_SECONDS))
            self._take_back(wake)

    def _go_blind(self, error: failure.DeniedError) -> None:
        """Without the right to read leases only foreign writes can be seen."""
        if not self._blind:
            log.warning("leases may not be read; only foreign writes are noticed", extra={"error": str(error)})
        self._blind = str(error)

    def _take_back(self, wake: Callable[[str], None]) -> None:
        now = self._clock.now()
        self._foreign_until = {name: until for name, until in self._foreign_until.items() if until > now}
        for driver in [driver for driver in self._turned_away if self._may(driver)]:
            for uid in self._turned_away.pop(driver):
                wake(uid)

    def _may(self, driver: str) -> bool:
        known = bool(self._blind) or (driver in self._looked_up and ("" in self._looked_up or not self.cluster_lease))
        elected = self.election is None or not self.election.why_not(driver)
        return elected and known and self._chosen(driver) and not self._reason(driver)

    def _chosen(self, driver: str) -> bool:
        if not driver:
            return True
        if self._drivers:
            return driver in self._drivers
        return self._serves is None or self._serves(driver)

    def _reason(self, driver: str) -> str:
        for held in ("", driver):
            if held in self._leases:
                lease, holder = self.lease(held), self._leases[held]
                who = f"driver {driver or '(any)'}"
                return f"{who}: another controller holds the lease {lease} ({holder}); stop it first"
        if self._foreign_until.get(driver, 0.0) > self._clock.now():
            return f"driver {driver}: another controller creates its snapshots; stop it, or take the driver out"
        return ""

    async def _live_holder(self, name: str) -> str:
        try:
            try:
                return await self._holder_in("", name)
            except failure.BridgeError as error:
                if getattr(error, "status", 0) != 403 or not self.lease_namespace:
                    raise
            return await self._holder_in(self.lease_namespace, name)
        except failure.BridgeError as error:
            if getattr(error, "status", 0) == 403:
                raise failure.DeniedError(error.message) from error
            raise

    async def _holder_in(self, namespace: str, name: str) -> str:
        async for lease in self._client.list(names.LEASES, namespace, field_selector=f"metadata.name={name}"):
            if self.election is not None and path(lease, "metadata", "namespace") == self.election.namespace:
                continue
            holder = path(lease, "spec", "holderIdentity")
            if holder and self._is_live(lease):
                return str(holder)
        return ""

    def _is_live(self, lease: Object) -> bool:
        """As client-go sees it: by when a renewal was seen here, for the holder's clock may not be ours."""
        name = str(path(lease, "metadata", "namespace")) + "/" + str(path(lease, "metadata", "name"))
        renewed, seconds = path(lease, "spec", "renewTime"), path(lease, "spec", "leaseDurationSeconds")
        if not renewed:
            return False
        try:
            at = datetime.datetime.fromisoformat(str(renewed)).timestamp()
        except ValueError:
            return True
        now, lasts = self._clock.now(), float(seconds or 15) + SKEW_SECONDS
        before = self._renewals.get(name)
        if before is None:
            self._renewals[name] = (at, now if at + lasts + LONG_DEAD_SECONDS > now else at)
        elif at > before[0]:
            self._renewals[name] = (at, now)
        return max(at, self._renewals[name][1]) + lasts > now


def lease_name(driver: str) -> str:
    """Upstream's lease for a driver's sidecar; for no driver, that of its cluster controller."""
    if not driver:
        return names.CONTROLLER_LEASE
    name = names.SIDECAR_LEASE + re.sub(r"[^a-zA-Z0-9-]", "-", driver)
    return f"{name}X" if name.endswith("-") else name
