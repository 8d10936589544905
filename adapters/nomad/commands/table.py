"""The one list of Nomad's commands. Each is imported when it is used; a new one is a module and a row here.

`bridge.cli.commands.SUMMARIES` names them too, so that the help text needs no import; a test compares both.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import cast

from bridge.ports.commands import Command

MODULES: Mapping[str, tuple[str, str]] = {
    "run": ("adapters.nomad.commands.run", "Snapshot a job's volumes, then register its new version."),
    "undo": ("adapters.nomad.commands.undo", "Take a job back to its previous version, with the data of that time."),
    "hook": ("adapters.nomad.commands.hook", "Snapshots of a job's volumes, asked for by the job's own tasks."),
}
"""Name -> (module with COMMAND, summary)."""


class Table:
    """Implements bridge.ports.commands.Commands."""

    def names(self) -> Sequence[str]:
        """See the port."""
        return tuple(MODULES)

    def summary(self, name: str) -> str:
        """See the port."""
        return MODULES[name][1]

    def command(self, name: str) -> Command:
        """See the port."""
        return cast(Command, importlib.import_module(MODULES[name][0]).COMMAND)
