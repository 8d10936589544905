"""Options that several commands share, and the command class that reads `--wait[=10m]` and `-json`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from bridge.cli import connection, figures, output
from bridge.cli.exits import Stop

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_WAIT = "10m"
NAMESPACE_VARIABLE = "SNAPBRIDGE_NAMESPACE"
DEFAULT_NAMESPACE = "default"
CLUSTER_VARIABLE = "SNAPBRIDGE_CLUSTER"
_DURATION_WORD = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+\Z")
_CONNECTION = (
    ("--addr", "addr", "URL", f"The service: http(s)://HOST:PORT or unix:/PATH [{connection.DEFAULT_ADDRESS}]."),
    ("--token-file", "token_file", "FILE", "File with the token to show."),
    ("--ca-file", "ca_file", "FILE", "Certificate authority of the service, PEM."),
    ("--cert-file", "cert_file", "FILE", "Client certificate, PEM."),
    ("--key-file", "key_file", "FILE", "Its key, PEM."),
)  # fmt: skip


class Command(click.Command):
    """A command whose `--wait` takes its value after `=`, or as a following duration, or not at all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Rewrite the words that click cannot read."""
        found: list[str] = []
        words = list(args)
        while words:
            word = words.pop(0)
            if word == "--":
                found += [word, *words]
                break
            if word == "-json":
                word = "--json"
            elif word == "--wait":
                value = words.pop(0) if words and _DURATION_WORD.match(words[0]) else DEFAULT_WAIT
                word = f"--wait={value}"
            found.append(word)
        return super().parse_args(ctx, found)


class Duration(click.ParamType[float]):
    """`10m`, `90s`, `1h30m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        try:
            return figures.parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Size(click.ParamType[int]):
    """`10Gi`, `500M`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        try:
            return figures.parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Pair(click.ParamType[tuple[str, str]]):
    """`key=value`."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Both parts."""
        if isinstance(value, tuple):
            return value
        key, equals, rest = value.partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not key=value", param, ctx)
        return key, rest


def connected(function: F) -> F:
    """Give the command a `client`, from the options and the environment."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from bridge.cli.client import Client

        for _, name, _, _ in _CONNECTION:
            kwargs.pop(name)
        context = click.get_current_context()
        client = Client(connection.connect(over_parents(context)))
        context.call_on_close(client.close)
        return function(*args, client=client, **kwargs)

    return _with_connection_options(wrapped)  # type: ignore[return-value]


def connection_options(function: F) -> F:
    """The same options on the whole command line; what a command itself is given counts first."""
    return _with_connection_options(function)


def _with_connection_options(function: F) -> F:
    for flag, name, metavar, text in reversed(_CONNECTION):
        function = click.option(flag, name, metavar=metavar, help=text)(function)
    return function


def over_parents(context: click.Context) -> dict[str, str | None]:
    """The connection options of this command, or of the commands above it."""
    found: dict[str, str | None] = {name: None for _, name, _, _ in _CONNECTION}
    above: click.Context | None = context
    while above is not None:
        for name in found:
            found[name] = found[name] or above.params.get(name)
        above = above.parent
    return found


def printed(function: F) -> F:
    """Give the command `form`: how to print."""

    @functools.wraps(function)
    def wrapped(*args: Any, as_json: bool, form: str, **kwargs: Any) -> Any:
        return function(*args, form="json" if as_json else form, **kwargs)

    with_json = click.option("--json", "as_json", is_flag=True, help="The same as -o json.")(wrapped)
    choice = click.Choice(output.FORMATS)
    return click.option("-o", "--output", "form", type=choice, default="table", help="Format.")(with_json)  # type: ignore[return-value]


def placed(function: F) -> F:
    """`--cluster` and `--namespace`; empty when not given."""
    text = "Namespace."
    function = click.option("-n", "--namespace", envvar=NAMESPACE_VARIABLE, default="", metavar="NAME", help=text)(
        function
    )
    text = "Cluster; needed where several are configured."
    return click.option("--cluster", envvar=CLUSTER_VARIABLE, default="", metavar="NAME", help=text)(function)


def waiting(function: F) -> F:
    """`--wait[=10m]`: seconds, or None."""
    text = "Wait until it is done, at most so long (10m); --wait=1h, --wait 1h."
    return click.option("--wait", "wait_seconds", type=Duration(), metavar="[DURATION]", help=text)(function)


def pairs(values: tuple[tuple[str, str], ...], flag: str) -> dict[str, str]:
    """The mapping of a repeated option; a key given twice is refused."""
    found = dict(values)
    if len(found) != len(values):
        raise Stop(f"{flag} names the same key twice", code=2)
    return found
