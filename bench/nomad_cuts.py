"""`python -m bench.nomad_cuts`: 64 volumes of a driver whose cut takes 2 s, over its socket and through Nomad's API.

The whole service runs as a process of its own, beside one agent: a real one where NOMAD_BIN (or PATH) has it, else
the fake agent of the tests, whose plugins are as serial. Through the API fewer volumes are cut, as it cuts one at a
time: the figure for all of them is that of one cut times their number, and is marked so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from adapters.nomad.client import Client
from adapters.nomad.errors import AnswerError
from adapters.nomad.settings import Settings
from bench.slow_driver import DRIVER
from tests.support import httpproxy, serve
from tests.support.bed import paths
from tests.support.nomad import real
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.plugin_job import plugin_job

PLUGIN = "slow"
GOAL_SECONDS = 5.0
_PATIENCE_SECONDS = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Agent:
    """The agent under the bench."""

    kind: str
    url: str
    state_dir: str


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """One route. `seconds` is from the first request to the last snapshot being ready."""

    route: str
    volumes: int
    seconds: float
    slowest_answer_seconds: float
    """Of the service, to a request for a snapshot."""
    orchestrator_calls: float
    """Requests to Nomad's API per snapshot, of all kinds, while it ran."""
    plugin_calls: float
    """CSI calls of the service per snapshot, health probes apart; 0 where Nomad makes them."""
    own_cpu_ms: float
    """Of the service, per snapshot."""


@contextlib.asynccontextmanager
async def agent() -> AsyncIterator[Agent]:
    """A real agent where there is one, else the fake."""
    if real.binary():
        started = await asyncio.to_thread(real.start)
        try:
            yield Agent("real", started.url, started.state_dir)
        finally:
            await asyncio.to_thread(real.stop, started)
        return
    async with FakeNomad() as fake:
        yield Agent("fake", fake.url, str(fake.data_dir / "client"))


async def prepare(place: Agent, cut_seconds: float, volumes: Sequence[str]) -> None:
    """The plugin's job, and a registered volume for each name."""
    client = Client(Settings.model_validate({"address": place.url}))
    try:
        argv = [sys.executable, "-m", "bench.slow_driver", str(cut_seconds)]
        job = plugin_job(PLUGIN, argv, place.state_dir, {"PYTHONPATH": str(paths.REPOSITORY)})
        await client.call("PUT", "/v1/jobs", body=job)
        await _until_healthy(client)
        for name in volumes:
            row = {
                "ID": name, "Name": name, "PluginID": PLUGIN, "RequestedCapacityMin": 1 << 20,
                "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}],
            }  # fmt: skip
            path = f"/v1/volume/csi/{name}/create"
            await client.call("PUT", path, {"namespace": "default"}, body={"Volumes": [row]}, timeout_seconds=60)
    finally:
        await client.close()


async def _until_healthy(client: Client) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(AnswerError):
            plugin = (await client.get(f"/v1/plugin/csi/{PLUGIN}")).data
            if plugin["ControllersHealthy"] and plugin["NodesHealthy"]:
                return
        await asyncio.sleep(0.2)
    raise SystemExit("the plugin did not become healthy")


async def measure(place: Agent, route: str, volumes: Sequence[str], concurrency: int) -> Measured:
    """Ask for all at once, follow them until every one is ready."""
    async with httpproxy.running(place.url, "") as proxy:
        cluster: dict[str, Any] = {
            "name": "nomad", "kind": "nomad", "address": proxy.url, "route": route, "plugin_seconds": 0.5,
            "plugins": {PLUGIN: {"route": route, "calls": {"concurrency": concurrency}}},
        }  # fmt: skip
        if route == "socket":
            cluster["state_dir"] = place.state_dir
        made = serve.service(clusters=[cluster], plugins=[], service={"log_level": "warning"})
        await asyncio.to_thread(made.start)
        try:
            return await _cut_all(made, proxy, route, volumes)
        finally:
            await asyncio.to_thread(made.process.stop)


async def _cut_all(service: serve.Serve, proxy: httpproxy.HttpProxy, route: str, volumes: Sequence[str]) -> Measured:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(service.url, connector=connector) as session:
        await _until(session, "/v1/plugins", lambda items: any(one["healthy"] for one in items), 0.1)
        calls, cpu, plugin = len(proxy.answers), service.process.cpu_seconds(), _plugin_calls(service)
        begun = time.monotonic()
        answers = await asyncio.gather(*(_ask(session, route, name) for name in volumes))
        unfinished = "&".join(f"state={state}" for state in ("pending", "cutting", "processing", "failing"))
        await _until(session, f"/v1/snapshots?per_page=1&{unfinished}", lambda items: not items, 0.05)
        seconds = time.monotonic() - begun
        query = f"/v1/snapshots?per_page=1000&state=ready&selector=bench={route}"
        await _until(session, query, lambda items: len(items) == len(volumes), 0.05)
    count = len(volumes)
    return Measured(
        route,
        count,
        seconds,
        max(answers),
        (len(proxy.answers) - calls) / count,
        (_plugin_calls(service) - plugin) / count,
        (service.process.cpu_seconds() - cpu) * 1000 / count,
    )


