"""What stands beside a real kubelet: a localdisk driver below its plugins folder, and `snapbridge node` for it.

Take pods down before the driver: kubelet keeps a pod whose volume it cannot unmount.
"""

from __future__ import annotations

import json
import sys

import yaml

from tests.support import claims, localdisk
from tests.support.bed import localdisk as server
from tests.support.bed import node, paths, process

REGISTERED_SECONDS = 60.0


def driver(place: node.Node) -> localdisk.LocalDisk:
    """A started driver whose socket is below the kubelet's plugins folder; its state is elsewhere."""
    folder = place.plugins / localdisk.NAME
    folder.mkdir(parents=True, exist_ok=True)
    started = server.LocalDisk(localdisk.NAME, node_id=place.name, socket_path=folder / "csi.sock")
    started.start()
    return localdisk.LocalDisk(started.state_dir.parent, started.socket, started.state_dir, started)


def agent(place: node.Node) -> process.Process:
    """`snapbridge node`, not started: it finds the plugins' sockets and announces them to this kubelet."""
    folder = paths.fresh("node-agent")
    config = folder / "node.yaml"
    section = {
        "name": place.name,
        "sockets": [f"{place.plugins}/*/csi.sock"],
        "registration_dir": str(place.plugins_registry),
        "announce_below": [str(place.plugins)],
    }
    config.write_text(yaml.safe_dump({"node": section}), encoding="utf-8")
    argv = [sys.executable, "-m", "bridge", "node", "-c", str(config)]
    return process.Process(
        process.Launch(
            name="snapbridge-node", argv=argv, log=folder / "log", ready=lambda: True, folder=paths.REPOSITORY
        )
    )


def drivers(place: node.Node) -> dict[str, str]:
    """Driver -> node id, as the kubelet wrote it into the CSINode; empty when there is none."""
    text = place.plane.kubectl("get", "csinode", place.name, "--ignore-not-found", "-o", "json")
    rows = json.loads(text)["spec"].get("drivers") if text.strip() else None
    return {row["name"]: row["nodeID"] for row in rows or []}


def until_registered(place: node.Node) -> None:
    """Wait until the kubelet knows the driver under this node's name."""
    claims.until(
        "the kubelet knows the driver",
        lambda: drivers(place).get(localdisk.NAME) == place.name,
        seconds=REGISTERED_SECONDS,
    )


def until_forgotten(place: node.Node) -> None:
    """Wait until the kubelet does not know the driver any more."""
    claims.until(
        "the kubelet forgot the driver",
        lambda: localdisk.NAME not in drivers(place),
        seconds=REGISTERED_SECONDS,
    )
