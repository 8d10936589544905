"""What is printed: tables, JSON, YAML, names. Data goes to standard output, everything else to standard error."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import click

from bridge.cli import figures
from bridge.ports.commands import StopError

FORMATS = ("table", "wide", "json", "yaml", "name")
Json = dict[str, Any]

_COLOURS = {
    "ready": "green", "done": "green", "failing": "red", "failed": "red", "false": "red",
    "cutting": "yellow", "processing": "yellow", "pending": "yellow", "running": "yellow", "deleting": "yellow",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column: its title and how a row's cell is made. `wide` ones are shown on request only."""

    title: str
    cell: Callable[[Json], object]
    wide: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Sheet:
    """How items of one kind are listed: `noun` in the plural, `name` makes what other commands take."""

    noun: str
    columns: Sequence[Column]
    name: Callable[[Json], str]


def has_colour(stream: TextIO) -> bool:
    """Whether to colour: a terminal, and nobody said no."""
    refused = any(os.environ.get(name) for name in ("NO_COLOR", "NOMAD_CLI_NO_COLOR", "SNAPBRIDGE_NO_COLOR"))
    return stream.isatty() and not refused and os.environ.get("TERM") != "dumb"


def show_list(sheet: Sheet, document: Json, form: str) -> None:
    """Print a list document."""
    items = document["items"]
    if form in ("json", "yaml"):
        show_document(document, form)
    elif form == "name":
        for item in items:
            click.echo(figures.printable(sheet.name(item)))
    elif items:
        table(sheet.columns, items, wide=form == "wide")
    else:
        note(f"No {sheet.noun} found.")


def show_document(document: Mapping[str, Any], form: str) -> None:
    """Print one document as JSON or YAML."""
    if form == "yaml":
        import yaml

        text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
        click.echo(text.rstrip("\n"))
    else:
        import json

        click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def table(columns: Sequence[Column], items: Sequence[Json], *, wide: bool) -> None:
    """Print rows under titles, two spaces between, as wide as needed."""
    shown = [column for column in columns if wide or not column.wide]
    rows = [[figures.printable(column.cell(item)) or "-" for column in shown] for item in items]
    widths = [max(len(title), *(len(row[at]) for row in rows)) for at, title in enumerate(c.title for c in shown)]
    colour = has_colour(sys.stdout)
    _line([column.title for column in shown], widths, False)
    for row in rows:
        _line(row, widths, colour)


def _line(cells: Sequence[str], widths: Sequence[int], colour: bool) -> None:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    padded[-1] = cells[-1]
    if colour:
        padded = [
            click.style(text, fg=_COLOURS[cell]) if cell in _COLOURS else text
            for cell, text in zip(cells, padded, strict=True)
        ]
    click.echo("  ".join(padded).rstrip(), color=colour)


def sections(rows: Sequence[tuple[str, object]]) -> None:
    """Print `Label:  value` lines; a mapping or a list as its value becomes lines of its own."""
    width = max(len(label) for label, _ in rows) + 3
    for label, value in rows:
        lines = _lines(value)
        for at, text in enumerate(lines or ["<none>"]):
            head = f"{label}:" if at == 0 else ""
            click.echo(f"{head.ljust(width)}{text}".rstrip())


def _lines(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [figures.printable(f"{key}={item}") for key, item in sorted(value.items())]
    if isinstance(value, list | tuple):
        return [figures.printable(item) for item in value]
    if value is None:
        return [figures.UNKNOWN]
    text = figures.printable(value)
    return [text] if text else []


def note(text: str) -> None:
    """Say something beside the data."""
    click.echo(text, err=True)


def complain(stop: StopError) -> None:
    """Say why the command ends."""
    colour = has_colour(sys.stderr)
    head = click.style("Error:", fg="red", bold=True) if colour else "Error:"
    first, *rest = stop.message.split("\n")
    click.echo(f"{head} {figures.printable(first)}", err=True, color=colour)
    for line in rest:
        click.echo(f"  {figures.printable(line.strip())}", err=True)
    if stop.hint:
        click.echo(f"  {figures.printable(stop.hint)}", err=True)
