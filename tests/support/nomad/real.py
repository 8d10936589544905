"""`RealNomad`: a real agent with the surface of the fake, where NOMAD_BIN names a binary or `nomad` is on PATH.

    async with RealNomad() as agent:
        await agent.run_plugin("disk", [sys.executable, "-m", "adapters.localdisk", "--endpoint", "${CSI_ENDPOINT}"])

It must not download a binary. The agent dies with the test run, as every server of the bed does.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.support.bed import paths, ports, process
from tests.support.nomad.plugin_job import plugin_job

# Without the denylist the agent asks clouds for metadata for minutes and then dies (test-bed.md 4).
_CONFIG = """
data_dir = "{data_dir}"
bind_addr = "127.0.0.1"
disable_update_check = true
disable_anonymous_signature = true
ports {{ http = {http}  rpc = {rpc}  serf = {serf} }}
acl {{ enabled = {acl} }}
plugin "raw_exec" {{ config {{ enabled = true }} }}
client {{
  network_interface = "lo"
  options = {{ "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean" }}
}}
"""


def binary() -> str:
    """The Nomad binary, or "" where there is none."""
    return os.environ.get("NOMAD_BIN") or shutil.which("nomad") or ""


def configuration(data_dir: Path, http: int, rpc: int, serf: int, *, acl: bool) -> str:
    """The agent's file: loopback only, its own ports and folder, no cloud fingerprints."""
    return _CONFIG.format(data_dir=data_dir, http=http, rpc=rpc, serf=serf, acl=str(acl).lower())


class RealNomad:
    """A server and client in one process. Its folder and its log are kept when a test fails."""

    def __init__(self, *, acl: bool = False, program: str | None = None) -> None:
        self.program = binary() if program is None else program
        self.acl = acl
        self.token = ""  # the management token, with ACLs on
        self.url = ""
        self.data_dir = Path()
        self._server: process.Process | None = None

    @property
    def state_dir(self) -> Path:
        """The client's state directory; plugin sockets are below it."""
        return self.data_dir / "client"

    async def __aenter__(self) -> Self:
        if not self.program:
            raise process.MissingServerError("no Nomad binary: set NOMAD_BIN to one, or put `nomad` on PATH")
        await asyncio.to_thread(self._start)
        if self.acl:
            self.token = (await self.call("POST", "/v1/acl/bootstrap"))["SecretID"]
        return self

    async def __aexit__(self, *_: object) -> None:
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.stop)
            process.forget(server)

    def _start(self) -> None:
        folder = paths.fresh("nomad")
        self.data_dir = folder / "d"
        http, rpc, serf = ports.free(), ports.free(), ports.free()
        self.url = f"http://127.0.0.1:{http}"
        config = folder / "agent.hcl"
        config.write_text(configuration(self.data_dir, http, rpc, serf, acl=self.acl))
        argv: list[str | Path] = [self.program, "agent", "-dev", "-config", config, "-log-level", "INFO"]
        log = folder / "nomad.log"
        launch = process.Launch(name="nomad", argv=argv, log=log, ready=self._ready, folder=folder)
        self._server = process.Process(launch)
        self._server.start()

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/v1/status/leader", timeout=2) as answer:
            led = ":" in answer.read().decode()
        if not led or self.acl:
            return led
        with urllib.request.urlopen(f"{self.url}/v1/nodes", timeout=2) as answer:
            return any(node["Status"] == "ready" for node in json.load(answer))

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """A request that must succeed; returns its JSON. Raises RuntimeError with the agent's text."""
        headers = {"X-Nomad-Token": self.token} if self.token else {}
        async with (
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=150)) as session,
            session.request(method, self.url + path, json=body, params=query) as response,
        ):
            text = await response.text()
            if response.status >= 300:
                raise RuntimeError(f"{method} {path}: {response.status} {text}")
            return json.loads(text) if text.strip() else None

    async def run_plugin(
        self, plugin_id: str, argv: Sequence[str], env: Mapping[str, str] | None = None, timeout_seconds: float = 60.0
    ) -> str:
        """Run a driver as a plugin; returns its allocation's id when the plugin is healthy (8 to 11 s)."""
        await self.call("PUT", "/v1/jobs", plugin_job(plugin_id, argv, str(self.state_dir), env))
        async with asyncio.timeout(timeout_seconds):
            while True:
                found = await self._controller(plugin_id)
                if found:
                    return found
                await asyncio.sleep(0.2)

    async def _controller(self, plugin_id: str) -> str:
        try:
            row = await self.call("GET", f"/v1/plugin/csi/{plugin_id}")
        except RuntimeError:
            return ""  # 404 until the node has been fingerprinted
        healthy = [info["AllocID"] for info in row["Controllers"].values() if info["Healthy"]]
        return str(healthy[0]) if healthy else ""

    def plugin_socket(self, allocation_id: str) -> Path:
        """Where the driver of a plugin's allocation listens (nomad.md 1.2)."""
        return self.state_dir / "csi" / "plugins" / allocation_id / "csi.sock"
