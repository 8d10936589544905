"""A stand for faults: one service, one of two doors, and two drivers behind fault proxies.

It knows nothing of any one fault; `ended` says what must hold after every test.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import claims, doors, faultproxy, localdisk, serve
from tests.support.bed import controlplane, paths
from tests.support.faultproxy import faults

PLAIN, LISTER = "plain", "lister"
DRIVERS = {PLAIN: "faults.snapbridge.dev", LISTER: "lister.snapbridge.dev"}
VOLUMES = {PLAIN: 8, LISTER: 2}
QUIET_SECONDS = 2.0
QUIET_CPU_SECONDS = 0.5
"""Probes and watches go on; a hot loop would take all of the two seconds."""
MEETING = ("Probe", "GetPluginInfo", "NodeGetInfo")
"""Calls by which a plugin is met: a machine that stood still meets it again. So are those for capabilities."""
REFUSED = ("the turn crashed", "Traceback", "never retrieved")

Holds = Callable[[], bool]


def asked(call: faultproxy.Call) -> Any:
    """The request of a call, whose type its method tells."""
    return call.request


def answered(call: faultproxy.Call) -> pb.Snapshot:
    """The snapshot that a create was answered with."""
    assert isinstance(call.reply, pb.CreateSnapshotResponse)
    return call.reply.snapshot


@dataclasses.dataclass
class Backend:
    """A driver, the proxy before it, and its volumes by name."""

    driver: localdisk.LocalDisk
    proxy: faultproxy.FaultProxy
    volumes: dict[str, str]

    async def handles(self) -> list[str]:
        """Every snapshot on it, asked of the driver itself."""
        request = pb.ListSnapshotsRequest()
        answer = await asyncio.to_thread(
            self.driver.controller.ListSnapshots, request, timeout=30, wait_for_ready=True
        )
        return sorted(entry.snapshot.snapshot_id for entry in answer.entries)

    async def remove(self, handle: str) -> None:
        """By hand, as an owner would."""
        request = pb.DeleteSnapshotRequest(snapshot_id=handle)
        await asyncio.to_thread(self.driver.controller.DeleteSnapshot, request, timeout=30, wait_for_ready=True)

    def creates(self, volume: str) -> list[faultproxy.Call]:
        """The CreateSnapshot calls for a volume."""
        mine = self.volumes[volume]
        return [call for call in self.proxy.called("CreateSnapshot") if asked(call).source_volume_id == mine]

    def deletes(self, handle: str) -> list[faultproxy.Call]:
        """The DeleteSnapshot calls for a handle."""
        return [call for call in self.proxy.called("DeleteSnapshot") if asked(call).snapshot_id == handle]

    def at_create(self, volume: str, fault: faults.Fault, *, only: Holds = lambda: True, **how: Any) -> None:
        """Script a fault for this volume's creates, for as long as `only` holds."""
        mine = self.volumes[volume]
        self.proxy.script("CreateSnapshot", fault, when=lambda sent: sent.source_volume_id == mine and only(), **how)

    def at_handle(
        self, method: str, handle: str, fault: faults.Fault, *, only: Holds = lambda: True, **how: Any
    ) -> None:
        """Script a fault for the calls that name this snapshot, for as long as `only` holds."""
        self.proxy.script(method, fault, when=lambda sent: sent.snapshot_id == handle and only(), **how)


@dataclasses.dataclass
class Stand:
    """One service and one door to it."""

    service: serve.Serve
    door: doors.Door
    backends: dict[str, Backend]
    used: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def plain(self) -> Backend:
        return self.backends[PLAIN]

    @property
    def lister(self) -> Backend:
        return self.backends[LISTER]

    def volume(self, prefix: str = PLAIN) -> str:
        """A volume that no other story of this test uses."""
        number = self.used[prefix] = self.used.get(prefix, -1) + 1
        return f"{prefix}-{number:02}"

    def calls(self) -> int:
        """All calls to drivers so far but those by which they are met."""
        made = (call.method for one in self.backends.values() for call in one.proxy.calls)
        return sum(method not in MEETING and not method.endswith("Capabilities") for method in made)

    async def ended(self) -> None:
        """After a test: nothing is left, nothing is hot, the queue is empty, and work goes through at once."""
        for backend in self.backends.values():
            assert backend.proxy.pending == []
            assert await backend.handles() == []
        before = self.calls(), self.service.process.cpu_seconds()
        await asyncio.sleep(QUIET_SECONDS)
        assert self.calls() == before[0], "calls go on although nothing is to do"
        assert self.service.process.cpu_seconds() - before[1] < QUIET_CPU_SECONDS
        await asyncio.to_thread(claims.until, "the queue is empty", self._is_idle)
        log = self.service.process.log.read_text()
        assert not [words for words in REFUSED if words in log]
        await self.passes("after")

    def _is_idle(self) -> bool:
        return doors.metric(self.service.metrics(), "snapbridge_queue_depth") == 0

    async def passes(self, name: str) -> None:
        """A life without a fault: one create, one delete."""
        volume = self.volume()
        earlier = len(self.plain.creates(volume))
        await self.door.ask(name, volume)
        told = await doors.until_ready(self.door, name)
        assert await self.plain.handles() == [told.handle]
        await self.away(name)
        assert len(self.plain.creates(volume)) - earlier == 1
        assert len(self.plain.deletes(told.handle)) == 1
        assert await self.plain.handles() == []

    async def away(self, name: str) -> None:
        await self.door.delete(name)
        await doors.until_gone(self.door, name)


