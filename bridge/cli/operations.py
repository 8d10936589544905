"""`snapbridge op list|watch`: what is under way and how it ended."""

from __future__ import annotations

import datetime
import os
import sys
from typing import Any

import click

from bridge.cli import completing, exits, figures, options, output, progress, refs
from bridge.cli.output import Column, Sheet

Json = dict[str, Any]


def _age(item: Json) -> str:
    return figures.age(item["createdAt"], datetime.datetime.now(datetime.UTC))


def _step(item: Json) -> str:
    return str(item["steps"][-1]["name"]) if item["steps"] else ""


def _failure(item: Json) -> str:
    return str(item["failure"]["message"]) if item["failure"] else ""


SHEET = Sheet(
    "operations",
    (
        Column("ID", lambda item: item["id"]),
        Column("VERB", lambda item: item["verb"]),
        Column("TARGET", lambda item: item["target"]),
        Column("STATE", lambda item: item["state"]),
        Column("STEP", _step),
        Column("AGE", _age),
        Column("ASKED-BY", lambda item: item["askedBy"], wide=True),
        Column("NAMESPACE", lambda item: item["namespace"], wide=True),
        Column("FAILURE", _failure),
    ),
    lambda item: str(item["id"]),
)


MACHINE = ("swaps", "journal", "context")
"""Parts of a result that the service keeps for itself; `--json` shows them."""


@click.group("op")
def group() -> None:
    """See operations and wait for them."""


@group.command("list", cls=options.Command)
@click.option("--running", is_flag=True, help="Only those that have not ended.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="At most so many [100].")
@options.printed
@options.connected
def list_operations(client: Any, running: bool, limit: int, form: str) -> None:
    """List operations, newest first."""
    query = {"running": "true" if running else "false", "per_page": limit}
    output.show_list(SHEET, client.get("/v1/operations", query), form)


@group.command("watch", cls=options.Command)
@click.argument("operation_id", metavar="ID", shell_complete=completing.operations)
@click.option("--timeout", type=options.Duration(), default=86400.0, metavar="DURATION", help="At most so long [1d].")
@options.printed
@options.connected
def watch(client: Any, operation_id: str, timeout: float, form: str) -> None:
    """Follow one operation to its end. The exit code is 0 when it is done, 1 when it has failed."""
    from bridge.cli import follow

    operation = client.get(refs.operation_path(operation_id))
    shown = progress.of(f"{operation['verb']} {operation['target']}", quiet=form in ("json", "yaml"))
    operation = follow.follow(client, operation, seconds=timeout, shown=shown)
    if form in ("json", "yaml"):
        output.show_document(operation, form)
    if operation["state"] == "failed":
        raise follow.failed(operation)
    if form not in ("json", "yaml"):
        click.echo(operation_id if form == "name" else f"{operation['verb']} {operation['target']} done")


@group.command("abandon", cls=options.Command)
@click.argument("operation_id", metavar="ID", shell_complete=completing.operations)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@options.printed
@options.connected
def abandon(client: Any, operation_id: str, yes: bool, form: str) -> None:
    """Have a restore or clone end that cannot be done.

    The volume that it made is deleted. Where nobody knows whether one was made, its name is put on record: look for
    it on the backend.
    """
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(f"Abandon {operation_id}?", abort=True, err=True)
    path = refs.operation_path(operation_id) + "/abandon"
    operation = client.post(path, {}, key=os.urandom(16).hex())
    if form in ("json", "yaml"):
        output.show_document(operation, form)
    elif form == "name":
        click.echo(operation_id)
    else:
        click.echo(f"{operation['verb']} {operation['target']} will end")
        output.note(f"What is left of it is told at its end: snapbridge op watch {operation_id}")


@group.command("describe", cls=options.Command)
@click.argument("operation_id", metavar="ID", shell_complete=completing.operations)
@options.printed
@options.connected
def describe(client: Any, operation_id: str, form: str) -> None:
    """Show everything about one operation."""
    operation = client.get(refs.operation_path(operation_id))
    if form in ("json", "yaml"):
        output.show_document(operation, form)
        return
    failure = operation["failure"]
    output.sections(
        [
            ("ID", operation["id"]),
            ("Verb", operation["verb"]),
            ("Target", operation["target"]),
            ("State", operation["state"]),
            ("Created at", operation["createdAt"]),
            ("Updated at", operation["updatedAt"]),
            ("Asked by", operation["askedBy"]),
            ("Steps", [_step_text(step) for step in operation["steps"]]),
            ("Result", {name: value for name, value in operation["result"].items() if name not in MACHINE}),
            ("Failure", f"{failure['message']} ({failure['code']}, {failure['kind']})" if failure else ""),
            ("Remedy", failure["hint"] if failure else ""),
        ]
    )


@group.command("acknowledge", cls=options.Command)
@click.argument("operation_id", metavar="ID", shell_complete=completing.operations)
@click.option("--delete", "delete_old", is_flag=True, help="Delete the old volume that the revert has kept.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@options.waiting
@options.printed
@options.connected
def acknowledge(
    client: Any, operation_id: str, delete_old: bool, yes: bool, wait_seconds: float | None, form: str
) -> None:
    """Say that the revert ID is good.

    Its old volume is yours from then on; with --delete it is deleted, if nothing uses it. Waits for that (10m).
    """
    from bridge.cli import follow

    revert = client.get(refs.operation_path(operation_id))
    if delete_old and not yes:
        kept = revert["result"].get("kept", "the old volume")
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise exits.Stop(f"this deletes the data of {kept}", hint="give --yes", code=exits.USAGE)
        click.confirm(f"Delete {kept} ({revert['result'].get('kept_handle')}) and its data?", abort=True, err=True)
    operation = client.post(
        refs.operation_path(revert["id"]) + "/acknowledge", {"delete": delete_old}, key=os.urandom(16).hex()
    )
    shown = progress.of(f"acknowledge {revert['target']}", quiet=form in ("json", "yaml"))
    seconds = follow.DEFAULT_SECONDS if wait_seconds is None else wait_seconds
    operation = follow.follow(client, operation, seconds=seconds, shown=shown)
    follow.check(operation)
    if form in ("json", "yaml"):
        output.show_document(operation, form)
    elif form == "name":
        click.echo(operation["id"])
    else:
        what = "the old volume is deleted" if delete_old else f"{operation['result'].get('kept')} is yours to keep"
        click.echo(f"revert {revert['id']} acknowledged; {what}")


def _step_text(step: Json) -> str:
    note = f"  {step['note']}" if step["note"] else ""
    return f"{step['at'] or figures.UNKNOWN}  {step['name']}{note}"
