"""What thousands of Nomad jobs with settings cost: a start, a resync at rest, an event, memory, requests.

    python -m bench.nomad_jobs --jobs 2000

The service is a process of its own; the fake agent lives in this one. Every job has its settings in its meta and a
group that runs nothing, so that what is measured is ours. The incumbent is nobody: Nomad has nothing like it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from bench import figures
from tests.support import serve
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver, SnapshotMade
from tests.support.nomad.jobspec import canonical

RESYNC_SECONDS = 5.0
_LIMIT_SECONDS = 180.0
_PLUGIN = "hostpath"


class TimedDriver(HostPathDriver):
    """Remembers when each cut began."""

    def __init__(self) -> None:
        super().__init__()
        self.began: dict[str, float] = {}

    async def create_snapshot(
        self, source_id: str, name: str, secrets: Mapping[str, str], parameters: Mapping[str, str]
    ) -> SnapshotMade:
        self.began.setdefault(source_id, time.monotonic())
        return await super().create_snapshot(source_id, name, secrets, parameters)


def job(name: str, volume: str, key: str) -> dict[str, Any]:
    """A service whose one group claims a volume and runs nothing."""
    block = {"Type": "csi", "Source": volume, "AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    task = {"Name": "main", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["60"]}}
    meta = {"snapbridge_volumes": "data", key: "true", "owner": "bench", "team": "storage"}
    group = {"Name": "g", "Count": 0, "Volumes": {"data": block}, "Tasks": [task]}
    return {"ID": name, "Type": "service", "Datacenters": ["*"], "Meta": meta, "TaskGroups": [group]}


def measure(jobs: int = 2000, events: int = 20) -> list[figures.Row]:
    """Start the service beside an agent with so many jobs, then deploy some more, one after the other."""
    return asyncio.run(_measure(jobs, events))


async def _measure(jobs: int, events: int) -> list[figures.Row]:
    driver = TimedDriver()
    async with FakeNomad() as agent, aiohttp.ClientSession() as session:
        await agent.add_plugin(_PLUGIN, driver)
        for number in range(jobs):
            agent.register(canonical(job(f"job-{number}", f"volume-{number}", "snapbridge_on_stop")))
        for number in range(events):
            await _volume(session, agent.url, f"event-{number}")
        await asyncio.sleep(1.0)
        cluster = {"name": "bench", "kind": "nomad", "address": agent.url, "resync_seconds": RESYNC_SECONDS}
        service = serve.service(clusters=[cluster], plugins=[], service={"log_level": "debug"})
        await asyncio.to_thread(service.start)  # the first start of all also makes the ledger
        await asyncio.to_thread(service.process.stop)
        agent.state.variables.clear()
        agent.calls.clear()
        (service.folder / "log").unlink()
        await asyncio.to_thread(service.start)
        try:
            return await _figures(agent, service, session, driver, jobs, events)
        finally:
            await asyncio.to_thread(service.process.stop)


async def _figures(
    agent: FakeNomad,
    service: serve.Serve,
    session: aiohttp.ClientSession,
    driver: TimedDriver,
    jobs: int,
    events: int,
) -> list[figures.Row]:
    await _until(lambda: _summaries(agent) >= jobs, "every job has its summary")
    start = next(one for one in _lists(service.folder) if one["read"])
    reads = Counter(_shape(call.path) for call in agent.calls if call.method == "GET")
    await asyncio.sleep(RESYNC_SECONDS)
    agent.calls.clear()
    known = len(_lists(service.folder))
    await _until(lambda: len(_lists(service.folder)) >= known + 2, "two resyncs at rest")
    rest = [one["seconds"] for one in _lists(service.folder)[known:] if not one["read"]]
    single = [call.path for call in agent.calls if call.path.startswith(("/v1/job/", "/v1/var/"))]
    delays = [await _event(agent, session, driver, number) for number in range(events)]
    process = service.process
    mib = 2**20
    table = [
        ("all read at a start", "s", start["seconds"], "<= 3"),
        ("reads of single jobs at a start", "requests", reads["/v1/job"], f"<= {jobs + 10}"),
        ("a resync at rest", "s", statistics.median(rest), "<= 3"),
        ("requests for single jobs, two at rest", "requests", len(single), "0"),
        ("a deploy to its cut's begin, median", "ms", statistics.median(delays) * 1000, ""),
        (f"a deploy to its cut's begin, most of {events}", "ms", max(delays) * 1000, "<= 300"),
        ("resident memory", "MiB", process.rss_bytes() / mib, "<= 114"),
        ("most resident memory", "MiB", process.peak_rss_bytes() / mib, ""),
    ]
    return [figures.Row(f"{jobs} Nomad jobs: {name}", unit, ours, None, goal) for name, unit, ours, goal in table]


async def _event(agent: FakeNomad, session: aiohttp.ClientSession, driver: TimedDriver, number: int) -> float:
    """Deploy a job and wait for its cut; the seconds between."""
    volume = f"event-{number}"
    handle = agent.state.volumes[("default", volume)].spec["ExternalID"]
    body = {"Job": job(f"deploy-{number}", volume, "snapbridge_on_deploy")}
    began = time.monotonic()
    async with session.put(f"{agent.url}/v1/jobs", json=body) as answer:
        answer.raise_for_status()
    await _until(lambda: handle in driver.began, f"the cut of {volume} has begun")
    return driver.began[handle] - began


async def _volume(session: aiohttp.ClientSession, url: str, name: str) -> None:
    capability = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    row = {"ID": name, "Name": name, "PluginID": _PLUGIN, "RequestedCapacityMin": 1 << 20,
           "RequestedCapabilities": [capability]}  # fmt: skip
    async with session.put(f"{url}/v1/volume/csi/{name}/create", json={"Volumes": [row]}) as answer:
        answer.raise_for_status()


def _summaries(agent: FakeNomad) -> int:
    return sum(path.startswith("snapbridge/status/") for _, path in agent.state.variables)


def _lists(folder: Path) -> list[dict[str, Any]]:
    """What the service's log says of each list of jobs."""
    lines = (folder / "log").read_text(errors="replace").splitlines()
    rows = (json.loads(line) for line in lines if "are listed" in line)
    return [row for row in rows if "read" in row]


def _shape(path: str) -> str:
    """The first two parts of a path: which kind of request it was."""
    return "/".join(path.split("/")[:3])


async def _until(test: Any, what: str) -> None:
    end = time.monotonic() + _LIMIT_SECONDS
    while not test():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {_LIMIT_SECONDS:.0f} s: {what}")
        await asyncio.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.nomad_jobs", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000, help="jobs with settings in their meta")
    parser.add_argument("--events", type=int, default=20, help="deploys, one after the other")
    parser.add_argument("--output", type=Path, help="a file for the figures as JSON; else they are printed")
    chosen = parser.parse_args()
    table = measure(chosen.jobs, chosen.events)
    print(figures.render(table))
    if chosen.output:
        figures.write(chosen.output, table)
    else:
        print(
            json.dumps([{"name": r.name, "unit": r.unit, "value": r.ours, "goal": r.goal} for r in table], indent=1)
        )


if __name__ == "__main__":
    main()
