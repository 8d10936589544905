"""`snapbridge snapshot list` and `describe`. They only read."""

from __future__ import annotations

import datetime
from typing import Any

import click

from bridge.cli import completing, exits, figures, options, output, refs, snapshot_foreign
from bridge.cli.output import Column, Sheet
from bridge.cli.snapshot_keep import pin_text

Json = dict[str, Any]
STATES = ("pending", "cutting", "processing", "ready", "failing", "deleting", "retained")
SHORT_UID = 8
FULL_ID = 36
"""Characters of an allocation's id; a shorter one is the start of it."""


def _age(item: Json) -> str:
    return figures.age(item["createdAt"], datetime.datetime.now(datetime.UTC))


def _message(item: Json) -> str:
    failure = item["failure"]
    return str(failure["message"] if failure else item["message"])


def _remedy(item: Json) -> str:
    return str(item["failure"]["hint"]) if item["failure"] else ""


def _users(item: Json) -> str:
    return " ".join(f"{name}={','.join(values)}" for name, values in sorted(item["users"].items()))


SHEET = Sheet(
    "snapshots",
    (
        Column("ID", lambda item: item.get("shortUid", item["uid"])),
        Column("CLUSTER", lambda item: item["cluster"]),
        Column("NAMESPACE", lambda item: item["namespace"]),
        Column("NAME", lambda item: item["name"]),
        Column("VOLUME", lambda item: item["volume"]),
        Column("STATE", lambda item: item["state"]),
        Column("READY", lambda item: item["ready"]),
        Column("SIZE", lambda item: figures.size(item["sizeBytes"])),
        Column("AGE", _age),
        Column("DRIVER", lambda item: item["driver"], wide=True),
        Column("HANDLE", lambda item: item["handle"] or "", wide=True),
        Column("POLICY", lambda item: item["deletionPolicy"], wide=True),
        Column("ASKED-BY", lambda item: item["askedBy"], wide=True),
        Column("WHY", lambda item: item["why"]),
        Column("CUT-AT", lambda item: item["cutAt"] or figures.UNKNOWN, wide=True),
        Column("USED-BY", _users, wide=True),
        Column("PINNED", lambda item: "; ".join(pin_text(one) for one in item["pins"]), wide=True),
        Column("MESSAGE", _message, wide=True),
        Column("REMEDY", _remedy, wide=True),
    ),
    refs.name_of,
)


@click.command("list", cls=options.Command)
@click.argument("refs_", metavar="[REF]...", nargs=-1, shell_complete=completing.snapshots)
@options.placed
@click.option("-A", "--all-namespaces", is_flag=True, help="Every namespace, whatever the environment says.")
@click.option("--volume", default="", help="Only snapshots of this volume.")
@click.option("--driver", default="", help="Only of this driver.")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Repeatable.")
@click.option("--job", "of_job", default="", metavar="NAME", help="Only of volumes that this job had then.")
@click.option(
    "--allocation",
    "of_allocation",
    default="",
    metavar="ID",
    help="… that this allocation had; the start of it will do.",
)
@click.option("--node", "of_node", default="", metavar="NAME", help="… that were in use on this node.")
@click.option("--used-by", type=options.Pair(), multiple=True, help="name=value of who had the volume; repeatable.")
@click.option("-l", "--selector", type=options.Pair(), multiple=True, help="Label key=value; repeatable.")
@click.option("--foreign", is_flag=True, help="What plugins hold and nobody has on record; with --driver, --cluster.")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="At most so many [all].")
@options.printed
@options.connected
def list_snapshots(client: Any, refs_: tuple[str, ...], form: str, limit: int, **given: Any) -> None:
    """List snapshots, newest first; or those that are named."""
    namespace = "" if given["all_namespaces"] else given["namespace"]
    if given["foreign"]:
        if refs_:
            raise click.UsageError("--foreign lists what has no name here")
        snapshot_foreign.show(client, given, limit=limit, form=form)
        return
    if refs_:
        items = [refs.find(client, ref, cluster=given["cluster"], namespace=namespace) for ref in refs_]
    else:
        query = {
            "cluster": given["cluster"],
            "namespace": namespace,
            "volume": given["volume"],
            "driver": given["driver"],
            "state": given["states"],
            "selector": ",".join(f"{key}={value}" for key, value in given["selector"]),
            "used_by": _used_by(given),
        }
        items = list(client.items("/v1/snapshots", query, limit=limit))
    document = {"apiVersion": "snapbridge/v1", "kind": "SnapshotList", "items": items, "nextToken": ""}
    if form == "table":
        items[:] = _with_short_uids(items)
    output.show_list(SHEET, document, form)