async def backend_of(stack: contextlib.AsyncExitStack, prefix: str) -> Backend:
    driver = stack.enter_context(localdisk.start_localdisk(mode="directory", driver_name=DRIVERS[prefix]))
    names = [f"{prefix}-{number:02}" for number in range(VOLUMES[prefix])]
    made = [await asyncio.to_thread(driver.volume, name, 1 << 20) for name in names]
    socket = paths.fresh("proxy") / "csi.sock"
    socket.parent.mkdir(parents=True, exist_ok=True)
    proxy = await stack.enter_async_context(faultproxy.FaultProxy(driver.socket, socket))
    volumes = {name: volume.volume_id for name, volume in zip(names, made, strict=True)}
    return Backend(driver, proxy, volumes)


def without_get(message: Any) -> None:
    """As a driver without GetSnapshot would announce itself."""
    kept = [one for one in message.capabilities if one.rpc.type != pb.ControllerServiceCapability.RPC.GET_SNAPSHOT]
    del message.capabilities[:]
    message.capabilities.extend(kept)


def standalone(backends: dict[str, Backend]) -> dict[str, Any]:
    volumes = [
        {"name": name, "driver": DRIVERS[prefix], "handle": handle, "capacity": "1MiB"}
        for prefix, backend in backends.items()
        for name, handle in backend.volumes.items()
    ]
    return {"name": "here", "kind": "standalone", "volumes": volumes}


async def kubernetes(
    plane: controlplane.ControlPlane, namespace: str, backends: dict[str, Backend]
) -> dict[str, Any]:
    """Claims for every volume, and two classes per driver."""
    admin = plane.admin
    objects: list[Any] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}]
    for prefix, backend in backends.items():
        for policy in ("Delete", "Retain"):
            name = f"{prefix}-{policy.lower()}"
            await asyncio.to_thread(claims.install, admin, DRIVERS[prefix], policy=policy, name=name)
        for name, handle in backend.volumes.items():
            objects += claims.claim(namespace, name, DRIVERS[prefix], handle, size="1Mi")
    await asyncio.to_thread(admin.apply, objects)
    bound = ["wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", "pvc", "--all", "-n", namespace]
    await asyncio.to_thread(admin.kubectl, *bound, seconds=70)
    return {"name": "kube", "kind": "kubernetes", "kubeconfig": str(plane.kubeconfig)}


@contextlib.asynccontextmanager
async def running(plane: controlplane.ControlPlane | None, namespace: str) -> AsyncIterator[Stand]:
    """With a control plane the door is Kubernetes', without one it is standalone's."""
    async with contextlib.AsyncExitStack() as stack:
        backends = {prefix: await backend_of(stack, prefix) for prefix in DRIVERS}
        backends[LISTER].proxy.script(
            "ControllerGetCapabilities", faultproxy.edit(without_get, "no GET_SNAPSHOT"), times=None
        )
        cluster = standalone(backends) if plane is None else await kubernetes(plane, namespace, backends)
        service = serve.service(
            clusters=[cluster],
            plugins=[{"name": name, "socket": str(one.proxy.listen)} for name, one in backends.items()],
            csi={"poll_first": "100ms", "probe_interval": "500ms"},
        )
        stack.push_async_callback(asyncio.to_thread, service.process.stop)
        await asyncio.to_thread(service.start)
        await until_plugins(service)
        door: doors.Door = doors.HttpDoor(service, "here")
        if plane is not None:
            door = doors.KubernetesDoor(plane.admin, namespace, tuple(DRIVERS))
        yield Stand(service, door, backends)
    if plane is not None:
        await asyncio.to_thread(plane.admin.kubectl, "delete", "namespace", namespace, "--wait=false")


async def until_plugins(service: serve.Serve) -> None:
    """Both drivers have told what they can."""
    for _ in range(600):
        found = (await asyncio.to_thread(service.get, "/v1/plugins"))["items"]
        if {one["driver"] for one in found if one["healthy"]} == set(DRIVERS.values()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the plugins are not healthy: {found}")


async def together(*stories: Coroutine[Any, Any, None]) -> None:
    """Tell all of them at once; every one that fails is named."""
    ends = await asyncio.gather(*stories, return_exceptions=True)
    failed = [end for end in ends if isinstance(end, BaseException)]
    if failed:
        raise BaseExceptionGroup(f"{len(failed)} of {len(stories)} stories", failed)


def same_request(calls: list[faultproxy.Call]) -> bool:
    """Whether a create was repeated as it was."""
    return len({call.request.SerializeToString(deterministic=True) for call in calls if call.request}) == 1
