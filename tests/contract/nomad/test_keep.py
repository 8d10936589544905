"""Seeing, keeping and restoring on Nomad: list by who had the volume, foreign snapshots, pins, options of a restore.

On the fake agent and on a real one, through a service and its command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.contract.nomad.world import DRIVER, PLUGIN, World, consumer_job, eventually
from tests.support import serve

ROUTES = ["socket", "api"]


@asynccontextmanager
async def serving(world: World, route: str, **more: Any) -> AsyncIterator[serve.Serve]:
    """The service beside this agent, once it has a plugin to call."""
    cluster = {"name": "east", "kind": "nomad", "address": world.url, "plugin_seconds": 0.2, "route": route}
    if route != "api":
        cluster["state_dir"] = world.state_dir
    made = serve.service(clusters=[cluster], plugins=[], **more)
    await asyncio.to_thread(made.start)
    try:

        async def served() -> bool:
            _, found = await ask(made, "GET", "/v1/plugins")
            return any(row["role"] == "controller" and row["healthy"] for row in found["items"])

        await eventually(served, "a controller is served", 60)
        yield made
    finally:
        await asyncio.to_thread(made.process.stop)


async def cli(service: serve.Serve, *words: str, check: bool = True) -> Any:
    return await asyncio.to_thread(service.cli, *words, check=check)


async def ask(service: serve.Serve, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    return await asyncio.to_thread(service.request, method, path, body)


async def cut(service: serve.Serve, volume: str, name: str, **more: Any) -> dict[str, Any]:
    body = {"name": name, "volume": volume, **more}
    status, found = await ask(service, "POST", "/v1/snapshots?wait=30s", body)
    assert status == 202, found
    made: dict[str, Any] = found["snapshot"]
    return made


async def ended(service: serve.Serve, answer: tuple[int, Any]) -> dict[str, Any]:
    """The operation that was accepted, at its good end."""
    status, found = answer
    assert status == 202, found
    for _ in range(20):
        if found["state"] != "running":
            break
        _, found = await ask(service, "GET", f"/v1/operations/{found['id']}?wait=5s&index={found['version']}")
    assert found["state"] == "done", found
    done: dict[str, Any] = found
    return done


async def remove(service: serve.Serve, *uids: str) -> None:
    for uid in uids:
        await ended(service, await ask(service, "DELETE", f"/v1/snapshots/{uid}"))


async def restore(service: serve.Serve, uid: str, name: str, **more: Any) -> None:
    await ended(service, await ask(service, "POST", f"/v1/snapshots/{uid}/restore", {"name": name, **more}))


async def foreign(service: serve.Serve) -> dict[str, Any]:
    _, found = await ask(service, "GET", f"/v1/plugins/{DRIVER}/snapshots?per_page=1000")
    return {row["handle"]: row for row in found["items"]}


async def named(service: serve.Serve, **query: str) -> list[str]:
    words = "&".join(f"{key}={value}" for key, value in query.items())
    _, found = await ask(service, "GET", f"/v1/snapshots?{words}")
    return [row["name"] for row in found["items"]]


def snapshots_of(world: World) -> set[str]:
    """Handles on the backend."""
    return {path.name.removesuffix(".json") for path in (world.store / "snapshots").iterdir()}


def volumes_of(world: World) -> set[str]:
    """Handles on the backend."""
    return {path.name for path in (world.store / "volumes").iterdir()}


async def cut_by_hand(world: World, volume: str, name: str) -> str:
    """A snapshot as an operator makes one with Nomad's own command: nobody keeps a record of it."""
    item = {"SourceVolumeID": volume, "PluginID": PLUGIN, "Name": name}
    answer = await world.client.call(
        "PUT", "/v1/volumes/snapshot", {"namespace": "default"}, body={"Snapshots": [item]}, timeout_seconds=60
    )
    return str(answer.data["Snapshots"][0]["ID"])


