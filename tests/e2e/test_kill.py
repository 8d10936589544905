"""kill -9 of the service before and after each wire request of a create and of a delete, on the real API server.

One snapshot or none, never two, never an orphan; and the next start finishes what was begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import yaml

from tests.e2e.test_standalone import backend
from tests.support import claims, faultproxy, httpproxy, localdisk, serve
from tests.support.bed import controlplane, paths

MOMENTS = ("before", "after")
FEWEST_CREATING, FEWEST_DELETING = 5, 2
"""API writes of every create and of every delete. A life may have more, so nothing may come for the last index."""
PATIENCE_SECONDS = 60.0


@dataclasses.dataclass
class Stand:
    """The service between two proxies: one towards the API server, one towards the driver."""

    plane: controlplane.ControlPlane
    namespace: str
    driver: localdisk.LocalDisk
    api: httpproxy.HttpProxy
    csi: faultproxy.FaultProxy
    service: serve.Serve
    number: int = 0
    struck: str = ""

    def kill(self) -> None:
        """At once; the process is collected by `restart`."""
        os.kill(self.service.process.pid, signal.SIGKILL)

    def arm_api(self, index: int, moment: str) -> None:
        """Kill at the write with this number from now on."""
        first = len(self.api.writes)

        def strike(now: str, what: str) -> bool:
            if now != moment or len(self.api.writes) - 1 - first < index or self.struck:
                return bool(self.struck)
            self.struck = f"{moment} {what}"
            self.kill()
            return True

        self.api.strike = strike

    def arm_csi(self, method: str, moment: str) -> None:
        """Kill at the next call of this method."""

        def kill() -> None:
            self.struck = f"{moment} {method}"
            self.kill()

        self.csi.script(method, faultproxy.crash(kill), after_effect=moment == "after", times=1)

    async def until_struck(self, over: Callable[[], bool] = lambda: False) -> None:
        """Wait for the strike; where a life may be `over` without one, for that."""
        await self.until("the wire request that is to be struck", lambda: bool(self.struck) or over())

    async def restart(self) -> None:
        """Collect the dead process and start it anew, without faults."""
        await asyncio.to_thread(self.service.kill)
        self.api.strike = lambda _moment, _what: False
        self.csi.clear()
        self.struck = ""
        await asyncio.to_thread(self.service.start)

    def name(self) -> str:
        self.number += 1
        return f"s{self.number}"

    async def apply(self, name: str) -> None:
        await asyncio.to_thread(self.plane.admin.apply, claims.snapshot(self.namespace, name, "data"))

    async def delete(self, name: str) -> None:
        words = ["delete", "volumesnapshot", name, "-n", self.namespace, "--wait=false"]
        await asyncio.to_thread(self.plane.admin.kubectl, *words)

    async def until(self, what: str, holds: Callable[[], bool]) -> None:
        await asyncio.to_thread(claims.until, what, holds, PATIENCE_SECONDS)

    async def until_ready(self, name: str) -> None:
        await self.until(f"{name} ready", lambda: claims.is_ready(self.plane.admin, self.namespace, name))

    def is_settled(self, name: str) -> bool:
        """Whether a create has written all it writes: after the status come the event and the claim's release."""
        return claims.is_ready(self.plane.admin, self.namespace, name) and self._told(name) and not self._held()

    async def until_settled(self, name: str) -> None:
        await self.until(f"{name} settled", lambda: self.is_settled(name))

    def is_gone(self, name: str) -> bool:
        gone = claims.is_gone(self.plane.admin, "volumesnapshot", name, self.namespace)
        return gone and not claims.contents(self.plane.admin, self.namespace)

    async def until_gone(self, name: str) -> None:
        await self.until(f"{name} and its content gone", lambda: self.is_gone(name))

    def _told(self, name: str) -> bool:
        found = self._items("events")
        return any(one["reason"] == "SnapshotReady" and one["involvedObject"]["name"] == name for one in found)

    def _held(self) -> bool:
        found = self._items("persistentvolumeclaims")
        return any("as-source" in mark for one in found for mark in one["metadata"].get("finalizers") or ())

    def _items(self, plural: str) -> list[dict[str, Any]]:
        answer = self.plane.admin.request("GET", f"/api/v1/namespaces/{self.namespace}/{plural}")[1]
        found: list[dict[str, Any]] = json.loads(answer)["items"]
        return found

    async def backend(self) -> list[str]:
        return await asyncio.to_thread(backend, self.driver)


