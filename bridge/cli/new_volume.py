"""What `snapshot restore` and `volume clone` share: the options of the new volume, and how its end is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from bridge.cli import options, output, progress

F = TypeVar("F", bound=Callable[..., Any])
Json = dict[str, Any]
ACCESS_MODES = (
    "single-node-writer", "single-node-reader-only", "multi-node-reader-only", "multi-node-single-writer",
    "multi-node-multi-writer", "single-node-single-writer", "single-node-multi-writer",
)  # fmt: skip
ATTACHMENTS = {"file-system": "Filesystem", "block-device": "Block"}


class Place(click.ParamType[dict[str, str]]):
    """`zone=a,rack=7`: one place."""

    name = "key=value,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        """Its labels."""
        if isinstance(value, dict):
            return value
        pairs = [part.partition("=") for part in value.split(",")]
        if not all(key and equals for key, equals, _ in pairs):
            self.fail(f"{value!r} is not key=value,key=value", param, ctx)
        return {key: text for key, _, text in pairs}


def options_of(function: F) -> F:
    """Give the command the new volume's options."""
    found = (
        click.option("--as", "called", required=True, metavar="NAME", help="The new volume's name."),
        click.option("--to-namespace", default="", metavar="NAME", help="Of the new volume [the source's]."),
        click.option("--size", type=options.Size(), default=0, help="Of the new volume [the source's]."),
        click.option("--access-mode", "access_modes", type=click.Choice(ACCESS_MODES, case_sensitive=False),
                     multiple=True, help="How it may be used [as the source]; repeatable."),
        click.option("--attachment-mode", type=click.Choice(tuple(ATTACHMENTS)), help="[as the source]."),
        click.option("--parameter", "parameters", type=options.Pair(), multiple=True,
                     help="For the driver, laid over the source's; repeatable."),
        click.option("--topology", type=Place(), multiple=True, metavar="KEY=VALUE,…",
                     help="A place that must reach it [as the source]; repeatable."),
        click.option("--secret", default="", metavar="REF", help="env:NAME, file:PATH, k8s:… or nomadVar:…"),
        click.option("--idempotency-key", default="", help="The same key again makes nothing twice."),
    )  # fmt: skip
    for add in reversed(found):
        function = add(function)
    return function


def body(called: str, given: dict[str, Any]) -> Json:
    """The wish as the API takes it."""
    return {
        "name": called,
        "namespace": given["to_namespace"],
        "capacityBytes": given["size"],
        "parameters": options.pairs(given["parameters"], "--parameter"),
        "accessModes": [mode.upper().replace("-", "_") for mode in given["access_modes"]],
        "mode": ATTACHMENTS[given["attachment_mode"]] if given["attachment_mode"] else "",
        "topology": list(given["topology"]),
        "secret": given["secret"],
    }


def finish(client: Any, operation: Json, called: str, how: str, wait_seconds: float | None, form: str) -> None:
    """Follow it where that is asked for, and tell how it stands. `how` is "restored from X"."""
    from bridge.cli import follow

    if wait_seconds is not None:
        shown = progress.of(f"{operation['verb']} {called}", quiet=form in ("json", "yaml"))
        operation = follow.follow(client, operation, seconds=wait_seconds, shown=shown)
    follow.check(operation)
    if form in ("json", "yaml"):
        output.show_document(operation, form)
    elif form == "name":
        click.echo(called)
    elif operation["state"] == "done":
        click.echo(f"volume {called} {how}")
    else:
        click.echo(f"volume {called} requested {how.partition(' ')[2]}")
        output.note(f"It is not there yet. Follow it: snapbridge op watch {operation['id']}")
