"""Roles: commands that take the place of an orchestrator's own programs. Each adapter reads its roles' flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from bridge.cli import exits

ROLES: Mapping[str, Mapping[str, str]] = {
    "kubernetes": {
        "all": "Both halves in one process: instead of snapshot-controller and csi-snapshotter.",
        "controller": "The cluster half: instead of snapshot-controller.",
        "sidecar": "The driver half: instead of csi-snapshotter.",
        "provisioner": "Volumes from snapshots and claims: instead of external-provisioner.",
        "registrar": "Drivers made known to the kubelet: instead of node-driver-registrar.",
        "webhook": "The classic validation webhook.",
    }
}
"""Named here too, so that the help text needs no adapter. A test compares with the catalogue."""


def groups() -> Sequence[click.Group]:
    """One group of commands per orchestrator that has roles."""
    return [_group(kind, roles) for kind, roles in ROLES.items()]


def _group(kind: str, roles: Mapping[str, str]) -> click.Group:
    text = (
        f"Take the place of {kind.title()}'s snapshot programs.\n\nEach role takes the flags of the program that it "
        "replaces, in Go's notation (--leader-election=true, -v=5); see ROLE --help."
    )
    group = click.Group(kind, help=text)
    for name, summary in roles.items():
        group.add_command(_command(kind, name, summary))
    return group


def _command(kind: str, name: str, summary: str) -> click.Command:
    @click.command(
        name,
        help=summary,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    @click.argument("arguments", metavar="[FLAG]...", nargs=-1, type=click.UNPROCESSED)
    def run(arguments: tuple[str, ...]) -> None:
        _run(kind, name, arguments)

    return run


def _run(kind: str, name: str, arguments: Sequence[str]) -> None:
    from adapters.catalog import Catalog
    from bridge.model.failure import InvalidError

    try:
        plan: Any = Catalog().roles(kind).plan(name, arguments)
    except InvalidError as error:
        where = f"{error.field}: " if error.field else ""
        raise exits.Stop(f"{where}{error.message}", hint=error.hint, code=exits.USAGE) from error
    if isinstance(plan, str):
        click.echo(plan)
        return
    from bridge.app import main

    code = main.role(plan)
    if code != exits.DONE:
        raise click.exceptions.Exit(code)
