"""`snapbridge volume clone`: a new volume from one that exists. Listing is in inventory."""

from __future__ import annotations

import os
from typing import Any

import click

from bridge.cli import completing, inventory, new_volume, options

group = inventory.volume


@group.command("clone", cls=options.Command)
@click.argument("source", shell_complete=completing.volumes)
@options.placed
@new_volume.options_of
@options.waiting
@options.printed
@options.connected
def clone(client: Any, source: str, called: str, wait_seconds: float | None, form: str, **given: Any) -> None:
    """Make a new volume from the volume SOURCE, as it is now. Its driver must be able to clone.

    A volume that is written to is copied in the middle of its writes: quiesce it, or cut a snapshot with hooks.
    """
    body = {
        **new_volume.body(called, given),
        "cluster": given["cluster"],
        "sourceNamespace": given["namespace"] or options.DEFAULT_NAMESPACE,
        "volume": source,
    }
    key = given["idempotency_key"] or os.urandom(16).hex()
    operation = client.post("/v1/volumes/clone", body, key=key)
    new_volume.finish(client, operation, called, f"cloned from {source}", wait_seconds, form)
