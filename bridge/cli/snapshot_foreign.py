"""Snapshots that plugins hold and nobody has on record: `snapshot list --foreign`, and `snapshot adopt`.

Nothing here deletes anything; a snapshot that was adopted is retained by default, as it was not made here.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator
from typing import Any

import click

from bridge.cli import completing, exits, figures, options, output, refs
from bridge.cli.faults import ProblemError
from bridge.cli.output import Column, Sheet

Json = dict[str, Any]
LONGEST_NAME = 200
UNKNOWN_OF_FOREIGN = {
    "states": "--state", "selector": "--selector", "of_job": "--job", "of_allocation": "--allocation",
    "of_node": "--node", "used_by": "--used-by",
}  # fmt: skip
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def _volumes(item: Json) -> str:
    return ", ".join(refs.name_of(one) for one in item["volumes"])


def _age(item: Json) -> str:
    return figures.age(item["cutAt"], datetime.datetime.now(datetime.UTC))


SHEET = Sheet(
    "foreign snapshots",
    (
        Column("DRIVER", lambda item: item["driver"]),
        Column("HANDLE", lambda item: item["handle"]),
        Column("VOLUME", _volumes),
        Column("READY", lambda item: item["ready"]),
        Column("SIZE", lambda item: figures.size(item["sizeBytes"])),
        Column("AGE", _age),
        Column("SOURCE", lambda item: item["sourceHandle"], wide=True),
        Column("GROUP", lambda item: item["group"], wide=True),
    ),
    lambda item: str(item["handle"]),
)


def show(client: Any, given: Json, *, limit: int, form: str) -> None:
    """Print what nobody has on record. A plugin that cannot list is told and is no error."""
    for name, flag in UNKNOWN_OF_FOREIGN.items():
        if given[name]:
            raise click.UsageError(f"{flag} does not go with --foreign: nobody has that on record")
    driver, cluster = given["driver"], given["cluster"]
    items: list[Json] = []
    for name in drivers(client, driver, cluster):
        for item in foreign(client, name):
            if limit and len(items) >= limit:
                break
            if not given["volume"] or any(one["name"] == given["volume"] for one in item["volumes"]):
                items.append(item)
    document = {"apiVersion": "snapbridge/v1", "kind": "ForeignSnapshotList", "items": items, "nextToken": ""}
    output.show_list(SHEET, document, form)


def drivers(client: Any, driver: str, cluster: str) -> list[str]:
    """The drivers to ask: the one that is named, those of a cluster's volumes, or all that have a controller."""
    if driver:
        return [driver]
    if cluster:
        found = {item["driver"] for item in client.get("/v1/volumes", {"cluster": cluster})["items"]}
        return sorted(found - {""})  # a volume whose plugin never ran has none that anybody knows
    rows = client.get("/v1/plugins")["items"]
    return sorted({row["driver"] for row in rows if row["role"] == "controller" and row["route"] != "delegation"})


def foreign(client: Any, driver: str) -> Iterator[Json]:
    """All pages of one driver; what it has to say beside goes to standard error."""
    told: set[str] = set()
    token = ""
    while True:
        page = client.get(f"/v1/plugins/{refs.quoted(driver)}/snapshots", {"per_page": 500, "next_token": token})
        if page["message"] and page["message"] not in told:
            told.add(page["message"])
            output.note(page["message"])
        yield from page["items"]
        token = page["nextToken"]
        if not token:
            return


