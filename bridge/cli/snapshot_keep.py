"""`snapbridge snapshot pin`, `unpin` and `set-policy`: what keeps a snapshot. None of them deletes anything."""

from __future__ import annotations

import os
from typing import Any

import click

from bridge.cli import completing, options, output, refs

Json = dict[str, Any]


@click.command("pin", cls=options.Command)
@click.argument("ref", shell_complete=completing.snapshots)
@options.placed
@click.option("--reason", default="", help="Shown to who wants to delete it.")
@options.printed
@options.connected
def pin(client: Any, ref: str, cluster: str, namespace: str, reason: str, form: str) -> None:
    """Keep a snapshot: nobody can delete it until it is unpinned, whatever its policy says."""
    snapshot = refs.find(client, ref, cluster=cluster, namespace=namespace)
    changed = client.post(refs.path(snapshot["uid"]) + "/pin", {"why": reason}, key=os.urandom(16).hex())
    _show(changed, form, f"snapshot {refs.name_of(changed)} pinned")


@click.command("unpin", cls=options.Command)
@click.argument("ref", shell_complete=completing.snapshots)
@options.placed
@options.printed
@options.connected
def unpin(client: Any, ref: str, cluster: str, namespace: str, form: str) -> None:
    """Let a snapshot's pin go. Pins of operations stay until those are done."""
    snapshot = refs.find(client, ref, cluster=cluster, namespace=namespace)
    changed = client.delete(refs.path(snapshot["uid"]) + "/pin")
    there = any(not one["operation"] for one in snapshot["pins"])
    _show(changed, form, f"snapshot {refs.name_of(changed)} {'unpinned' if there else 'was not pinned'}")
    for one in changed["pins"]:
        output.note(f"It is still {pin_text(one)}")


@click.command("set-policy", cls=options.Command)
@click.argument("ref", shell_complete=completing.snapshots)
@click.argument("policy", type=click.Choice(["Delete", "Retain"], case_sensitive=False))
@options.placed
@options.printed
@options.connected
def set_policy(client: Any, ref: str, policy: str, cluster: str, namespace: str, form: str) -> None:
    """Change what deleting the snapshot REF means: Delete its data, or Retain it on the backend.

    It deletes nothing by itself. A retained snapshot comes back with Delete; a delete then takes its data too.
    """
    snapshot = refs.find(client, ref, cluster=cluster, namespace=namespace)
    body = {"deletionPolicy": policy}
    changed = client.post(refs.path(snapshot["uid"]) + "/policy", body, key=os.urandom(16).hex())
    name = refs.name_of(changed)
    _show(changed, form, f"snapshot {name} has the deletion policy {changed['deletionPolicy']}")
    if snapshot["state"] == "retained" and changed["state"] != "retained":
        output.note(f"It is under management again. To delete its data: snapbridge snapshot delete {name}")


def pin_text(one: Json) -> str:
    """A pin in words."""
    text = f"pinned by {one['pinnedBy'] or 'somebody'}"
    if one["operation"]:
        text += f" (operation {one['operation']})"
    return f"{text}: {one['why']}" if one["why"] else text


def _show(snapshot: Json, form: str, sentence: str) -> None:
    if form in ("json", "yaml"):
        output.show_document(snapshot, form)
    else:
        click.echo(refs.name_of(snapshot) if form == "name" else sentence)
