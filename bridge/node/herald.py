"""Announces this host's drivers through the Announcer port, as the local registry comes to know them.

A driver that is merely unhealthy stays announced: whoever mounts its volumes must not forget it for a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from bridge.model.failure import BridgeError
from bridge.model.plugin import Role
from bridge.ports.announce import Announcer
from bridge.ports.transport import LocalPlugins

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0


async def run(plugins: LocalPlugins, announcer: Announcer, under: tuple[str, ...]) -> None:
    """Follow the registry until cancelled."""
    changed = asyncio.Event()
    stop = plugins.on_change(lambda _driver: changed.set())
    announced: dict[str, str] = {}
    refused: dict[str, str] = {}
    try:
        while True:
            changed.clear()
            wanted = _wanted(plugins, under)
            for driver in sorted(announced.keys() - wanted.keys()):
                await announcer.withdraw(driver)
                del announced[driver]
            for driver, path in sorted(wanted.items()):
                if announced.get(driver) != path:
                    await _announce(announcer, driver, path, announced, refused)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if announced == wanted else _RETRY_SECONDS):
                    await changed.wait()
    finally:
        stop()


async def _announce(
    announcer: Announcer, driver: str, path: str, announced: dict[str, str], refused: dict[str, str]
) -> None:
    try:
        await announcer.announce(driver, path)
    except BridgeError as error:
        if refused.get(driver) != str(error):
            log.warning("a driver cannot be announced", extra={"driver": driver, "reason": str(error)})
        refused[driver] = str(error)
        return
    refused.pop(driver, None)
    announced[driver] = path


def _wanted(plugins: LocalPlugins, under: tuple[str, ...]) -> dict[str, str]:
    """Driver -> socket path, for each driver with a Node service here; the first path where there are several."""
    wanted: dict[str, str] = {}
    for row in plugins.describe():
        path = row.endpoint.removeprefix("unix:")
        inside = any(path.startswith(folder.rstrip("/") + "/") for folder in under)
        if row.id.role == Role.NODE.value and path != row.endpoint and inside:
            wanted.setdefault(row.id.driver, path)
    return wanted
