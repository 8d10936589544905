"""How an operation's steps are shown while somebody waits: one line per change, or one live line on a terminal."""

from __future__ import annotations

import sys
from typing import Any, Protocol

import click

from bridge.cli import figures

Json = dict[str, Any]


class Progress(Protocol):
    """Shows one operation."""

    def show(self, operation: Json) -> None:
        """It may have moved."""
        ...

    def end(self) -> None:
        """Nothing more will come."""
        ...


class Silent:
    """For machines: nothing is shown."""

    def show(self, operation: Json) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Lines:
    """One line per change: time, what, step."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._seen: set[tuple[str, str | None, str]] = set()

    def show(self, operation: Json) -> None:
        """Print the steps that are new."""
        for step in operation["steps"]:
            known = (step["name"], step["at"], step["note"])
            if known in self._seen:
                continue
            self._seen.add(known)
            note = f" ({figures.printable(step['note'])})" if step["note"] else ""
            when = f"{step['at']} " if step["at"] else ""
            click.echo(f"{when}{self._label}: {figures.printable(step['name'])}{note}", err=True)

    def end(self) -> None:
        """Nothing is open."""


class Live:
    """One line that is written again: the steps done with their seconds, then the one under way."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._text = ""
        plain = (sys.stderr.encoding or "").lower().replace("-", "") != "utf8"
        self._done, self._running, self._between = ("ok", "...", ", ") if plain else ("✓", "…", " · ")

    def show(self, operation: Json) -> None:
        """Write the line anew."""
        text = f"{self._label}  {self._between.join(self._steps(operation))}"
        if text != self._text:
            self._text = text
            width = _columns()
            click.echo(f"\r{text[: width - 1]}\x1b[K", err=True, nl=False, color=True)

    def end(self) -> None:
        """Leave the line as it is, and go on below."""
        if self._text:
            click.echo("", err=True)
            self._text = ""

    def _steps(self, operation: Json) -> list[str]:
        steps = operation["steps"]
        shown = []
        for at, step in enumerate(steps, start=1):
            following = steps[at] if at < len(steps) else None
            name = figures.printable(step["name"])
            if following is not None:
                shown.append(f"{name} {self._done}{_took(step, following)}")
            elif operation["state"] == "running":
                shown.append(f"{name} {self._running}")
            else:
                shown.append(name if operation["state"] == "done" else f"{name} failed")
        return shown or [self._running]


def of(label: str, *, quiet: bool) -> Progress:
    """The one that fits where standard error goes."""
    label = figures.printable(label)
    if quiet:
        return Silent()
    return Live(label) if sys.stderr.isatty() else Lines(label)


def _took(step: Json, following: Json) -> str:
    begun, ended = figures.instant(step["at"]), figures.instant(following["at"])
    if begun is None or ended is None:
        return ""
    return f" {max((ended - begun).total_seconds(), 0.0):.1f}s"


def _columns() -> int:
    import shutil

    return max(shutil.get_terminal_size((100, 24)).columns, 20)
