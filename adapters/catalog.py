"""The one list of adapters. Each is imported inside its own function, so that a host pays only for what it uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bridge.ports.adapter import Joined, Surroundings
from bridge.ports.announce import Announcer
from bridge.ports.clock import Clock
from bridge.ports.commands import Commands
from bridge.ports.discovery import SocketFinder
from bridge.ports.leadership import Leadership
from bridge.ports.role import Roles


async def _standalone(settings: Any, given: Surroundings) -> Joined:
    from adapters.standalone.adapter import build

    return Joined(build(given.cluster, settings, book=given.book))


async def _kubernetes(settings: Any, given: Surroundings) -> Joined:
    from adapters.kubernetes.adapter import build

    cluster = await build(settings, cluster=given.cluster, clock=given.clock, serves=given.serves)
    return cluster.joined()


async def _nomad(settings: Any, given: Surroundings) -> Joined:
    from adapters.nomad.adapter import build

    cluster = build(given.cluster, settings, secrets=given.secrets, carried=given.carried, fence=given.fence)
    cluster.hold_writers(given.book, given.clock)
    return Joined(
        cluster,
        {"nomadVar": cluster.secrets},
        cluster.authenticators(),
        cluster.problems,
        guard=cluster.guard,
        workloads=cluster.workloads,
    )


JOIN: Mapping[str, Callable[[Any, Surroundings], Awaitable[Joined]]] = {
    "kubernetes": _kubernetes,
    "nomad": _nomad,
    "standalone": _standalone,
}


def _kubernetes_roles() -> Roles:
    from adapters.kubernetes.roles.table import Table

    return Table()


def _nomad_sockets(settings: Any, node: str) -> SocketFinder:
    from adapters.nomad.node import NodeSockets

    return NodeSockets(settings, node)


def _nomad_election(settings: Any) -> Leadership | None:
    if settings.leadership is None:
        return None
    from adapters.nomad.client import Client
    from adapters.nomad.leadership import VariableLock

    return VariableLock(Client(settings), settings.leadership)


ELECTIONS: Mapping[str, Callable[[Any], Leadership | None]] = {"nomad": _nomad_election}
FINDERS: Mapping[str, Callable[[Any, str], SocketFinder]] = {"nomad": _nomad_sockets}
ROLES: Mapping[str, Callable[[], Roles]] = {"kubernetes": _kubernetes_roles}


def _nomad_commands() -> Commands:
    from adapters.nomad.commands.table import Table

    return Table()


COMMANDS: Mapping[str, Callable[[], Commands]] = {"nomad": _nomad_commands}


class Catalog:
    """The `Catalogue` port over this list."""

    def sections(self) -> Mapping[str, Any]:
        """The settings' models. They import nothing heavy."""
        from adapters.kubernetes.settings import Settings as KubernetesSettings
        from adapters.nomad.settings import Settings as NomadSettings
        from adapters.standalone.settings import Settings as StandaloneSettings

        return {"kubernetes": KubernetesSettings, "nomad": NomadSettings, "standalone": StandaloneSettings}

    def node_sections(self) -> Mapping[str, Any]:
        """The same for the config of a node agent."""
        from adapters.nomad.settings import NodeSettings

        return {"nomad": NodeSettings}

    def finder(self, kind: str, settings: Any, node: str) -> SocketFinder:
        """KeyError for a kind that finds no sockets."""
        return FINDERS[kind](settings, node)

    def leadership(self, kind: str, settings: Any) -> Leadership | None:
        """See the port."""
        return ELECTIONS[kind](settings) if kind in ELECTIONS else None

    def announcer(self, directory: str, clock: Clock) -> Announcer:
        """The kubelet's registration protocol."""
        from adapters.kubernetes.registration.announcer import KubeletAnnouncer, RegistrationSettings

        return KubeletAnnouncer(RegistrationSettings(registry=directory), clock)

    def roles(self, kind: str) -> Roles:
        """The roles of one orchestrator. KeyError when it has none."""
        return ROLES[kind]()

    def commands(self, kind: str) -> Commands:
        """What one orchestrator adds to the command line. KeyError when it adds nothing."""
        return COMMANDS[kind]()

    async def join(self, kind: str, settings: Any, surroundings: Surroundings) -> Joined:
        """Build the adapter of one cluster."""
        return await JOIN[kind](settings, surroundings)
