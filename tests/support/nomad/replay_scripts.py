"""Per recorded file: what has to happen between its requests, and which cases are excluded and why.

It must hold every exclusion of the replay; the test prints them and counts them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from tests.support.nomad import replay_worlds as worlds
from tests.support.nomad.drivers import HostPathDriver
from tests.support.nomad.replay_player import Player, Script


async def _volumes_begin(player: Player) -> None:
    await worlds.plugins(player)
    await worlds.data_in_use(player)


async def _restore_source(player: Player) -> None:
    body = {"Snapshots": [{"SourceVolumeID": "e1", "Name": "e2e-A"}]}
    answer = await player.call("PUT", "/v1/volumes/snapshot", body)
    player.bindings.bind("7d8a4bdf-e595-11f1-bf52-aa7181da830f", answer["Snapshots"][0]["ID"])


async def _e2e_to_zero(player: Player) -> None:
    await player.call("POST", "/v1/job/e2e/scale", {"Count": 0, "Target": {"Group": "g"}})
    await worlds.ended(player, "e2e")


async def _e2e_to_one(player: Player) -> None:
    player.agent.hold("healthy")
    await player.call("POST", "/v1/job/e2e/scale", {"Count": 1, "Target": {"Group": "g"}})
    await worlds.running(player, "e2e")


async def _deregister_restore(player: Player) -> None:
    await player.call("DELETE", "/v1/volume/csi/e1-restore")


async def _e2e_gone(player: Player) -> None:
    player.agent.release_step("healthy")
    await worlds.stop(player, "e2e")


async def _poststop_runs(player: Player) -> None:
    """The job `ps`: its main task has ended, its poststop task runs and the claim is still there."""
    player.agent.hold("healthy")
    post = worlds.task("post", hook="poststop", script=["-c", "while [ ! -e local/over ]; do sleep 0.05; done"])
    await worlds.run(player, worlds.job("ps", "pa", worlds.task("t"), post, PerAlloc=True))
    await player.call("DELETE", "/v1/job/ps")
    allocation = player.agent.state.job_allocations("default", "ps")[0]
    async with asyncio.timeout(30):
        while allocation.tasks["post"]["State"] != "running":
            await player.agent.state.change(0.05)


async def _poststop_over(player: Player) -> None:
    allocation = player.agent.state.job_allocations("default", "ps")[0]
    (player.agent.runner.live[allocation.id].processes["post"].directory / "local" / "over").touch()
    await worlds.ended(player, "ps")
    player.agent.release_step("healthy")


VOLUMES = Script(
    before={
        0: _volumes_begin,
        54: lambda player: worlds.slow_volumes(player),
        55: lambda player: worlds.e1_in_use(player),
        61: _restore_source,
        66: _e2e_to_zero,
        68: _deregister_restore,
        70: _e2e_to_one,
        72: _e2e_gone,
        75: lambda player: _volume(player, "busy1"),
        76: lambda player: worlds.stop(player, "csi-slow"),
        77: _poststop_runs,
        80: _poststop_over,
        81: lambda player: _run(player, "holder", "vol-c"),
        84: lambda player: worlds.stop(player, "holder"),
    },
)


async def _volume(player: Player, name: str) -> None:
    await worlds.volume(player, name, "slow")


async def _run(player: Player, name: str, source: str) -> None:
    await worlds.run(player, worlds.job(name, source))


async def _snapshots_begin(player: Player) -> None:
    await _volumes_begin(player)
    await worlds.volumes_of_the_day(player)
    await worlds.slow_volumes(player)
    driver = player.kept["hostpath"]
    driver.next_number = 0xC1D10000
    await player.call("PUT", "/v1/volumes/snapshot", {"Snapshots": [{"SourceVolumeID": "data", "Name": "old"}]})
    driver.next_number = 0x7BD70000


async def _other_namespace(player: Player) -> None:
    await player.call("PUT", "/v1/namespace/other", {"Name": "other"})


async def _slow_driver_day(player: Player) -> None:
    """The scripted driver was started anew and had made three other snapshots before the long one."""
    player.agent.set_plugin_health("slow", healthy=True)
    player.kept["slow"].snapshots.clear()
    for name in ("sleep-0-x", "sleep-10-det", "sleep-12-att"):
        body = {"Snapshots": [{"SourceVolumeID": "sv2", "Name": name}]}
        await player.call("PUT", "/v1/volumes/snapshot", body)
    # The recorded 2 minutes and 125 s become 1.2 s and 1.25 s, for this one call only.
    _set(player, controller_cap_seconds=1.2)


def _set(player: Player, **times: float) -> None:
    """Other times of the agent from now on."""
    player.agent.settings = dataclasses.replace(player.agent.settings, **times)  # type: ignore[arg-type]


async def _driver_finishes(player: Player) -> None:
    _set(player, controller_cap_seconds=120.0)
    async with asyncio.timeout(30):
        while "s-sleep-125-long" not in player.kept["slow"].snapshots:
            await player.agent.state.change(0.02)


async def _plugin_down(player: Player) -> None:
    player.agent.set_plugin_health("slow", healthy=False)


SNAPSHOTS = Script(
    before={
        0: _snapshots_begin,
        10: _other_namespace,
        59: lambda player: worlds.e1_in_use(player),
        61: _plugin_down,
        64: _poststop_runs,
        65: _slow_driver_day,
        66: _driver_finishes,
    }
)


async def _stop_slow(player: Player) -> None:
    await worlds.stop(player, "csi-slow")


PLUGINS = Script(before={0: lambda player: worlds.plugins(player), 11: _stop_slow})


async def _jobs_begin(player: Player) -> None:
    await _volumes_begin(player)
    await worlds.volumes_of_the_day(player)


async def _hold_start(player: Player) -> None:
    player.agent.hold("start")


async def _setup_seen(player: Player) -> None:
    async with asyncio.timeout(30):
        while not (rows := player.agent.state.job_allocations("default", "web")) or not rows[0].tasks:
            await player.agent.state.change(0.05)


async def _web_replaced(player: Player) -> None:
    async with asyncio.timeout(30):
        while len(player.agent.state.job_allocations("default", "web")) < 2:
            await player.agent.state.change(0.05)


def ev_job() -> dict[str, Any]:
    """The recorded job `ev` on vol-c."""
    spec = worlds.job("ev", "vol-c", worlds.task("t", script=_EV_ARGS))
    spec["Meta"] = {"csi_snapshot_schedule": "@hourly", "csi_snapshot_retain": "24"}
    spec["TaskGroups"][0]["Tasks"][0] |= {
        "KillTimeout": worlds.SECOND,
        "Actions": [{"Name": "freeze", "Command": "/bin/sh", "Args": ["-c", "echo frozen"]}],
        "Resources": {"CPU": 50, "MemoryMB": 32},
        "VolumeMounts": [{"Volume": "v", "Destination": "/data"}],
    }
    return spec


async def _ev_runs(player: Player) -> None:
    player.agent.release_step("start")
    spec = ev_job()
    await worlds.run(player, spec)
    spec["Meta"]["csi_snapshot_retain"] = "48"
    await worlds.run(player, spec)


_EV_ARGS = ["-c", "trap 'exit 0' INT TERM; while true; do sleep 0.2; done"]


async def _after_stop(player: Player) -> None:
    async with asyncio.timeout(30):
        while player.agent.state.job("default", "ev")["Status"] != "dead":  # type: ignore[index]
            await player.agent.state.change(0.05)


async def _volume_missing(player: Player) -> None:
    """The crash gap of a revert: the job is scaled up while its volume is not registered."""
    await worlds.ended(player, "e2e")
    player.kept["e1"] = await player.call("GET", "/v1/volume/csi/e1")
    await player.call("DELETE", "/v1/volume/csi/e1")
    player.agent.hold("healthy")
    await player.call("POST", "/v1/job/e2e/scale", {"Count": 1, "Target": {"Group": "g"}})
    async with asyncio.timeout(30):
        while not any(e["Status"] == "blocked" for e in player.agent.state.evaluations.values()):
            await player.agent.state.change(0.05)


async def _volume_back(player: Player) -> None:
    row = player.kept["e1"]
    keys = ("ID", "Name", "PluginID", "ExternalID", "RequestedCapabilities", "RequestedCapacityMin")
    await player.call("PUT", "/v1/volume/csi/e1", {"Volumes": [{key: row[key] for key in keys}]})
    await worlds.running(player, "e2e")


async def _child_done(player: Player) -> None:
    async with asyncio.timeout(30):
        while any(
            versions[-1]["Status"] != "dead"
            for (_, name), versions in player.agent.state.jobs.items()
            if name.startswith("par/")
        ):
            await player.agent.state.change(0.05)


JOBS = Script(
    before={
        0: _jobs_begin,
        9: _hold_start,
        16: _setup_seen,
        34: _web_replaced,
        46: _ev_runs,
        47: _after_stop,
        49: lambda player: worlds.e1_in_use(player),
        50: _volume_missing,
        51: _volume_back,
        59: _child_done,
    },
    unordered={50: frozenset({""})},
    excluded={
        6: "the diff of a whole new job: the fake builds diffs of meta only, and no adapter reads a plan's diff",
    },
)


async def _takeover(player: Player) -> None:
    """The holder dies; the next one gets the lock after 2 x TTL + delay (scaled), and releases it."""
    body = {"Items": {"holder": "four"}, "Lock": {"TTL": "10s", "LockDelay": "1s"}}
    loop = asyncio.get_running_loop()
    # Only now: a lock of 0.2 s would be over before the request that is to find it held, on a busy machine.
    _set(player, lock_time_scale=0.01)
    began = player.agent.state.variables[("default", "bridge/lock")].lock.renewed_at
    while True:
        url = f"{player.agent.url}/v1/var/bridge/lock?lock-acquire"
        async with player.session.put(url, json=body) as response:
            if response.status == 200:
                lock = (await response.json())["Lock"]
                break
        await asyncio.sleep(0.005)
    assert loop.time() - began >= 21 * player.agent.settings.lock_time_scale * 0.9
    _set(player, lock_time_scale=1.0)
    await player.call("PUT", "/v1/var/bridge/lock", {"Lock": lock}, **{"lock-release": ""})


VARIABLES = Script(before={45: _takeover})


async def _day_begin(player: Player) -> None:
    """All volumes and jobs that were there when the later files were recorded."""
    await _snapshots_begin(player)
    await worlds.run(player, worlds.job("web", "vol-a"))


async def _errors_begin(player: Player) -> None:
    await _day_begin(player)
    player.agent.hold("start")
    await _new_job(player)
    while not player.agent.state.job_allocations("default", "bj"):
        await player.agent.state.change(0.05)


async def _new_volume(player: Player) -> None:
    await worlds.volume(player, "blk1")


async def _drop_volume(player: Player) -> None:
    await player.call("DELETE", "/v1/volume/csi/blk1/delete")


async def _new_job(player: Player) -> None:
    group = {"Name": "g", "Tasks": [worlds.task("t")]}
    spec = {"ID": "bj", "Type": "batch", "Datacenters": ["*"], "TaskGroups": [group]}
    await player.call("PUT", "/v1/jobs", {"Job": spec})


BLOCKING = Script(
    before={0: _day_begin},
    during={6: _new_volume, 7: lambda player: _volume(player, "blk2"), 8: _drop_volume, 9: _new_job},
    # Those that are woken may wait long, so that their end shows that they were, on the slowest machine too.
    queries={
        6: lambda player: {"wait": "60s"},
        8: lambda player: {"index": str(player.agent.state.table_index(("csi_volumes",))), "wait": "60s"},
        9: lambda player: {"index": str(player.agent.state.table_index(("jobs",))), "wait": "60s"},
    },
)
ERRORS = Script(before={0: _errors_begin})


async def _agent_begin(player: Player) -> None:
    await _snapshots_begin(player)
    await _other_namespace(player)


AGENT = Script(
    before={0: _agent_begin},
    excluded={
        8: "lists the drivers found on the recorded machine (Java, QEMU); the fake's node has raw_exec and exec"
    },
)


_ACL_POLICIES = ("weak", "nothing", "novols", "plugwrite", "readonly", "full")


async def _tokens(player: Player) -> None:
    """The tokens of the recorded policies; their making is not in the recording."""
    for name in _ACL_POLICIES:
        token = player.agent.acl.add_token(name, [name])
        player.bindings.bind(f"<token with policy {name}>", token["SecretID"])


async def _acl_plugin(player: Player) -> None:
    """The management token registers the job that `full` may not, and makes the volume `d`."""
    driver = HostPathDriver()
    token = player.agent.state.tokens[player.bindings.names["<management token>"]]
    job = {**player.kept["plugin job"], "NomadTokenID": token["AccessorID"]}
    await player.agent.add_plugin("hostpath", driver, job=job)
    await worlds.deployed(player, "csi-hostpath")
    # The recorded deployment was still active, although its allocation counted as healthy.
    row = player.agent.state.latest_deployment("default", "csi-hostpath")
    stored = player.agent.state.job("default", "csi-hostpath")
    assert row is not None
    assert stored is not None
    row["Status"], stored["Stable"] = "running", False
    player.session.headers["X-Nomad-Token"] = player.bindings.names["<management token>"]
    await worlds.volume(player, "d", RequestedCapacityMin=0)
    del player.session.headers["X-Nomad-Token"]


ACL = Script(before={8: _tokens, 9: _acl_plugin})


async def ident_job(player: Player) -> str:
    """The recorded job `ident`: a default identity and a named one, both as files; its task has to be killed."""
    identity = {"Env": True, "File": True}
    named = {"Name": "bridge", "Audience": ["snapbridge"], "TTL": 900 * worlds.SECOND, "File": True, "Env": True}
    stubborn = ["-c", "trap '' INT TERM; while true; do sleep 0.05; done"]
    task = worlds.task("t", script=stubborn, Identity=identity, Identities=[named], KillTimeout=60 * worlds.SECOND)
    spec = {"ID": "ident", "Type": "service", "TaskGroups": [{"Name": "g", "Tasks": [task]}]}
    return await worlds.run(player, spec)