@click.command("adopt", cls=options.Command)
@click.argument("handle", required=False)
@click.argument("name", required=False)
@options.placed
@click.option("--driver", default="", help="Whose snapshot it is.")
@click.option("--volume", default="", help="The volume that it was cut from.", shell_complete=completing.volumes)
@click.option(
    "--policy", type=click.Choice(["Delete", "Retain"]), default="Retain", help="When it is deleted [Retain]."
)
@click.option("--why", default="", help="A note for people.")
@click.option("--foreign", "from_list", is_flag=True, help="Take from what nobody has on record; with --all.")
@click.option("--all", "every", is_flag=True, help="With --foreign: every one of --driver.")
@click.option("--dry-run", is_flag=True, help="Show what would be adopted.")
@options.printed
@options.connected
def adopt(client: Any, handle: str | None, name: str | None, form: str, **given: Any) -> None:
    """Put a snapshot on record that exists on the backend: HANDLE is its CSI snapshot id.

    The plugin is asked first whether it has it. Without NAME it is called after its handle.
    """
    if given["from_list"]:
        if handle or not (given["every"] and given["driver"]):
            raise click.UsageError("--foreign wants --driver and --all, and no HANDLE")
        _adopt_all(client, form, given)
        return
    if not handle or not given["driver"] or given["every"]:
        raise click.UsageError("give the HANDLE and --driver, or --foreign --driver D --all")
    body = _body(given, handle, name or name_for(handle), given["namespace"], given["volume"])
    if given["dry_run"]:
        _show([body], form)
        return
    accepted = _send(client, body)
    if form in ("json", "yaml"):
        output.show_document(accepted, form)
    else:
        _told(accepted, form)


def name_for(handle: str) -> str:
    """A name that people can type, for a handle of any kind.

    >>> name_for("0001-0009-rook/ceph[1]")
    'adopted-0001-0009-rook-ceph-1'
    """
    return "adopted-" + (_UNFIT.sub("-", handle).strip("-.") or "snapshot")[:LONGEST_NAME]


def _adopt_all(client: Any, form: str, given: Json) -> None:
    bodies = []
    for item in foreign(client, given["driver"]):
        homes = [one for one in item["volumes"] if given["cluster"] in ("", one["cluster"])]
        home = homes[0] if len(homes) == 1 else {"cluster": given["cluster"], "namespace": "", "name": ""}
        place = {**given, "cluster": home["cluster"]}
        namespace = given["namespace"] or home["namespace"]
        bodies.append(_body(place, item["handle"], name_for(item["handle"]), namespace, home["name"]))
    if given["dry_run"]:
        _show(bodies, form)
        return
    accepted: list[Json] = []
    codes: list[int] = []
    for body in bodies:
        try:
            accepted.append(_send(client, body))
            codes.append(exits.DONE)
        except ProblemError as error:
            stop = error.stop()
            stop.message = f"{body['adoptHandle']}: {stop.message}"
            output.complain(stop)
            codes.append(stop.code)
            continue
        if form not in ("json", "yaml"):
            _told(accepted[-1], form)
    if form in ("json", "yaml"):
        items = [one["snapshot"] for one in accepted]
        output.show_document(
            {"apiVersion": "snapbridge/v1", "kind": "SnapshotList", "items": items, "nextToken": ""}, form
        )
    elif not bodies:
        output.note("Nothing to adopt.")
    code = exits.of_many(codes)
    if code != exits.DONE:
        raise click.exceptions.Exit(code)


def _body(given: Json, handle: str, name: str, namespace: str, volume: str) -> Json:
    return {
        "cluster": given["cluster"],
        "namespace": namespace or options.DEFAULT_NAMESPACE,
        "name": name,
        "volume": volume,
        "adoptHandle": handle,
        "driver": given["driver"],
        "deletionPolicy": given["policy"],
        "why": given["why"],
    }


def _send(client: Any, body: Json) -> Json:
    accepted: Json = client.post("/v1/snapshots", body, key=os.urandom(16).hex())
    return accepted


def _told(accepted: Json, form: str) -> None:
    name = refs.name_of(accepted["snapshot"])
    click.echo(name if form == "name" else f"snapshot {name} adopted")
    for step in accepted["operation"]["steps"]:
        if step["name"] == "unchecked":
            output.note(step["note"])


def _show(bodies: list[Json], form: str) -> None:
    sheet = Sheet(
        "snapshots to adopt",
        (
            Column("HANDLE", lambda item: item["adoptHandle"]),
            Column("NAME", lambda item: item["name"]),
            Column("CLUSTER", lambda item: item["cluster"]),
            Column("NAMESPACE", lambda item: item["namespace"]),
            Column("VOLUME", lambda item: item["volume"]),
            Column("POLICY", lambda item: item["deletionPolicy"]),
        ),
        lambda item: str(item["adoptHandle"]),
    )
    document = {"apiVersion": "snapbridge/v1", "kind": "AdoptionList", "items": bodies, "nextToken": ""}
    output.show_list(sheet, document, form)
