"""Keeps drivers registered at this host's kubelet, several from one process. It never speaks to the API server.

A single driver is handled as upstream does it: what cannot be mended here ends the process, and whoever restarts it
is the retry. Of several drivers one that fails is tried again here, because an end would take the others with it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from adapters.kubernetes.registration import dialling, place
from adapters.kubernetes.registration.announcer import Announcement, KubeletAnnouncer, RegistrationSettings
from bridge.model.failure import BridgeError, ConflictError, UnavailableError
from bridge.ports.clock import Clock

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 0.5
RETRY_FIRST_SECONDS, RETRY_MOST_SECONDS = 1.0, 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Plugin:
    """One driver: its CSI socket as this process sees it, and as the kubelet does."""

    socket: str
    endpoint: str


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What to register, and where. `connect_seconds`: how long to wait for the first driver that answers."""

    plugins: tuple[Plugin, ...]
    registry: str = "/registration"
    call_seconds: float = 1.0
    connect_seconds: float = 30.0


class Registrar:
    """Give it its options and run its tasks."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._announcer = KubeletAnnouncer(RegistrationSettings(options.registry), clock, told=self._told)
        self._held: dict[str, Plugin] = {}
        """Driver -> whose it is, while it is announced."""
        self._known: set[str] = set()
        self._refusals: dict[str, asyncio.Queue[str]] = {}
        self._trouble: dict[Plugin, str] = {
            plugin: f"the driver on {plugin.socket} has not answered yet" for plugin in options.plugins
        }

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """To be run until cancelled; they take every socket away then. BridgeError: it cannot be done."""
        attending = {f"registrar {one.socket}": functools.partial(self._attend, one) for one in self._options.plugins}
        return {"registration-sockets": self._announcer.run, **attending}

    def ready(self) -> str:
        """Empty when every driver is announced; whether the kubelet took it is for people to read."""
        return "; ".join(text for text in self._trouble.values() if text)

    async def healthz(self) -> tuple[int, str]:
        """Upstream's page: 404 without a socket, 500 when one does not answer for its driver, else 200 and `ok`."""
        if not self._held:
            return 404, "no registration socket exists"
        paths = {driver: self._path(driver) for driver in self._held}
        for driver, path in paths.items():
            if place.identity_of(path) is None:
                return 404, f"the registration socket {path} does not exist"
            wrong = await dialling.registration_trouble(path, driver, timeout_seconds=self._options.call_seconds)
            if wrong:
                return 500, wrong
        return 200, "ok"

    def _path(self, driver: str) -> Path:
        return place.socket_path(Path(self._options.registry), driver)

    def _told(self, row: Announcement) -> None:
        if not row.registered:
            self._refusals.setdefault(row.driver, asyncio.Queue()).put_nowait(row.sentence)

    async def _attend(self, plugin: Plugin) -> None:
        pause = RETRY_FIRST_SECONDS
        while True:
            driver = await self._learn(plugin)
            begun = self._clock.now()
            try:
                await self._register(plugin, driver)
            except BridgeError as error:
                if len(self._options.plugins) == 1:
                    raise
                self._trouble[plugin] = str(error)
                log.warning("a driver is not registered", extra={"driver": driver, "reason": str(error)})
            if self._clock.now() - begun > RETRY_MOST_SECONDS:
                pause = RETRY_FIRST_SECONDS
            await self._clock.sleep(pause)
            pause = min(pause * 2, RETRY_MOST_SECONDS)

    async def _learn(self, plugin: Plugin) -> str:
        """The driver's name. UnavailableError after `connect_seconds` in which no driver at all has answered."""
        while True:
            try:
                async with asyncio.timeout(self._options.connect_seconds):
                    return await self._ask_until_answered(plugin)
            except TimeoutError:
                if not self._known:
                    raise UnavailableError(
                        self._trouble[plugin], hint="Check --csi-address and whether the driver's container runs"
                    ) from None

    async def _ask_until_answered(self, plugin: Plugin) -> str:
        while True:
            try:
                driver = await dialling.driver_name(plugin.socket, timeout_seconds=self._options.call_seconds)
            except UnavailableError as error:
                if self._trouble[plugin] != str(error):
                    log.info("waiting for a driver", extra={"reason": str(error)})
                self._trouble[plugin] = str(error)
                await self._clock.sleep(LOOK_AGAIN_SECONDS)
            else:
                self._known.add(driver)
                return driver

    async def _register(self, plugin: Plugin, driver: str) -> None:
        """Announce until the kubelet refuses it; then take it back. Raises what went wrong."""
        other = self._held.get(driver)
        if other is not None:
            raise ConflictError(f"the drivers on {other.socket} and {plugin.socket} have the same name, {driver}")
        refusals = self._refusals[driver] = asyncio.Queue()
        self._held[driver] = plugin
        try:
            await self._announcer.announce(driver, plugin.endpoint)
            self._trouble[plugin] = ""
            reason = await refusals.get()
            raise UnavailableError(f"the driver {driver}: {reason}")
        finally:
            del self._held[driver]
            await self._announcer.withdraw(driver)
