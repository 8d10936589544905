"""`snapbridge snapshot revert`: a snapshot's data in place of its volume's. Asks first, shows what is stopped."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from bridge.cli import completing, exits, options, output, progress, refs

Json = dict[str, Any]


@click.command("revert", cls=options.Command)
@click.argument("ref", shell_complete=completing.snapshots)
@options.placed
@click.option("--volume", default="", metavar="NAME", help="Only where the snapshot does not name its volume.")
@click.option(
    "--also", multiple=True, metavar="REF", help="A snapshot of another volume to go back with it; repeatable."
)
@click.option("--workload", default="", metavar="NAME", help="Who uses the volume, where it holds no claim now.")
@click.option("--dry-run", is_flag=True, help="Show the steps and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--idempotency-key", default="", help="The same key again reverts nothing twice.")
@options.waiting
@options.printed
@options.connected
def revert(
    client: Any, ref: str, dry_run: bool, yes: bool, wait_seconds: float | None, form: str, **given: Any
) -> None:
    """Put the data of the snapshot REF in place of its volume's.

    Who uses the volume is stopped meanwhile and started again. The old volume is kept under another name until
    `snapbridge op acknowledge`. If anything fails, all is put back as it was.
    """
    from bridge.cli import follow

    place = {"cluster": given["cluster"], "namespace": given["namespace"]}
    snapshot = refs.find(client, ref, **place)
    also = [refs.find(client, other, **place)["uid"] for other in given["also"]]
    body = {"volume": given["volume"], "also": also, "workload": given["workload"]}
    path = refs.path(snapshot["uid"]) + "/revert"
    if dry_run or not yes:
        plan = client.post(path, {**body, "dryRun": True}, key=new_key())["plan"]
        if dry_run:
            show_plan(plan, form, output_of=click.echo)
            return
        confirm(plan, snapshot["volume"] or given["volume"])
    operation = client.post(path, body, key=given["idempotency_key"] or new_key())["operation"]
    if wait_seconds is not None:
        shown = progress.of(f"revert {operation['target']}", quiet=form in ("json", "yaml"))
        operation = follow.follow(client, operation, seconds=wait_seconds, shown=shown)
    follow.check(operation)
    _show(operation, refs.name_of(snapshot), form)


def show_plan(plan: Json, form: str, *, output_of: Any) -> None:
    """The steps, numbered; for machines the plan itself."""
    if form in ("json", "yaml"):
        output.show_document(plan, form)
        return
    if plan["stops"]:
        output_of(f"Stopped for about {plan['downtimeSeconds']:g} s: {plan['stops']}")
    else:
        output_of("Nobody uses the volume now; nothing is stopped.")
    for number, step in enumerate(plan["steps"], start=1):
        output_of(f"  {number}. {step}")


def confirm(plan: Json, what: str) -> None:
    """Ask on a terminal; off one, --yes is wanted."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        hint = "look with --dry-run, then give --yes"
        raise exits.Stop("a revert stops who uses the volume", hint=hint, code=exits.USAGE)
    show_plan(plan, "table", output_of=output.note)
    click.confirm(f"Revert {what}?", abort=True, err=True)


def _show(operation: Json, name: str, form: str) -> None:
    if form in ("json", "yaml"):
        output.show_document(operation, form)
    elif form == "name":
        click.echo(operation["id"])
    elif operation["state"] == "done":
        result = operation["result"]
        click.echo(f"volume {result['volume']} reverted to {name}")
        left = operation["steps"][-1]["note"]
        if left:
            output.note(left)
        output.note(f"The old volume is kept as {result['kept']}. When all is well: {_acknowledge(operation)}")
    else:
        click.echo(f"revert of {operation['target']} requested")
        output.note(f"It is not done yet. Follow it: snapbridge op watch {operation['id']}")


def _acknowledge(operation: Json) -> str:
    return f"snapbridge op acknowledge {operation['id']} --delete"


def new_key() -> str:
    """A key for one use."""
    return os.urandom(16).hex()
