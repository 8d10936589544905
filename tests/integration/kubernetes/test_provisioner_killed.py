"""The provisioner dies at each of its writes; the next one finishes. One volume or none for a claim, never two."""

from __future__ import annotations

import asyncio
from pathlib import Path

from adapters.kubernetes import connection, flags
from adapters.kubernetes.decide import provision, topology
from adapters.kubernetes.provisioner import service
from adapters.kubernetes.roles import provisioner
from adapters.kubernetes.roles import upstream_flags as upstream
from bridge.app import roles
from bridge.ports.role import Role, RolePlan, RoleSurroundings
from tests.integration.kubernetes import provisioner_stand as stand
from tests.integration.kubernetes.mortal import Mortal
from tests.support import claims, provisioning
from tests.support.bed import controlplane
from tests.support.memory import Crash
from tests.support.provisioning import claim, from_snapshot

POINTS = (0, 1, 2, 4, 5, 6, 8, 10, 11)
"""Of twelve writes for two restores beside each other: note, event, one hold, volume, event, note off, one drop."""
LIFE_SECONDS = 60.0
"""The death ends it long before."""


def mortal(plane: controlplane.ControlPlane, folder: Path, *, at: int, after: bool) -> RolePlan:
    """The role, but with a client that dies."""
    words = [f"--kubeconfig={plane.kubeconfig}", *provisioning.FAST]
    given = flags.parse(provisioner.FLAGS, words)
    wanted = service.Wanted(
        options=provision.Options(stand.DRIVER, extra_metadata=True),
        rules=topology.Rules(),
        retry=upstream.Doubling(given),
        slow_seconds=2.0,
        workers=4,
        source_workers=1,
        sweep_seconds=0,
    )

    async def start(lent: RoleSurroundings) -> Role:
        await lent.sink.ensure_socket("plugin", str(folder / "csi.sock"))
        while not lent.plugins.view(stand.DRIVER).healthy:
            await lent.clock.sleep(0.02)
        settings = upstream.settings(given)
        client = Mortal(await connection.open_connection(settings), at=at, after=after)
        ownership = service.own(settings, client, lent.clock, stand.DRIVER, stand=None)
        running = service.Provisioner(client, lent, wanted, stand=None, ownership=ownership)
        return Role(loops=running.loops, tasks=running.tasks(), ready=running.ready)

    return RolePlan(name="mortal", start=start, shutdown_seconds=0.1)


async def dies(plan: RolePlan) -> bool:
    """Run it for its life; whether it died."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(LIFE_SECONDS, stop.set)
    try:
        await roles.run(plan, stop)
    except BaseExceptionGroup as group:
        if group.subgroup(Crash) is None:
            raise
        return True
    return False


async def test_death_at_any_write_of_a_restore_leaks_and_doubles_nothing(
    control_plane: controlplane.ControlPlane, namespace: str, tmp_path: Path
) -> None:
    admin = control_plane.admin
    cluster = stand.Cluster(admin, namespace)
    await asyncio.to_thread(claims.install, admin, stand.DRIVER, name="scripted-snapshots")
    await cluster.apply(*stand.hand_made(namespace))
    await asyncio.to_thread(stand.make_ready, admin, namespace)
    kept: set[str] = set()
    deaths = 0
    async with stand.backend_at(control_plane, tmp_path) as backend:
        for at in POINTS:
            stays, goes = f"stays-{at}", f"goes-{at}"
            source = from_snapshot("monday")
            wanted = [claim(namespace, name, stand.CLASS, dataSource=source) for name in (stays, goes)]
            await cluster.apply(*wanted)
            deaths += await dies(mortal(control_plane, tmp_path, at=at, after=bool(at % 2)))
            await cluster.delete(goes)
            async with stand.running(control_plane, tmp_path):
                volume = await cluster.bound(stays)
                kept.add(volume["spec"]["csi"]["volumeHandle"])
                await cluster.gone(goes)
                await cluster.until("one volume more", lambda: backend.volumes() == kept)

                def free() -> bool:
                    item = provisioning.snapshot_now(admin, namespace, "monday")
                    return provisioning.RESTORE not in provisioning.finalizers(item)

                await cluster.until("the snapshot is free", free)
    assert deaths == len(POINTS)
    assert len(kept) == len(POINTS)
