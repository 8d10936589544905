"""A real Nomad agent for the contract: one server and client on loopback ports, dead with the test run.

It is used where NOMAD_BIN names a binary or `nomad` is on PATH; nothing downloads one.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import urllib.request
from pathlib import Path

from tests.support import localdisk
from tests.support.bed import paths, ports, process

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


def start(*, acl: bool = False) -> RealAgent:
    """Start an agent and wait until it has a leader and a ready node."""
    folder = paths.fresh("nomad")
    http, rpc, serf = ports.free(), ports.free(), ports.free()
    config = folder / "agent.hcl"
    config.write_text(_CONFIG.format(http=http, rpc=rpc, serf=serf, acl=str(acl).lower()))
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
        ready_seconds=60.0,
        folder=folder,
    )
    server = process.Process(launch)
    server.start()
    return RealAgent(url, str(state), folder / "a", server)


def stop(agent: RealAgent) -> None:
    """Stop the agent, and take away what its tasks left mounted."""
    agent.process.stop()
    process.forget(agent.process)
    localdisk.clear(agent.alloc_dir.parent)


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
