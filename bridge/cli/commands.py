"""Commands that adapters add: `snapbridge ORCHESTRATOR NAME …`, and short names for what is typed inside workloads.

This module turns the descriptions of `bridge.ports.commands` into click's. Names and summaries stand here too, so
that a help text needs no adapter; a test compares them with the catalogue.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from bridge.cli import connection, options, output
from bridge.ports import commands as port

SUMMARIES: Mapping[str, Mapping[str, str]] = {
    "nomad": {
        "run": "Snapshot a job's volumes, then register its new version.",
        "undo": "Take a job back to its previous version, with the data of that time.",
        "hook": "Snapshots of a job's volumes, asked for by the job's own tasks.",
    },
}
"""Orchestrator -> the names of its commands, with one line each."""
SHORT: Mapping[str, tuple[str, str]] = {"hook": ("nomad", "hook")}
"""Second names at the root: for lines in job files, which have to be short."""

_TYPES: Mapping[port.Kind, Any] = {
    port.Kind.TEXT: str,
    port.Kind.FLAG: bool,
    port.Kind.NUMBER: int,
    port.Kind.DURATION: options.Duration(),
    port.Kind.SIZE: options.Size(),
    port.Kind.PAIR: options.Pair(),
}


def attach(
    root: click.Group,
    tables: Mapping[str, Mapping[str, str]] = SUMMARIES,
    short: Mapping[str, tuple[str, str]] = SHORT,
) -> None:
    """Put every adapter's commands below the root; an orchestrator's group of roles takes them in."""
    for kind, summaries in tables.items():
        if not summaries:
            continue
        group = root.commands.get(kind)
        if not isinstance(group, click.Group):
            group = click.Group(kind, help=f"{kind.title()}'s own commands.")
            root.add_command(group)
        for name, summary in summaries.items():
            group.add_command(Late(kind, name, summary, shown=name))
    for shown, (kind, name) in short.items():
        root.add_command(Late(kind, name, tables[kind][name], shown=shown))


class Late(click.Command):
    """A command whose adapter is imported when it is called, or when its own help is wanted."""

    def __init__(self, kind: str, name: str, summary: str, *, shown: str) -> None:
        super().__init__(shown, help=summary, short_help=summary)
        self._from = (kind, name)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        """The context of the described command: from here on that one is run."""
        from adapters.catalog import Catalog

        kind, name = self._from
        return build(Catalog().commands(kind).command(name)).make_context(info_name, args, parent, **extra)


def build(described: port.Command) -> click.Command:
    """Click's form of a description."""
    if described.commands:
        group = click.Group(described.name, help=described.help)
        for one in described.commands:
            group.add_command(build(one))
        return group

    def callback(**values: Any) -> int:
        return _run(described, values)

    made = options.Command(described.name, help=described.help, callback=callback)
    made.params = [*map(_argument, described.arguments), *map(_option, described.options)]
    if described.connected:
        own = len(made.params)
        options.connection_options(made)
        made.params[own:] = reversed(made.params[own:])  # a decorator adds the last one first
    return made


def _argument(described: port.Argument) -> click.Argument:
    count = -1 if described.many else 1
    return click.Argument([described.name], required=described.required, nargs=count)


def _option(described: port.Option) -> click.Option:
    flag = f"--{described.name.replace('_', '-')}"
    is_flag = described.kind is port.Kind.FLAG
    return click.Option(
        [*([f"-{described.short}"] if described.short else []), flag, described.name],
        help=described.help,
        type=click.Choice(described.choices) if described.choices else _TYPES[described.kind],
        is_flag=is_flag,
        default=() if described.repeated else False if is_flag else described.default,
        multiple=described.repeated,
        envvar=described.environment or None,
        metavar=described.metavar or None,
        required=described.required,
    )


def _run(described: port.Command, values: dict[str, Any]) -> int:
    context = click.get_current_context()
    given = options.over_parents(context)
    for name in given:
        values.pop(name, None)

    def connect(**defaults: str) -> port.Service:
        from bridge.cli.client import Client

        known = {name: os.environ.get(variable) for name, variable in connection.VARIABLES.items()}
        filled = {name: value or known[name] or defaults.get(name) for name, value in given.items()}
        if not given["token_file"] and os.environ.get(connection.TOKEN_VARIABLE) and not known["token_file"]:
            filled["token_file"] = None  # a token in the environment was given, so no default takes its place
        client = Client(connection.connect(filled))
        context.call_on_close(client.close)
        return client

    if described.run is None:
        raise AssertionError(f"{described.name} has neither commands nor an effect")
    return int(described.run(port.Call(values, connect, _Terminal(), os.environ)))


class _Terminal:
    """The `Terminal` port over this process's streams."""

    def say(self, text: str) -> None:
        click.echo(text)

    def note(self, text: str) -> None:
        output.note(text)

    def show(self, document: port.Json, form: str) -> None:
        output.show_document(document, form)

    def follow(
        self, service: port.Service, operation: port.Json, *, label: str, seconds: float, enough: Any = None
    ) -> port.Json:
        from bridge.cli import follow, progress

        shown = progress.of(label, quiet=False)
        ended = follow.follow(service, operation, seconds=seconds, shown=shown, enough=enough)
        follow.check(ended)
        return ended
