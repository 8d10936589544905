"""A plugin that is down, one without snapshots, secrets that an HTTP header cannot carry: what the operator reads.

A service over the fake agent, by Nomad's API; the command line's own words.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.nomad.client import Client
from tests.contract.nomad.world import eventually
from tests.integration.nomad.conftest import make_volume
from tests.integration.nomad.doubles import quick
from tests.support import serve
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import DriverFacts, HostPathDriver

DRIVER = "hostpath.csi.k8s.io"


class Without(HostPathDriver):
    """The same driver without some of its capabilities."""

    def __init__(self, *lacking: str) -> None:
        super().__init__()
        self._lacking = set(lacking)

    async def facts(self) -> DriverFacts:
        facts = await super().facts()
        return dataclasses.replace(facts, controller=facts.controller - self._lacking)


@asynccontextmanager
async def serving(agent: FakeNomad, **plugin: Any) -> AsyncIterator[serve.Serve]:
    cluster = {"name": "east", "kind": "nomad", "address": agent.url, "plugin_seconds": 0.1, "route": "api"}
    more: dict[str, Any] = {}
    if plugin:
        cluster["plugins"] = {"hostpath": {"route": "api", **plugin}}
        more["secrets"] = {"directories": [str(Path(plugin["secret"].removeprefix("file:")).parent)]}
    made = serve.service(clusters=[cluster], plugins=[], **more)
    await asyncio.to_thread(made.start)
    try:

        async def known() -> bool:
            return bool((await asyncio.to_thread(made.get, "/v1/plugins"))["items"])

        await eventually(known, "the plugin is known", 30)
        yield made
    finally:
        await asyncio.to_thread(made.process.stop)


async def cli(service: serve.Serve, *words: str) -> Any:
    return await asyncio.to_thread(lambda: service.cli(*words, check=False))


async def said(service: serve.Serve, uid: str, text: str) -> None:
    """Wait until `snapshot list -o wide` says it."""

    async def found() -> bool:
        return text in (await cli(service, "snapshot", "list", uid, "-o", "wide")).stdout

    await eventually(found, f"the list says {text!r}", 30)


async def test_a_plugin_that_is_merely_down_is_waited_for_and_one_without_snapshots_is_not() -> None:
    async with FakeNomad() as agent:
        await agent.add_plugin("hostpath", Without("CreateDeleteSnapshot", "ListSnapshots", "Clone"))
        client = Client(quick(agent.url))
        try:
            await make_volume(client, "data")
            async with serving(agent) as service:
                done = await cli(service, "snapshot", "create", "data", "one", "--wait=60s")
                assert done.returncode == 1
                assert f"the driver '{DRIVER}' cannot make snapshots (no CREATE_DELETE_SNAPSHOT)" in done.stderr
                done = await cli(service, "snapshot", "list", "--foreign")
                assert (done.returncode, done.stdout) == (0, "")
                assert "cannot list its snapshots (no LIST_SNAPSHOTS): records only" in done.stderr
                done = await cli(service, "volume", "clone", "data", "--as", "twin")
                assert done.returncode == 2
                assert "cannot clone volumes (no CLONE_VOLUME)" in done.stderr
                assert "cut a snapshot and restore it" in done.stderr
        finally:
            await client.close()


async def test_a_plugin_that_is_down_is_told_apart_by_its_health(
    agent: FakeNomad, client: Client, driver: HostPathDriver
) -> None:
    await make_volume(client, "data")
    async with serving(agent) as service:
        agent.set_plugin_health("hostpath", healthy=False)

        async def down() -> bool:
            rows = (await asyncio.to_thread(service.get, "/v1/plugins"))["items"]
            return not any(row["healthy"] for row in rows)

        await eventually(down, "the plugin is seen to be down", 30)
        made = json.loads((await cli(service, "snapshot", "create", "data", "one", "--json")).stdout)
        await said(service, made["snapshot"]["uid"], "has no healthy controller")
        done = await cli(service, "snapshot", "list", "--foreign", "--driver", DRIVER)
        assert done.returncode == 1
        assert "does not serve now" in done.stderr
        done = await cli(service, "snapshot", "adopt", "h", "--driver", DRIVER)
        assert done.returncode == 1
        assert "does not serve now" in done.stderr
        agent.set_plugin_health("hostpath", healthy=True)
        done = await cli(service, "op", "watch", made["operation"]["id"], "--timeout", "60s")
        assert done.returncode == 0, done.stderr
        assert len(driver.snapshots) == 1


async def test_a_secret_with_a_comma_is_told_with_its_remedy_and_never_shown(
    agent: FakeNomad, client: Client, driver: HostPathDriver, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"password": "hunter2,hunter3"}))
    await make_volume(client, "data")
    async with serving(agent, secret=f"file:{secret}") as service:
        done = await cli(service, "snapshot", "create", "data", "one", "--wait=60s", "--json")
        assert done.returncode == 0, done.stderr
        uid = json.loads(done.stdout)["snapshot"]["uid"]
        done = await cli(service, "snapshot", "list", "--foreign", "--driver", DRIVER)
        assert done.returncode == 2
        assert "has a comma, which Nomad's API cannot carry" in done.stderr
        assert "route: socket" in done.stderr
        assert "hunter2" not in done.stderr
        done = await cli(service, "snapshot", "delete", uid, "--yes", "--wait=1s")
        assert done.returncode == 7
        await said(service, uid, "has a comma, which Nomad's API cannot carry")
        await said(service, uid, "reach the plugin by its socket (route: socket)")
        assert len(driver.snapshots) == 1
        secret.write_text(json.dumps({"password": "hunter2"}))
        described = await cli(service, "snapshot", "describe", uid)
        assert "hunter2" not in described.stdout


@pytest.mark.parametrize(("verb", "when"), [("restore", "after it"), ("clone", "before the effect")])
async def test_a_kill_during_the_create_leaves_one_volume_and_it_is_registered(
    agent: FakeNomad, client: Client, driver: HostPathDriver, verb: str, when: str
) -> None:
    """kill -9 while CreateVolume is with Nomad, which has made it or not: the next start ends with one volume."""
    await make_volume(client, "data")
    async with serving(agent) as service:
        done = await cli(service, "snapshot", "create", "data", "one", "--wait=60s", "--json")
        uid = json.loads(done.stdout)["snapshot"]["uid"]
        before = set(driver.volumes)
        agent.cut_next("PUT", "/v1/volume/csi/*/create", after=when == "after it", times=1000)
        noun = ("snapshot", "restore", uid) if verb == "restore" else ("volume", "clone", "data")
        operation = json.loads((await cli(service, *noun, "--as", "new", "--json")).stdout)["id"]

        async def noted() -> bool:
            row = await asyncio.to_thread(service.get, f"/v1/operations/{operation}")
            return any(step["name"] == "creating the volume" for step in row["steps"])

        await eventually(noted, "the create is under way", 30)
        await asyncio.to_thread(service.kill)
        agent.clear_faults()
        await asyncio.to_thread(service.start)
        done = await cli(service, "op", "watch", operation, "--timeout", "60s")
        assert done.returncode == 0, done.stderr
        assert len(set(driver.volumes) - before) == 1
        rows = (await asyncio.to_thread(service.get, "/v1/volumes"))["items"]
        assert sorted(row["name"] for row in rows) == ["data", "new"]


async def test_a_restore_that_may_not_be_registered_says_so_and_goes_on_when_it_may(
    agent: FakeNomad, client: Client, driver: HostPathDriver
) -> None:
    await make_volume(client, "data")
    async with serving(agent) as service:
        done = await cli(service, "snapshot", "create", "data", "one", "--wait=30s", "--json")
        uid = json.loads(done.stdout)["snapshot"]["uid"]
        agent.fail_next("PUT", "/v1/volume/csi/new", status=403, text="Permission denied", times=1000)
        operation = json.loads((await cli(service, "snapshot", "restore", uid, "--as", "new", "--json")).stdout)["id"]

        async def told() -> bool:
            row = await asyncio.to_thread(service.get, f"/v1/operations/{operation}")
            failure = row["failure"] or {}
            return row["state"] == "running" and "configs/nomad/policy.hcl" in failure.get("hint", "")

        await eventually(told, "the operation says what the token lacks", 30)
        agent.clear_faults()
        done = await cli(service, "op", "watch", operation, "--timeout", "60s")
        assert done.returncode == 0, done.stderr
        rows = (await asyncio.to_thread(service.get, "/v1/volumes"))["items"]
        assert sorted(row["name"] for row in rows) == ["data", "new"]


async def test_a_restore_that_nomad_loses_and_then_refuses_is_abandoned_with_its_name(
    agent: FakeNomad, client: Client, driver: HostPathDriver
) -> None:
    await make_volume(client, "data")
    async with serving(agent) as service:
        done = await cli(service, "snapshot", "create", "data", "one", "--wait=60s", "--json")
        uid = json.loads(done.stdout)["snapshot"]["uid"]
        agent.fail_next(
            "PUT", "/v1/volume/csi/*/create", text="rpc error: code = Internal desc = the pool went away", times=1000
        )
        operation = json.loads((await cli(service, "snapshot", "restore", uid, "--as", "new", "--json")).stdout)["id"]

        async def failing() -> bool:
            row = await asyncio.to_thread(service.get, f"/v1/operations/{operation}")
            return row["failure"] is not None

        await eventually(failing, "the create fails", 30)
        done = await cli(service, "op", "abandon", operation, "--yes")
        assert done.returncode == 0, done.stderr
        done = await cli(service, "op", "watch", operation, "--timeout", "60s")
        assert done.returncode == 1
        assert f"the volume 'restore-{operation}' may be on the backend (ABANDONED)" in done.stderr
        assert "look for it on the backend" in done.stderr

        async def counted() -> bool:
            return "snapbridge_orphan_possible_total 1.0" in await asyncio.to_thread(service.metrics)

        await eventually(counted, "it is counted", 30)
