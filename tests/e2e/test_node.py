"""A plugin on a far node: only the node agent can reach its socket, and the service cuts through it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.test_standalone import backend
from tests.support import claims, localdisk, node_pki, serve
from tests.support.bed import paths, ports, process


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[localdisk.LocalDisk, serve.Serve, process.Process]]:
    """A driver, a service with a hub and no socket of its own, and an agent beside the driver."""
    authority = node_pki.Authority(tmp_path)
    certificate, key = authority.issue("hub", loopback=True)
    hub_port = ports.free()
    with localdisk.start_localdisk(mode="directory") as driver:
        volume = driver.volume("far-data", 1 << 20)
        settings = {"name": "data", "driver": localdisk.NAME, "handle": volume.volume_id, "capacity": "1MiB"}
        service = serve.service(
            clusters=[{"name": "here", "kind": "standalone", "volumes": [settings]}],
            plugins=[],
            hub={
                "port": hub_port,
                "tls_cert_file": str(certificate),
                "tls_key_file": str(key),
                "client_ca_file": str(authority.path),
            },
        )
        with service, _agent(authority, hub_port, driver.socket) as agent:
            yield driver, service, agent


def _agent(authority: node_pki.Authority, hub_port: int, socket: Path) -> process.Process:
    folder = paths.fresh("agent")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "node.yaml"
    certificate, key = authority.issue("worker-1")
    section = {
        "name": "worker-1",
        "sockets": [str(socket)],
        "hub": f"127.0.0.1:{hub_port}",
        "tls_cert_file": str(certificate),
        "tls_key_file": str(key),
        "hub_ca_file": str(authority.path),
    }
    config.write_text(yaml.safe_dump({"node": section}))
    argv = [sys.executable, "-m", "bridge", "node", "-c", str(config)]
    return process.Process(process.Launch(name="snapbridge-node", argv=argv, log=folder / "log", ready=lambda: True))


def test_a_snapshot_through_the_node_agent(far: tuple[localdisk.LocalDisk, serve.Serve, process.Process]) -> None:
    driver, service, agent = far
    claims.until("node attached", lambda: bool(service.cli_json("node", "list")["items"]))
    claims.until("plugin healthy", lambda: any(p["healthy"] for p in service.cli_json("plugin", "list")["items"]))
    (row, *_) = service.cli_json("plugin", "list")["items"]
    assert row["route"] == "node-agent"
    service.cli("snapshot", "create", "data", "one", "--wait=60s")
    assert len(backend(driver)) == 1
    agent.kill()
    claims.until("node gone", lambda: not any(n["connected"] for n in service.cli_json("node", "list")["items"]))
    service.cli("snapshot", "create", "data", "two")
    agent.start()
    claims.until(
        "both ready", lambda: all(one["ready"] for one in service.cli_json("snapshot", "list")["items"]), seconds=60
    )
    assert len(backend(driver)) == 2
