"""`snapbridge volume|plugin|cluster list` and the list of nodes: what the service knows of the world."""

from __future__ import annotations

import datetime
from typing import Any

import click

from bridge.cli import figures, options, output
from bridge.cli.output import Column, Sheet

Json = dict[str, Any]

VOLUMES = Sheet(
    "volumes",
    (
        Column("CLUSTER", lambda item: item["cluster"]),
        Column("NAMESPACE", lambda item: item["namespace"]),
        Column("NAME", lambda item: item["name"]),
        Column("DRIVER", lambda item: item["driver"]),
        Column("CAPACITY", lambda item: figures.size(item["capacityBytes"])),
        Column("MODE", lambda item: item["mode"]),
        Column("USED-BY", lambda item: ", ".join(item["users"])),
        Column("HANDLE", lambda item: item["handle"], wide=True),
        Column("ACCESS", lambda item: ", ".join(item["accessModes"]), wide=True),
        Column("FS", lambda item: item["fsType"], wide=True),
        Column("MADE-FROM", lambda item: item["sourceSnapshot"] or item["sourceVolume"] or "", wide=True),
    ),
    lambda item: f"{item['cluster']}/{item['namespace']}/{item['name']}",
)

PLUGINS = Sheet(
    "plugins",
    (
        Column("DRIVER", lambda item: item["driver"]),
        Column("ROLE", lambda item: item["role"]),
        Column("INSTANCE", lambda item: item["instance"]),
        Column("ROUTE", lambda item: item["route"]),
        Column("HEALTHY", lambda item: item["healthy"]),
        Column("VERSION", lambda item: item["vendorVersion"]),
        Column("MESSAGE", lambda item: item["message"]),
        Column("NODE", lambda item: item["node"], wide=True),
        Column("BACKEND", lambda item: item["backend"], wide=True),
        Column("CALLS", lambda item: item["inFlight"], wide=True),
        Column("ENDPOINT", lambda item: item["endpoint"], wide=True),
        Column("CAPABILITIES", lambda item: ",".join(item["capabilities"]), wide=True),
    ),
    lambda item: f"{item['driver']}/{item['role']}/{item['instance']}",
)

NODES = Sheet(
    "nodes",
    (
        Column("NAME", lambda item: item["name"]),
        Column("CONNECTED", lambda item: item["connected"]),
        Column("SINCE", lambda item: figures.age(item["since"], datetime.datetime.now(datetime.UTC))),
        Column("VERSION", lambda item: item["version"]),
        Column("PLUGINS", lambda item: ", ".join(item["plugins"])),
        Column("MESSAGE", lambda item: item["message"]),
        Column("LABELS", lambda item: ",".join(f"{k}={v}" for k, v in item["labels"].items()), wide=True),
    ),
    lambda item: str(item["name"]),
)

CLUSTERS = Sheet(
    "clusters",
    (
        Column("NAME", lambda item: item["name"]),
        Column("ORCHESTRATOR", lambda item: item["orchestrator"]),
        Column("READY", lambda item: item["ready"]),
        Column("MESSAGE", lambda item: item["message"]),
    ),
    lambda item: str(item["name"]),
)


@click.group("volume")
def volume() -> None:
    """See volumes and clone them."""


@volume.command("list", cls=options.Command)
@options.placed
@click.option("-A", "--all-namespaces", is_flag=True, help="Every namespace, whatever the environment says.")
@options.printed
@options.connected
def list_volumes(client: Any, cluster: str, namespace: str, all_namespaces: bool, form: str) -> None:
    """List volumes that can be cut."""
    query = {"cluster": cluster, "namespace": "" if all_namespaces else namespace}
    output.show_list(VOLUMES, client.get("/v1/volumes", query), form)


@click.group("plugin")
def plugin() -> None:
    """See CSI plugins."""


@plugin.command("list", cls=options.Command)
@options.printed
@options.connected
def list_plugins(client: Any, form: str) -> None:
    """List every plugin instance and how it is."""
    output.show_list(PLUGINS, client.get("/v1/plugins"), form)


@click.group("cluster")
def cluster() -> None:
    """See the configured clusters."""


@cluster.command("list", cls=options.Command)
@options.printed
@options.connected
def list_clusters(client: Any, form: str) -> None:
    """List the configured clusters."""
    output.show_list(CLUSTERS, client.get("/v1/clusters"), form)


@click.command("list", cls=options.Command)
@options.printed
@options.connected
def list_nodes(client: Any, form: str) -> None:
    """List node agents that are or were attached."""
    output.show_list(NODES, client.get("/v1/nodes"), form)
