"""`snapbridge group …`: several volumes cut together. Its members are snapshots, with the label group=NAME."""

from __future__ import annotations

import datetime
from typing import Any

import click

from bridge.cli import exits, figures, options, output, progress, refs
from bridge.cli.faults import ProblemError
from bridge.cli.output import Column, Sheet

Json = dict[str, Any]


def _skew(item: Json) -> str:
    seconds = item["skewSeconds"]
    if seconds is None:
        return ""
    return f"{'' if item['skewExact'] else '<= '}{seconds:.3f} s"


SHEET = Sheet(
    "groups",
    (
        Column("ID", lambda item: item["uid"][:8]),
        Column("CLUSTER", lambda item: item["cluster"]),
        Column("NAMESPACE", lambda item: item["namespace"]),
        Column("NAME", lambda item: item["name"]),
        Column("VOLUMES", lambda item: str(len(item["members"]))),
        Column("STATE", lambda item: "failed" if item["failed"] else item["state"]),
        Column("READY", lambda item: item["ready"]),
        Column("MEANS", lambda item: item["means"] or ""),
        Column("SKEW", _skew),
        Column("AGE", lambda item: figures.age(item["createdAt"], datetime.datetime.now(datetime.UTC))),
        Column("ROUTE", lambda item: item["route"] or "", wide=True),
        Column("POLICY", lambda item: item["deletionPolicy"], wide=True),
        Column("MESSAGE", lambda item: (item["failure"] or {}).get("message", "") or item["message"], wide=True),
    ),
    refs.name_of,
)


@click.group("group")
def group() -> None:
    """Cut several volumes together, list and delete such groups."""


@click.command("create", cls=options.Command)
@click.argument("name")
@click.option("--volume", "volumes", multiple=True, metavar="VOLUME", help="Repeatable.")
@click.option("--job", "of_job", default="", metavar="NAME", help="All volumes that this job uses now.")
@click.option("--used-by", type=options.Pair(), multiple=True, help="name=value of who uses the volumes; repeatable.")
@options.placed
@click.option("--max-skew", default="", metavar="TIME", help="Fail it when the cuts are further apart, like 500ms.")
@click.option("--retain", is_flag=True, help="Keep the backend's snapshots when the group is deleted.")
@click.option("--parameter", "parameters", type=options.Pair(), multiple=True, help="For the driver; repeatable.")
@click.option("-l", "--label", "labels", type=options.Pair(), multiple=True, help="Repeatable.")
@click.option("--why", default="", help="A note for people.")
@click.option("--idempotency-key", default="", help="The same key again books nothing twice.")
@options.waiting
@options.printed
@options.connected
def create(client: Any, name: str, wait_seconds: float | None, form: str, **given: Any) -> None:
    """Cut the volumes together, as the group NAME: one call of the driver where it can, else all calls at once.

    Returns when the group is on record; with --wait when all its snapshots are ready.
    """
    import os

    from bridge.cli import follow

    used_by = dict(given["used_by"]) | ({"job": given["of_job"]} if given["of_job"] else {})
    if bool(given["volumes"]) == bool(used_by):
        raise click.UsageError("name the volumes with --volume, or who uses them with --job or --used-by")
    body = {
        "name": name,
        "cluster": given["cluster"],
        "namespace": given["namespace"] or options.DEFAULT_NAMESPACE,
        "volumes": list(given["volumes"]),
        "usedBy": ",".join(f"{key}={value}" for key, value in used_by.items()),
        "deletionPolicy": "Retain" if given["retain"] else "Delete",
        "maxSkew": given["max_skew"],
        "parameters": options.pairs(given["parameters"], "--parameter"),
        "labels": options.pairs(given["labels"], "--label"),
        "why": given["why"],
    }
    accepted = client.post("/v1/groups", body, key=given["idempotency_key"] or os.urandom(16).hex())
    found, operation = accepted["group"], accepted["operation"]
    full = refs.name_of(found)
    if wait_seconds is not None:
        shown = progress.of(f"group {full}", quiet=form in ("json", "yaml"))
        operation = follow.follow(client, operation, seconds=wait_seconds, shown=shown)
        found = client.get(_path(found["uid"]))
    follow.check(operation)
    if form in ("json", "yaml"):
        output.show_document({**accepted, "group": found, "operation": operation}, form)
    elif form == "name":
        click.echo(full)
    elif operation["state"] == "done":
        click.echo(f"group {full} ready: {len(found['members'])} volumes, cut {_apart(found)}")
    else:
        click.echo(f"group {full} requested")
        output.note(f"It is not cut yet. Follow it: snapbridge op watch {operation['id']}")


def _apart(found: Json) -> str:
    if found["means"] == "csi":
        return "at one moment by the driver"
    return f"{'' if found['skewExact'] else 'at most '}{found['skewSeconds']:.3f} s apart"