@contextlib.asynccontextmanager
async def standing(plane: controlplane.ControlPlane, namespace: str) -> AsyncIterator[Stand]:
    folder = paths.fresh("kill")
    folder.mkdir(parents=True, exist_ok=True)
    with localdisk.start_localdisk(mode="directory") as driver:
        volume = await asyncio.to_thread(driver.volume, "kill-data", 1 << 20)
        await asyncio.to_thread(claims.install, plane.admin, localdisk.NAME)
        await asyncio.to_thread(claims.bound, plane.admin, namespace, "data", localdisk.NAME, volume.volume_id)
        socket = folder / "csi.sock"
        async with (
            httpproxy.running(plane.url, str(plane.certificate_authority)) as api,
            faultproxy.FaultProxy(driver.socket, socket) as csi,
        ):
            kubeconfig = folder / "kubeconfig"
            kubeconfig.write_text(_kubeconfig(api.url, plane.token))
            service = serve.service(
                clusters=[{"name": "kube", "kind": "kubernetes", "kubeconfig": str(kubeconfig)}],
                plugins=[{"name": "localdisk", "socket": str(socket)}],
                folder=folder / "service",
            )
            await asyncio.to_thread(service.start)
            try:
                yield Stand(plane, namespace, driver, api, csi, service)
            finally:
                await asyncio.to_thread(service.process.stop)


def _kubeconfig(url: str, token: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
    )


async def baseline(stand: Stand) -> tuple[int, int]:
    """A life without faults: how many API writes a create and a delete take."""
    name = stand.name()
    await stand.apply(name)
    await stand.until_settled(name)
    created = len(stand.api.writes)
    await stand.delete(name)
    await stand.until_gone(name)
    return created, len(stand.api.writes) - created


async def check_create(stand: Stand, arm: Callable[[], None], *, must_strike: bool = True) -> None:
    name = stand.name()
    arm()
    await stand.apply(name)
    await stand.until_struck(lambda: not must_strike and stand.is_settled(name))
    assert len(await stand.backend()) <= 1, stand.struck
    await stand.restart()
    await stand.until_ready(name)
    assert len(await stand.backend()) == 1
    await stand.delete(name)
    await stand.until_gone(name)
    assert await stand.backend() == []


async def check_delete(stand: Stand, arm: Callable[[], None], *, must_strike: bool = True) -> None:
    name = stand.name()
    await stand.apply(name)
    await stand.until_settled(name)
    arm()
    await stand.delete(name)
    await stand.until_struck(lambda: not must_strike and stand.is_gone(name))
    await stand.restart()
    await stand.until_gone(name)
    assert await stand.backend() == []


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_at_every_wire_request(own_control_plane: controlplane.ControlPlane) -> None:
    async with standing(own_control_plane, "default") as stand:
        creates, deletes = await baseline(stand)
        assert FEWEST_CREATING <= creates <= 8, stand.api.writes
        assert FEWEST_DELETING <= deletes <= 4, stand.api.writes
        for moment in MOMENTS:
            for index in range(creates):
                strike = functools.partial(stand.arm_api, index, moment)
                await check_create(stand, strike, must_strike=index < FEWEST_CREATING)
            await check_create(stand, lambda moment=moment: stand.arm_csi("CreateSnapshot", moment))
            for index in range(deletes):
                strike = functools.partial(stand.arm_api, index, moment)
                await check_delete(stand, strike, must_strike=index < FEWEST_DELETING)
            await check_delete(stand, lambda moment=moment: stand.arm_csi("DeleteSnapshot", moment))