def _used_by(given: Json) -> str:
    """The filter on who had the volume. The start of an allocation's id is enough, as everywhere in Nomad."""
    start = given["of_allocation"]
    wanted = {
        "job": given["of_job"],
        "allocation": f"{start}*" if 0 < len(start) < FULL_ID else start,
        "node": given["of_node"],
    }
    pairs = [*((name, value) for name, value in wanted.items() if value), *given["used_by"]]
    for name, value in pairs:
        if "," in value or "," in name:
            raise exits.Stop(f"{name}={value} has a comma, which no filter can hold", code=exits.USAGE)
    return ",".join(f"{name}={value}" for name, value in pairs)


def _with_short_uids(items: list[Json]) -> list[Json]:
    """Rows with the shortest start of the uid, eight characters or more, that tells them apart."""
    uids = {item["uid"] for item in items}
    length = SHORT_UID
    while len({uid[:length] for uid in uids}) < len(uids):
        length += 1
    return [{**item, "shortUid": item["uid"][:length]} for item in items]


@click.command("describe", cls=options.Command)
@click.argument("ref", shell_complete=completing.snapshots)
@options.placed
@options.printed
@options.connected
def describe(client: Any, ref: str, cluster: str, namespace: str, form: str) -> None:
    """Show everything about one snapshot: REF is a uid, the start of one, or [[CLUSTER/]NAMESPACE/]NAME."""
    snapshot = refs.find(client, ref, cluster=cluster, namespace=namespace)
    if form in ("json", "yaml"):
        output.show_document(snapshot, form)
        return
    if form == "name":
        click.echo(refs.name_of(snapshot))
        return
    output.sections(_rows(snapshot))
    _show_operations(client, snapshot)


def _rows(snapshot: Json) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("Name", snapshot["name"]),
        ("Cluster", snapshot["cluster"]),
        ("Namespace", snapshot["namespace"]),
        ("UID", snapshot["uid"]),
        ("Volume", snapshot["volume"]),
        ("Driver", snapshot["driver"]),
        ("State", snapshot["state"]),
        ("Ready", snapshot["ready"]),
        ("Reason", snapshot["reason"]),
        ("Message", snapshot["message"]),
        ("Size", figures.size(snapshot["sizeBytes"])),
        ("Cut at", snapshot["cutAt"]),
        ("Route", snapshot.get("route")),
        ("Created at", snapshot["createdAt"]),
        ("Handle", snapshot["handle"]),
        ("CSI name", snapshot["snapshotName"]),
        ("Deletion policy", snapshot["deletionPolicy"]),
        ("Asked by", snapshot["askedBy"]),
        ("Why", snapshot["why"]),
        ("Labels", snapshot["labels"]),
        ("Parameters", snapshot["parameters"]),
        ("Used by", {name: ", ".join(values) for name, values in snapshot["users"].items()}),
        ("Pinned", [pin_text(one) for one in snapshot["pins"]]),
    ]
    failure = snapshot["failure"]
    if failure:
        rows += [
            ("Failure", f"{failure['message']} ({failure['code']}, {failure['kind']})"),
            ("Remedy", failure["hint"]),
        ]
    return rows


def _show_operations(client: Any, snapshot: Json) -> None:
    """The latest operations on it; a snapshot is the last part of their target."""
    found = client.get("/v1/operations", {"per_page": 200})["items"]
    mine = [item for item in found if item["target"].rpartition("/")[2] == snapshot["uid"]]
    if mine:
        from bridge.cli.operations import SHEET as OPERATIONS

        click.echo("\nOperations:")
        output.table(OPERATIONS.columns, mine, wide=False)
