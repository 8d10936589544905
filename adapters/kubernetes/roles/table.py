"""The one list of roles. Each is imported inside its own function: its module brings its dependencies with it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import cast

import bridge
from adapters.kubernetes import flags
from adapters.kubernetes.flags import Flag, Given
from bridge.model.failure import InvalidError
from bridge.ports.role import RolePlan

PROGRAM = "snapbridge kubernetes"

MODULES = {
    "controller": ("adapters.kubernetes.roles.controller", "The cluster half: upstream's snapshot-controller."),
    "sidecar": ("adapters.kubernetes.roles.sidecar", "The driver half: upstream's csi-snapshotter."),
    "all": ("adapters.kubernetes.roles.all", "Both halves in one process, without the handshake between them."),
    "provisioner": (
        "adapters.kubernetes.roles.provisioner",
        "Volumes for claims, empty or from a snapshot or another claim.",
    ),
    "registrar": ("adapters.kubernetes.roles.registrar", "Drivers made known to this host's kubelet."),
    "webhook": ("adapters.kubernetes.roles.webhook", "The classic validation webhook, over TLS."),
}
"""Name -> (module with FLAGS and `plan(given)`, summary). A plan that is a text is the whole answer."""


class Table:
    """Implements bridge.ports.role.Roles."""

    def names(self) -> Sequence[str]:
        """See the port."""
        return tuple(MODULES)

    def summary(self, name: str) -> str:
        """See the port."""
        return MODULES[name][1]

    def plan(self, name: str, arguments: Sequence[str]) -> RolePlan | str:
        """See the port."""
        if name not in MODULES:
            raise InvalidError(f"there is no role {name!r}", hint=f"Roles: {', '.join(MODULES)}")
        path, summary = MODULES[name]
        module = importlib.import_module(path)
        known = cast(Sequence[Flag], module.FLAGS)
        given = flags.parse(known, arguments)
        if given.truth("help") or given.truth("h"):
            return flags.help_text(f"{PROGRAM} {name}", summary, known)
        if given.truth("version"):
            return f"snapbridge {bridge.__version__}"
        try:
            return cast(Callable[[Given], RolePlan | str], module.plan)(given)
        except ValueError as error:  # pydantic's: a field of the settings
            raise InvalidError(str(error)) from error
