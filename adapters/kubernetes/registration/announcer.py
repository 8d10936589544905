"""The Announcer port for a kubelet: one registration socket per driver, kept alive while the process runs."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from adapters.kubernetes.registration import place
from adapters.kubernetes.registration.server import Registration
from bridge.model.failure import BridgeError
from bridge.ports.clock import Clock

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class RegistrationSettings:
    """`registry` is the kubelet's plugins_registry directory, as this process sees it."""

    registry: str = "/var/lib/kubelet/plugins_registry"
    supported_versions: tuple[str, ...] = ("1.0.0",)
    check_interval_seconds: float = 1.0
    dial_timeout_seconds: float = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Announcement:
    """One announced driver, for people. `sentence` says what the kubelet made of it."""

    driver: str
    endpoint: str
    registered: bool
    sentence: str


class KubeletAnnouncer:
    """Implements bridge.ports.announce.Announcer. `told` hears each answer of the kubelet, on the loop."""

    def __init__(
        self, settings: RegistrationSettings, clock: Clock, *, told: Callable[[Announcement], None] | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._told = told
        self._registry = Path(settings.registry)
        self._registrations: dict[str, Registration] = {}
        self._lock = asyncio.Lock()

    def announcements(self) -> Sequence[Announcement]:
        """Every announced driver, by name."""
        return [_row(found) for _, found in sorted(self._registrations.items())]

    async def announce(self, driver: str, endpoint: str) -> None:
        """See the port."""
        place.check_endpoint(endpoint)
        path = place.socket_path(self._registry, driver)
        async with self._lock:
            found = self._registrations.get(driver)
            if found is not None and found.endpoint == endpoint:
                return
            if found is not None:
                del self._registrations[driver]
                await found.stop()
            registration = Registration(driver, endpoint, self._settings.supported_versions, self._answered)
            await registration.start(path, dial_timeout_seconds=self._settings.dial_timeout_seconds)
            self._registrations[driver] = registration
        log.info("a driver is announced", extra={"driver": driver, "endpoint": endpoint, "socket": str(path)})

    async def withdraw(self, driver: str) -> None:
        """See the port."""
        async with self._lock:
            found = self._registrations.pop(driver, None)
            if found is not None:
                await found.stop()
                log.info("a driver is withdrawn", extra={"driver": driver})

    async def run(self) -> None:
        """See the port. A socket whose name was taken away is put back; one taken by another process is not."""
        try:
            while True:
                await self._clock.sleep(self._settings.check_interval_seconds)
                async with self._lock:
                    for registration in self._registrations.values():
                        await self._keep(registration)
        finally:
            for driver in list(self._registrations):
                await self.withdraw(driver)

    def _answered(self, registration: Registration) -> None:
        if self._told is not None:
            self._told(_row(registration))

    async def _keep(self, registration: Registration) -> None:
        if registration.in_place():
            return
        await registration.stop()
        path = place.socket_path(self._registry, registration.driver)
        try:
            await registration.start(path, dial_timeout_seconds=self._settings.dial_timeout_seconds)
        except BridgeError as error:
            if registration.sentence != str(error):
                log.warning(
                    "a driver is no longer announced", extra={"driver": registration.driver, "reason": str(error)}
                )
            registration.sentence = str(error)
        else:
            registration.sentence = "no kubelet has asked yet"
            log.info("a driver is announced again", extra={"driver": registration.driver, "socket": str(path)})


def _row(found: Registration) -> Announcement:
    return Announcement(found.driver, found.endpoint, found.registered, found.sentence)
