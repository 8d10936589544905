"""The root of the command line: its commands, kubectl's word order, and errors into exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

import bridge
from bridge.cli import (
    about,
    commands,
    exits,
    groups,
    inventory,
    operations,
    options,
    output,
    roles,
    service,
    snapshot_delete,
    snapshot_list,
    snapshots,
    volumes,
)
from bridge.cli.faults import LostError, ProblemError
from bridge.ports.commands import StopError

PROGRAM = "snapbridge"


class InOrder(click.Group):
    """A group that shows its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, as added."""
        return list(self.commands)


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@options.connection_options
@click.option("--no-color", is_flag=True, help="No colour; so does NO_COLOR.")
@click.version_option(bridge.__version__, "-V", "--version", message="%(prog)s %(version)s")
def root(no_color: bool, **connection: str | None) -> None:
    """The same CSI snapshots for Kubernetes, Nomad and plain hosts.

    Nouns come first (snapshot list); kubectl's order works too (get snapshots).
    """
    if no_color:
        os.environ["NO_COLOR"] = "1"


@click.group("get")
def get() -> None:
    """kubectl's order: get snapshots, get volumes …"""


@click.group("describe")
def describe() -> None:
    """kubectl's order: describe snapshot, operation."""


@click.group("delete")
def delete() -> None:
    """kubectl's order: delete snapshot."""


@click.group("create")
def create() -> None:
    """kubectl's order: create snapshot."""


def _assemble() -> None:
    shown: list[click.Command] = [
        *(
            snapshots.group,
            groups.group,
            operations.group,
            volumes.group,
            inventory.plugin,
            service.node,
            inventory.cluster,
        ),
        *(get, describe, create, delete),
        *(service.serve, *roles.groups(), service.check_config, service.localdisk),
        *(about.whoami, about.version, about.completion),
    ]
    for command in shown:
        root.add_command(command)
    listed = {
        "snapshot": snapshot_list.list_snapshots,
        "group": groups.list_groups,
        "volume": inventory.list_volumes,
        "plugin": inventory.list_plugins,
        "node": inventory.list_nodes,
        "operation": operations.list_operations,
        "cluster": inventory.list_clusters,
    }
    for noun, command in listed.items():
        get.add_command(command, f"{noun}s")
        get.add_command(_hidden(command), noun)
    describe.add_command(snapshot_list.describe, "snapshot")
    describe.add_command(groups.describe, "group")
    describe.add_command(operations.describe, "operation")
    delete.add_command(snapshot_delete.delete, "snapshot")
    delete.add_command(groups.delete, "group")
    create.add_command(snapshots.create, "snapshot")
    create.add_command(groups.create, "group")
    commands.attach(root)
    for noun, group in (("snapshots", snapshots.group), ("operation", operations.group)):
        root.add_command(_hidden(group), noun)


def _hidden(command: click.Command) -> click.Command:
    """The same command, not shown in the help of its group."""
    import copy

    found = copy.copy(command)
    found.hidden = True
    return found


_assemble()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors are told on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what was done is done, whatever the terminal can show
    try:
        result: object = root.main(args=argv, prog_name=PROGRAM, standalone_mode=False)
        return result if isinstance(result, int) else exits.DONE
    except StopError as stop:
        return _end(stop)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort as abort:
        interrupted = isinstance(abort.__context__, KeyboardInterrupt)
        return _tell(
            "stopped" if interrupted else "nothing was done", exits.INTERRUPTED if interrupted else exits.FAILED
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return _tell("stopped", exits.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except ProblemError as error:
        return _end(error.stop())
    except LostError as error:
        return _end(exits.Stop(error.sentence, hint=error.hint))


def _end(stop: StopError) -> int:
    output.complain(stop)
    return stop.code


def _tell(text: str, code: int) -> int:
    output.note(text)
    return code
