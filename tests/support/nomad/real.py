"""A real Nomad agent for tests and demonstrations: one server and client on loopback ports, dead with the run.

It is used where NOMAD_BIN names a binary or `nomad` is on PATH; nothing downloads one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.support import localdisk
from tests.support.bed import paths, ports, process

_STOP_SECONDS = 60.0
_CONFIG = """
bind_addr = "127.0.0.1"
disable_update_check = true
disable_anonymous_signature = true
ports {{ http = {http}, rpc = {rpc}, serf = {serf} }}
consul {{ auto_advertise = false, server_auto_join = false, client_auto_join = false }}
acl {{ enabled = {acl} }}
plugin "raw_exec" {{ config {{ enabled = true }} }}
client {{
  options {{ "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault" }}
}}
"""


def binary() -> str:
    """The Nomad binary, or "" where there is none."""
    return os.environ.get("NOMAD_BIN") or shutil.which("nomad") or ""


@dataclasses.dataclass(frozen=True, slots=True)
class RealAgent:
    """A running agent."""

    url: str
    state_dir: str
    alloc_dir: Path
    process: process.Process


def configuration(http: int, rpc: int, serf: int, *, acl: bool) -> str:
    """The agent's file: loopback only, and no question to any cloud."""
    return _CONFIG.format(http=http, rpc=rpc, serf=serf, acl=str(acl).lower())


def start(*, acl: bool = False) -> RealAgent:
    """Start an agent and wait until it has a leader and a ready node. MissingServerError when there is no binary."""
    if not binary():
        raise process.MissingServerError("there is no Nomad binary: set NOMAD_BIN=/path/to/nomad")
    folder = paths.fresh("nomad")
    http, rpc, serf = ports.free(), ports.free(), ports.free()
    config = folder / "agent.hcl"
    config.write_text(configuration(http, rpc, serf, acl=acl))
    url = f"http://127.0.0.1:{http}"
    state = folder / "s"
    argv: list[str | Path] = [
        binary(), "agent", "-dev", "-config", config, "-state-dir", state, "-alloc-dir", folder / "a",
        "-log-level", "INFO",
    ]  # fmt: skip
    launch = process.Launch(
        name="nomad",
        argv=argv,
        log=folder / "nomad.log",
        ready=lambda: _ready(url, acl=acl),
        ready_seconds=90.0,
        folder=folder,
    )
    server = process.Process(launch)
    server.start()
    return RealAgent(url, str(state), folder / "a", server)


def stop(agent: RealAgent, token: str = "") -> None:
    """Stop every job, then the agent, and take away what its tasks left running or mounted."""
    folder = agent.alloc_dir.parent
    try:
        _stop_jobs(agent.url, token)
    finally:
        agent.process.stop()
        process.forget(agent.process)
        _kill_left_over(folder)
        localdisk.clear(folder)


def _stop_jobs(url: str, token: str) -> None:
    """An agent that ends while a task is being stopped leaves the task's executor behind."""
    for job in sorted(_call(url, "/v1/jobs", token), key=lambda row: str(row["ID"]).startswith("csi-")):
        _call(url, f"/v1/job/{urllib.parse.quote(job['ID'], safe='')}", token, method="DELETE")
        deadline = time.monotonic() + _STOP_SECONDS
        while any(
            row["JobID"] == job["ID"] and row["ClientStatus"] in ("pending", "running")
            for row in _call(url, "/v1/allocations", token)
        ):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)


def _call(url: str, path: str, token: str, method: str = "GET") -> Any:
    request = urllib.request.Request(url + path, headers={"X-Nomad-Token": token} if token else {}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _kill_left_over(folder: Path) -> None:
    """Executors of this agent, by their own folder in their command lines."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in entry.read_bytes():
                os.kill(int(entry.parent.name), signal.SIGKILL)


def _ready(url: str, *, acl: bool) -> bool:
    """With ACLs on nobody may ask for the nodes yet; the plugin's health tells of them later."""
    for path in ("/v1/status/leader",) if acl else ("/v1/status/leader", "/v1/nodes"):
        with urllib.request.urlopen(url + path, timeout=2) as answer:
            text = answer.read().decode()
        if path.endswith("leader") and ":" not in text:
            return False
        if path.endswith("nodes") and '"Status":"ready"' not in text:
            return False
    return True