@click.command("list", cls=options.Command)
@options.placed
@options.printed
@options.connected
def list_groups(client: Any, cluster: str, namespace: str, form: str) -> None:
    """List groups, newest first."""
    items = client.get("/v1/groups", {"cluster": cluster, "namespace": namespace})["items"]
    document = {"apiVersion": "snapbridge/v1", "kind": "GroupList", "items": items, "nextToken": ""}
    output.show_list(SHEET, document, form)


@click.command("describe", cls=options.Command)
@click.argument("ref")
@options.placed
@options.printed
@options.connected
def describe(client: Any, ref: str, cluster: str, namespace: str, form: str) -> None:
    """Show one group with its snapshots: REF is a uid, the start of one, or [[CLUSTER/]NAMESPACE/]NAME."""
    found = _find(client, ref, cluster, namespace)
    if form in ("json", "yaml"):
        output.show_document(found, form)
        return
    if form == "name":
        click.echo(refs.name_of(found))
        return
    output.sections(_rows(found))
    from bridge.cli.snapshot_list import SHEET as SNAPSHOTS

    click.echo("\nSnapshots:")
    output.table(SNAPSHOTS.columns, [{**one, "shortUid": one["uid"][:8]} for one in found["members"]], wide=False)


def _rows(found: Json) -> list[tuple[str, object]]:
    failure = found["failure"]
    rows: list[tuple[str, object]] = [
        ("Name", found["name"]),
        ("Cluster", found["cluster"]),
        ("Namespace", found["namespace"]),
        ("UID", found["uid"]),
        ("State", "failed" if found["failed"] else found["state"]),
        ("Ready", found["ready"]),
        ("Reason", found["reason"]),
        ("Message", found["message"]),
        ("Means", found["means"]),
        ("Route", found["route"]),
        ("Skew", _skew(found)),
        ("Most skew", f"{found['maxSkewSeconds']:g} s" if found["maxSkewSeconds"] is not None else None),
        ("Cut at", found["cutAt"]),
        ("Created at", found["createdAt"]),
        ("Handle", found["handle"]),
        ("Deletion policy", found["deletionPolicy"]),
        ("Asked by", found["askedBy"]),
        ("Why", found["why"]),
        ("Labels", found["labels"]),
        ("Parameters", found["parameters"]),
    ]
    if failure:
        rows += [
            ("Failure", f"{failure['message']} ({failure['code']}, {failure['kind']})"),
            ("Remedy", failure["hint"]),
        ]
    return rows


@click.command("delete", cls=options.Command)
@click.argument("ref")
@options.placed
@click.option("--abandon", is_flag=True, help="Let go although a create cannot be settled; it may stay there.")
@click.option("--no-wait", is_flag=True, help="Return when the deletion is on record.")
@options.waiting
@options.printed
@options.connected
def delete(client: Any, ref: str, wait_seconds: float | None, no_wait: bool, form: str, **given: Any) -> None:
    """Delete a group with all its snapshots. Waits until they are gone (10m), unless --no-wait."""
    from bridge.cli import follow

    found = _find(client, ref, given["cluster"], given["namespace"])
    if not refs.typed_in_full(ref, found):
        raise exits.Stop(f"{ref} is only the start of a uid", hint="give the full uid or the name", code=exits.USAGE)
    full = refs.name_of(found)
    query = {"abandon": "true"} if given["abandon"] else None
    operation = client.delete(_path(found["uid"]), query)
    if not no_wait:
        shown = progress.of(f"group {full}", quiet=form in ("json", "yaml"))
        seconds = follow.DEFAULT_SECONDS if wait_seconds is None else wait_seconds
        operation = follow.follow(client, operation, seconds=seconds, shown=shown)
    follow.check(operation)
    if form in ("json", "yaml"):
        output.show_document(operation, form)
    elif form == "name":
        click.echo(full)
    elif no_wait:
        click.echo(f"group {full} deletion requested")
    else:
        kept = operation["result"].get("state") == "retained"
        click.echo(f"group {full} {'deleted; the backend keeps it, as its policy says' if kept else 'deleted'}")


def _path(ref: str) -> str:
    return f"/v1/groups/{refs.quoted(ref)}"


def _find(client: Any, ref: str, cluster: str, namespace: str) -> Json:
    """The group that is meant: by its name where that is there, else by its uid or the start of one."""
    name = refs.full_name(client, ref, cluster, namespace)
    try:
        found: Json = client.get(_path(name))
    except ProblemError as error:
        if error.status not in (404, 422) or "/" in ref or cluster or namespace:
            raise
        found = client.get(_path(ref))
    return found


for command in (create, list_groups, describe, delete):
    group.add_command(command)