async def test_snapshots_are_found_by_who_had_the_volume(place_of: World) -> None:
    used, free, job = place_of.fresh("used"), place_of.fresh("free"), place_of.fresh("web")
    await place_of.volume(used)
    await place_of.volume(free)
    await place_of.run_job(consumer_job(job, used))
    allocation = await place_of.allocation(job)
    async with serving(place_of, "api") as service:
        one, two = place_of.fresh("s"), place_of.fresh("s")
        made = await cut(service, used, one)
        unused = await cut(service, free, two)
        await place_of.purge(job)  # the job is gone, its snapshots are still found by it
        (node,) = made["users"]["node"]
        assert node == allocation["NodeName"]
        assert made["users"] == {"job": [job], "group": ["g"], "allocation": [allocation["ID"]], "node": [node]}
        assert unused["users"] == {}
        done = await cli(service, "snapshot", "list", "--allocation", allocation["ID"][:8], "-o", "name")
        assert done.stdout == f"east/default/{one}\n"
        done = await cli(service, "snapshot", "list", "--job", job, "--node", node, "--volume", used, "-o", "wide")
        assert f"job={job}" in done.stdout
        assert await named(service, used_by=f"allocation={allocation['ID']}") == [one]
        assert await named(service, used_by="job=nobody") == []
        assert await named(service, used_by=f"node={node}", volume=free) == []
        assert await named(service, volume=free) == [two]
        await remove(service, made["uid"], unused["uid"])


@pytest.mark.parametrize("route", ROUTES)
async def test_a_foreign_snapshot_is_seen_adopted_pinned_and_only_then_deleted(place_of: World, route: str) -> None:
    volume = place_of.fresh("v")
    await place_of.volume(volume)
    handle = await cut_by_hand(place_of, volume, place_of.fresh("by-hand"))
    other = await cut_by_hand(place_of, volume, place_of.fresh("by-hand"))
    async with serving(place_of, route) as service:
        own = await cut(service, volume, place_of.fresh("own"))
        found = await foreign(service)
        assert {handle, other} <= set(found)
        assert own["handle"] not in found
        assert found[handle]["volumes"] == [{"cluster": "east", "namespace": "default", "name": volume}]
        _, first = await ask(service, "GET", f"/v1/plugins/{DRIVER}/snapshots?per_page=1")
        assert first["nextToken"], "one page by the plugin's own token"
        status, _ = await ask(service, "DELETE", f"/v1/snapshots/{handle}")
        assert status == 404, "nobody recorded it, so no verb reaches it"

        missing = await cli(service, "snapshot", "adopt", "no-such-handle", "--driver", DRIVER, check=False)
        assert missing.returncode == 4
        assert "has no snapshot 'no-such-handle'" in missing.stderr
        assert "snapshot list --foreign" in missing.stderr
        name = place_of.fresh("mine")
        await cli(
            service, "snapshot", "adopt", handle, name, "--driver", DRIVER, "--volume", volume, "--policy", "Delete"
        )
        assert handle not in await foreign(service)
        assert other in await foreign(service)

        status, mine = await ask(
            service, "POST", f"/v1/snapshots/east/default/{name}/pin", {"why": "the auditors want it"}
        )
        assert (status, mine["volume"]) == (200, volume)
        refused = await cli(service, "snapshot", "delete", name, "--yes", check=False)
        assert refused.returncode == 5
        assert "pinned by local: the auditors want it" in refused.stderr
        await ask(service, "DELETE", f"/v1/snapshots/{mine['uid']}/pin")
        await remove(service, mine["uid"], own["uid"])
        left = await foreign(service)
        assert other in left, "what was not adopted is untouched"
        assert handle not in left


async def test_a_retained_snapshots_data_goes_by_a_policy_and_a_delete(place_of: World) -> None:
    volume, name = place_of.fresh("v"), place_of.fresh("kept")
    await place_of.volume(volume)
    before = snapshots_of(place_of)
    async with serving(place_of, "api") as service:
        made = await cut(service, volume, name, deletionPolicy="Retain")
        await remove(service, made["uid"])
        assert snapshots_of(place_of) > before
        told = await cli(service, "snapshot", "set-policy", made["uid"], "Delete")
        assert "under management again" in told.stderr
        assert snapshots_of(place_of) > before
        await remove(service, made["uid"])
        assert snapshots_of(place_of) == before