async def _ask(session: aiohttp.ClientSession, route: str, volume: str) -> float:
    begun = time.monotonic()
    body = {"volume": volume, "name": f"{volume}-{route}", "labels": {"bench": route}}
    async with session.post("/v1/snapshots", json=body) as answer:
        if answer.status != 202:
            raise SystemExit(f"refused: {await answer.text()}")
    return time.monotonic() - begun


async def _until(session: aiohttp.ClientSession, path: str, enough: Any, pause: float) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    items: list[Any] = []
    while time.monotonic() < deadline:
        async with session.get(path) as answer:
            items = (await answer.json())["items"]
        if enough(items):
            return
        await asyncio.sleep(pause)
    raise SystemExit(f"not so after {_PATIENCE_SECONDS:g} s: {path}: {items[:2]}")


def _plugin_calls(service: serve.Serve) -> float:
    """CSI calls that the service has made, health probes apart."""
    total = 0.0
    for line in service.metrics().splitlines():
        if line.startswith("snapbridge_plugin_rpc_duration_seconds_count") and "Probe" not in line:
            total += float(line.rpartition(" ")[2])
    return total


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What was asked for."""

    cut_seconds: float
    volumes: int
    api_volumes: int
    concurrency: int


async def run(shape: Shape) -> dict[str, Any]:
    """Both routes beside one agent; the figures as one object."""
    names = [f"bench-{number:03}" for number in range(shape.volumes)]
    async with agent() as place:
        await prepare(place, shape.cut_seconds, names)
        socket = await measure(place, "socket", names, shape.concurrency)
        api = await measure(place, "api", names[: shape.api_volumes], shape.concurrency)
    per_cut = api.seconds / api.volumes
    return {
        "agent": place.kind,
        "driver": DRIVER,
        **dataclasses.asdict(shape),
        "goal_seconds": GOAL_SECONDS,
        "socket": dataclasses.asdict(socket),
        "api": dataclasses.asdict(api),
        "api_seconds_per_cut": per_cut,
        "api_seconds_extrapolated": per_cut * shape.volumes,
        "met": socket.seconds <= GOAL_SECONDS,
    }


def render(found: dict[str, Any]) -> str:
    """The table for people."""
    socket, api = found["socket"], found["api"]
    per_cut = found["api_seconds_per_cut"]
    note = f"{api['volumes']} measured, {found['volumes']} extrapolated from {per_cut:.2f} s per cut"
    head = f"{found['volumes']} volumes, a cut takes {found['cut_seconds']:g} s, {found['agent']} agent"
    rows = [
        (head, f"socket, {found['concurrency']} at once", "Nomad's API"),
        ("all ready after, s", f"{socket['seconds']:.2f}", f"{found['api_seconds_extrapolated']:.1f} ({note})"),
        (
            "slowest answer to a request, s",
            f"{socket['slowest_answer_seconds']:.3f}",
            f"{api['slowest_answer_seconds']:.3f}",
        ),
        (
            "requests to Nomad's API per snapshot",
            f"{socket['orchestrator_calls']:.2f}",
            f"{api['orchestrator_calls']:.2f}",
        ),
        ("CSI calls of ours per snapshot", f"{socket['plugin_calls']:.2f}", f"{api['plugin_calls']:.2f}"),
        ("own CPU per snapshot, ms", f"{socket['own_cpu_ms']:.1f}", f"{api['own_cpu_ms']:.1f}"),
        ("goal", f"<= {found['goal_seconds']:g} s: {'met' if found['met'] else 'NOT met'}", "-"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.nomad_cuts", description=__doc__)
    parser.add_argument("--cut-seconds", type=float, default=2.0)
    parser.add_argument("--volumes", type=int, default=64)
    parser.add_argument("--api-volumes", type=int, default=8, help="measured through Nomad's API, one after another")
    parser.add_argument("--concurrency", type=int, default=32, help="of the driver, over its socket")
    parser.add_argument("--output", type=Path, default=Path("bench-nomad-cuts.json"))
    chosen = parser.parse_args()
    shape = Shape(chosen.cut_seconds, chosen.volumes, chosen.api_volumes, chosen.concurrency)
    found = asyncio.run(run(shape))
    print(render(found))
    chosen.output.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written: {chosen.output}")


if __name__ == "__main__":
    main()
