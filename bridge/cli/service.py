"""`serve`, `node`, `check-config`, `localdisk`: commands that run here. Their code is imported when it is called."""

from __future__ import annotations

from typing import Any

import click

from bridge.cli import exits
from bridge.cli.inventory import list_nodes

_CONFIG = click.option(
    "-c", "--config", "paths", multiple=True, metavar="FILE|DIR",
    help="Config file, or a directory of them; repeatable [$SNAPBRIDGE_CONFIG, /etc/snapbridge].",
)  # fmt: skip


def _finish(code: int) -> None:
    if code != exits.DONE:
        raise click.exceptions.Exit(code)


def _catalogue() -> Any:
    from adapters.catalog import Catalog

    return Catalog()


@click.command("serve")
@_CONFIG
def serve(paths: tuple[str, ...]) -> None:
    """Run the service until SIGTERM."""
    from bridge.app import main

    _finish(main.serve(paths, _catalogue()))


@click.group("node", invoke_without_command=True)
@_CONFIG
@click.pass_context
def node(context: click.Context, paths: tuple[str, ...]) -> None:
    """Run this host's agent (-c FILE), or list agents.

    The agent finds CSI sockets on its host, registers drivers and carries calls for the service.
    """
    if context.invoked_subcommand is None:
        if not paths:
            raise click.UsageError("name a config with -c, or use `node list` or `node run`", context)
        _run_node(paths)
    elif paths:
        raise click.UsageError(f"-c goes after {context.invoked_subcommand}", context)


@node.command("run")
@_CONFIG
def run_node(paths: tuple[str, ...]) -> None:
    """Run this host's node agent until SIGTERM."""
    _run_node(paths)


node.add_command(list_nodes)


def _run_node(paths: tuple[str, ...]) -> None:
    from bridge.app import main

    _finish(main.node(paths, _catalogue()))


@click.command("check-config")
@_CONFIG
@click.argument("more", metavar="[FILE|DIR]...", nargs=-1)
def check_config(paths: tuple[str, ...], more: tuple[str, ...]) -> None:
    """Say everything that is wrong with the config.

    The exit code is 2 when something is.
    """
    from bridge.app import main

    problems = main.check_config((*paths, *more), _catalogue())
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise click.exceptions.Exit(exits.USAGE)
    click.echo("The config is good.")


@click.command(
    "localdisk",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", metavar="[OPTION]...", nargs=-1, type=click.UNPROCESSED)
def localdisk(arguments: tuple[str, ...]) -> None:
    """Run the CSI driver over a local directory."""
    from adapters.localdisk.server import main

    _finish(main(list(arguments)))