@pytest.mark.parametrize("route", ROUTES)
async def test_a_restore_needs_no_source_and_takes_options_and_a_clone_is_the_live_data(
    place_of: World, route: str
) -> None:
    volume = place_of.fresh("v")
    handle = await place_of.volume(volume)
    data = place_of.store / "volumes" / handle
    (data / "a").write_bytes(b"at the cut")
    async with serving(place_of, route) as service:
        made = await cut(service, volume, place_of.fresh("s"))
        (data / "a").write_bytes(b"live")
        twin, copy, plain = place_of.fresh("twin"), place_of.fresh("copy"), place_of.fresh("web-plain")
        await ended(service, await ask(service, "POST", "/v1/volumes/clone", {"volume": volume, "name": twin}))
        assert (await bytes_of(place_of, twin)) == b"live"

        small = await cli(service, "snapshot", "restore", made["uid"], "--as", copy, "--size", "1", check=False)
        assert (small.returncode, "less than the snapshot" in small.stderr) == (2, True)
        await place_of.client.call("DELETE", f"/v1/volume/csi/{volume}")  # deregistered: the source is gone
        await cli(
            service, "snapshot", "restore", made["uid"], "--as", copy, "--size", "64Mi", "--access-mode",
            "single-node-reader-only", "--wait=60s",
        )  # fmt: skip
        assert (await bytes_of(place_of, copy)) == b"at the cut"
        row = (await place_of.client.get(f"/v1/volume/csi/{copy}", {"namespace": "default"})).data
        modes = [(c["AccessMode"], c["AttachmentMode"]) for c in row["RequestedCapabilities"]]
        assert modes == [("single-node-reader-only", "file-system")]
        assert row["RequestedCapacityMin"] == 64 << 20
        await restore(service, made["uid"], plain)
        row = (await place_of.client.get(f"/v1/volume/csi/{plain}", {"namespace": "default"})).data
        assert [c["AccessMode"] for c in row["RequestedCapabilities"]] == ["single-node-writer"]
        again = await cut(service, plain, place_of.fresh("s"))  # its passing id of a moment ago is not asked for
        await remove(service, made["uid"], again["uid"])


async def bytes_of(world: World, volume: str) -> bytes:
    row = (await world.client.get(f"/v1/volume/csi/{volume}", {"namespace": "default"})).data
    return (world.store / "volumes" / row["ExternalID"] / "a").read_bytes()


async def test_a_snapshot_whose_blocks_are_shared_waits_for_the_restored_volume(place_of: World) -> None:
    volume, copy = place_of.fresh("v"), place_of.fresh("copy")
    await place_of.volume(volume)
    sharing = {"restored_volumes_share_blocks": [DRIVER]}
    async with serving(place_of, "api", csi=sharing) as service:
        made = await cut(service, volume, place_of.fresh("s"))
        await restore(service, made["uid"], copy)
        refused = await cli(service, "snapshot", "delete", made["uid"], "--yes", check=False)
        assert refused.returncode == 5
        assert f"east/default/{copy}" in refused.stderr
        await place_of.client.call("DELETE", f"/v1/volume/csi/{copy}")
        await remove(service, made["uid"])


async def test_wrong_input_is_told_where_it_was_typed(place_of: World) -> None:
    volume = f"{place_of.fresh('data')}[0]"
    await place_of.volume(volume)
    async with serving(place_of, "api") as service:
        cases = [
            (("snapshot", "create", "no-such"), 4, "Nomad has no CSI volume 'no-such' in the namespace 'default'"),
            (("snapshot", "create", "a/b"), 2, "cannot reach a volume whose id has a slash"),
            (("volume", "clone", "no-such", "--as", "x"), 4, "no CSI volume 'no-such'"),
            (("snapshot", "list", "--foreign", "--driver", "no-such"), 4, "no plugin of driver 'no-such' is known"),
            (("snapshot", "adopt", "h", "--driver", "no-such"), 1, "no plugin of driver 'no-such' is known"),
        ]
        for words, code, text in cases:
            done = await cli(service, *words, check=False)
            assert (done.returncode, text in done.stderr) == (code, True), (words, done.stderr)
        name = place_of.fresh("s")
        made = await cut(service, volume, name)
        assert await named(service, volume=volume.replace("[", "%5B").replace("]", "%5D")) == [name]
        bad = await cli(service, "snapshot", "restore", made["uid"], "--as", "a/b", check=False)
        assert bad.returncode == 2
        assert "slash" in bad.stderr
        before = volumes_of(place_of)
        lost = await cli(
            service, "snapshot", "restore", made["uid"], "--as", "x", "--to-namespace", "nowhere", "--wait=60s",
            check=False,
        )  # fmt: skip
        assert lost.returncode == 1, lost.stderr
        assert "Nomad has no namespace 'nowhere'" in lost.stderr
        assert "make the namespace, or name another one" in lost.stderr
        assert volumes_of(place_of) == before, "what was made for it is deleted again"
        copy = volume.replace("[0]", "[1]")
        await restore(service, made["uid"], copy)
        _, found = await ask(service, "GET", "/v1/volumes")
        assert copy in [row["name"] for row in found["items"]]
        await remove(service, made["uid"])
