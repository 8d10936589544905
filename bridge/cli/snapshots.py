"""`snapbridge snapshot …`: create, restore, and the group that the other verbs join. Listing is in snapshot_list."""

from __future__ import annotations

import datetime
import os
from typing import Any

import click

from bridge.cli import completing, exits, new_volume, options, output, progress, refs
from bridge.cli.snapshot_delete import delete
from bridge.cli.snapshot_foreign import adopt
from bridge.cli.snapshot_keep import pin, set_policy, unpin
from bridge.cli.snapshot_list import describe, list_snapshots
from bridge.cli.snapshot_revert import revert

Json = dict[str, Any]


@click.group("snapshot")
def group() -> None:
    """Cut, list, restore and delete snapshots."""


@click.command("create", cls=options.Command)
@click.argument("volume", required=False, shell_complete=completing.volumes)
@click.argument("name", required=False)
@options.placed
@click.option("--adopt", metavar="HANDLE", default="", help="Take over this CSI snapshot; needs NAME and --driver.")
@click.option("--driver", default="", help="The CSI driver, with --adopt.")
@click.option("--retain", is_flag=True, help="Keep the backend's snapshot when this one is deleted.")
@click.option("--parameter", "parameters", type=options.Pair(), multiple=True, help="For the driver; repeatable.")
@click.option("-l", "--label", "labels", type=options.Pair(), multiple=True, help="Repeatable.")
@click.option(
    "--secret", "secret_refs", type=options.Pair(), multiple=True,
    help="create=REF, delete=REF or inspect=REF; REF is env:NAME, file:PATH, k8s:… or nomadVar:…",
)  # fmt: skip
@click.option("--why", default="", help="A note for people.")
@click.option("--pin", is_flag=True, help="Pin it: nobody can delete it until it is unpinned; --why is the reason.")
@click.option("--idempotency-key", default="", help="The same key again books nothing twice.")
@options.waiting
@click.option("--wait-for", type=click.Choice(["cut", "ready"]), help="What to wait for [ready]; implies --wait.")
@options.printed
@options.connected
def create(client: Any, wait_seconds: float | None, wait_for: str | None, form: str, **given: Any) -> None:
    """Cut a snapshot of VOLUME, called NAME.

    Returns when the request is on record; with --wait when the snapshot is ready, or cut. Without NAME it is
    called after the volume and the time.
    """
    from bridge.cli import follow

    key = given.pop("idempotency_key") or _new_key()
    accepted = client.post("/v1/snapshots", _body(given), key=key)
    snapshot, operation = accepted["snapshot"], accepted["operation"]
    name = refs.name_of(snapshot)
    follow.check(operation)
    seconds = _seconds(wait_seconds, wait_for)
    if seconds is not None:
        snapshot, operation = _wait(client, snapshot, operation, seconds, wait_for or "ready", form)
    if form in ("json", "yaml"):
        output.show_document({**accepted, "snapshot": snapshot, "operation": operation}, form)
    elif form == "name":
        click.echo(name)
    elif seconds is None:
        click.echo(f"snapshot {name} requested")
        output.note(f"It is not cut yet. Follow it: snapbridge op watch {operation['id']}")
    else:
        click.echo(f"snapshot {name} {'ready' if snapshot['ready'] else 'cut'}")


@click.command("restore", cls=options.Command)
@click.argument("ref", shell_complete=completing.snapshots)
@options.placed
@new_volume.options_of
@options.waiting
@options.printed
@options.connected
def restore(client: Any, ref: str, called: str, wait_seconds: float | None, form: str, **given: Any) -> None:
    """Make a new volume from the snapshot REF. The source volume is not touched."""
    snapshot = refs.find(client, ref, cluster=given["cluster"], namespace=given["namespace"])
    key = given["idempotency_key"] or _new_key()
    path = refs.path(snapshot["uid"]) + "/restore"
    operation = client.post(path, new_volume.body(called, given), key=key)
    new_volume.finish(client, operation, called, f"restored from {refs.name_of(snapshot)}", wait_seconds, form)


def _seconds(wait_seconds: float | None, wait_for: str | None) -> float | None:
    if wait_seconds is None and wait_for:
        from bridge.cli import follow

        return follow.DEFAULT_SECONDS
    return wait_seconds


def _wait(
    client: Any, snapshot: Json, operation: Json, seconds: float, wait_for: str, form: str
) -> tuple[Json, Json]:
    """Both as they are when the waiting has come to its good end."""
    from bridge.cli import follow

    enough = follow.is_cut(client, snapshot["uid"]) if wait_for == "cut" else None
    shown = progress.of(f"snapshot {refs.name_of(snapshot)}", quiet=form in ("json", "yaml"))
    operation = follow.follow(client, operation, seconds=seconds, shown=shown, enough=enough)
    follow.check(operation)
    return client.get(refs.path(snapshot["uid"])), operation


def _body(given: dict[str, Any]) -> Json:
    volume, name = given["volume"] or "", given["name"] or ""
    if given["adopt"]:
        if name:
            raise click.UsageError("with --adopt only NAME is given, no VOLUME")
        volume, name = "", volume
    if not volume and not given["adopt"]:
        raise click.UsageError("name the VOLUME to cut, or --adopt a handle")
    if given["adopt"] and not (name and given["driver"]):
        raise click.UsageError("--adopt needs NAME and --driver")
    wanted = options.pairs(given["secret_refs"], "--secret")
    unknown = sorted(set(wanted) - {"create", "delete", "inspect"})
    if unknown:
        raise exits.Stop(f"--secret {unknown[0]}=… is not known", hint="create, delete or inspect", code=exits.USAGE)
    return {
        "cluster": given["cluster"],
        "namespace": given["namespace"] or options.DEFAULT_NAMESPACE,
        "name": name or _name_by_time(volume),
        "volume": volume,
        "adoptHandle": given["adopt"],
        "driver": given["driver"],
        "deletionPolicy": "Retain" if given["retain"] else "Delete",
        "parameters": options.pairs(given["parameters"], "--parameter"),
        "secrets": wanted,
        "why": given["why"],
        "labels": options.pairs(given["labels"], "--label"),
        "pin": given["pin"],
    }


def _new_key() -> str:
    return os.urandom(16).hex()


def _name_by_time(volume: str) -> str:
    volume = volume.replace("/", "-").strip()
    return f"{volume}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"


for command in (create, list_snapshots, describe, delete, restore, revert, adopt, pin, unpin, set_policy):
    group.add_command(command)
