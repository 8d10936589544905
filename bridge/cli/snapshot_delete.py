"""`snapbridge snapshot delete`: asks first on a terminal, takes several, and says of each what became of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from bridge.cli import completing, exits, options, output, progress, refs
from bridge.cli.faults import LostError, ProblemError

Json = dict[str, Any]


@click.command("delete", cls=options.Command)
@click.argument("refs_", metavar="REF...", nargs=-1, required=True, shell_complete=completing.snapshots)
@options.placed
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--ignore-not-found", is_flag=True, help="What is not there counts as deleted.")
@click.option(
    "--abandon", is_flag=True, help="Let go although its create cannot be settled; it may stay on the backend."
)
@click.option("--no-wait", is_flag=True, help="Return when the deletion is on record.")
@options.waiting
@options.printed
@options.connected
def delete(
    client: Any, refs_: tuple[str, ...], wait_seconds: float | None, no_wait: bool, form: str, **given: Any
) -> None:
    """Delete snapshots. Waits until they are gone (10m), unless --no-wait."""
    from bridge.cli import follow

    run = _Run(client, form, given["abandon"])
    wanted = run.look(refs_, given["cluster"], given["namespace"], given["ignore_not_found"])
    _confirm(wanted, refs_, given["yes"])
    started = [
        (snapshot, operation) for snapshot in wanted.values() if (operation := run.start(snapshot)) is not None
    ]
    seconds = follow.DEFAULT_SECONDS if wait_seconds is None else wait_seconds
    for snapshot, operation in started:
        run.finish(snapshot, operation, None if no_wait else seconds)
    run.report()
    code = exits.of_many(run.codes)
    if code != exits.DONE:
        raise click.exceptions.Exit(code)


class _Run:
    """One invocation: what was done, and the code of each part."""

    def __init__(self, client: Any, form: str, abandon: bool) -> None:
        self._client = client
        self._form = form
        self._abandon = abandon
        self._operations: list[Json] = []
        self.codes: list[int] = []

    def look(self, texts: Sequence[str], cluster: str, namespace: str, ignore: bool) -> dict[str, Json]:
        """The snapshots that are meant, by what was typed; what is not there is told and counted."""
        found: dict[str, Json] = {}
        for text in dict.fromkeys(texts):
            try:
                snapshot = refs.find(self._client, text, cluster=cluster, namespace=namespace)
                if all(other["uid"] != snapshot["uid"] for other in found.values()):
                    found[text] = snapshot  # named twice, by name and by uid, it is deleted once
            except ProblemError as error:
                if error.status == 404 and ignore:
                    self.codes.append(exits.DONE)
                else:
                    self._failed(error.stop())
        return found

    def start(self, snapshot: Json) -> Json | None:
        """Ask for it; the operation, or None when it was refused."""
        try:
            query = {"abandon": "true"} if self._abandon else None
            operation: Json = self._client.delete(refs.path(snapshot["uid"]), query)
        except ProblemError as error:
            stop = error.stop()
            stop.message = f"{refs.name_of(snapshot)}: {stop.message}"
            self._failed(stop)
            return None
        except LostError as error:
            self._failed(exits.Stop(f"{refs.name_of(snapshot)}: {error.sentence}", hint=error.hint))
            return None
        return operation

    def finish(self, snapshot: Json, operation: Json, seconds: float | None) -> None:
        """Follow it to its end, unless `seconds` is None."""
        from bridge.cli import follow

        name = refs.name_of(snapshot)
        if seconds is None and operation["state"] != "failed":
            self._done(operation, f"snapshot {name} deletion requested", name)
            return
        shown = progress.of(f"snapshot {name}", quiet=self._form in ("json", "yaml"))
        try:
            operation = follow.follow(self._client, operation, seconds=seconds or 0.0, shown=shown)
        except follow.Unfinished as stop:
            if stop.code == exits.INTERRUPTED:
                raise
            self._failed(stop)
            return
        if operation["state"] == "failed":
            self._failed(follow.failed(operation))
            return
        retained = operation["result"].get("state") == "retained"
        what = "deleted; the backend keeps it, as its policy says" if retained else "deleted"
        self._done(operation, f"snapshot {name} {what}", name)

    def report(self) -> None:
        """The operations, for machines."""
        if self._form in ("json", "yaml"):
            document = {
                "apiVersion": "snapbridge/v1",
                "kind": "OperationList",
                "items": self._operations,
                "nextToken": "",
            }
            output.show_document(document, self._form)

    def _done(self, operation: Json, text: str, name: str) -> None:
        self.codes.append(exits.DONE)
        self._operations.append(operation)
        if self._form not in ("json", "yaml"):
            click.echo(name if self._form == "name" else text)

    def _failed(self, stop: exits.Stop) -> None:
        self.codes.append(stop.code)
        output.complain(stop)


def _confirm(wanted: dict[str, Json], texts: Sequence[str], yes: bool) -> None:
    """Ask on a terminal. Off one, only what was typed in full is deleted."""
    if yes or not wanted:
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        for snapshot in wanted.values():
            output.note(f"  {refs.name_of(snapshot)}  {snapshot['uid']}  ({snapshot['state']})")
        count = len(wanted)
        click.confirm(
            f"Delete {'this snapshot' if count == 1 else f'these {count} snapshots'}?", abort=True, err=True
        )
        return
    short = [text for text in texts if text in wanted and not refs.typed_in_full(text, wanted[text])]
    if short:
        hint = "give the full uid or the name, or --yes"
        raise exits.Stop(f"{short[0]} is only the start of a uid", hint=hint, code=exits.USAGE)
