"""How an adapter joins: what it is given, what it gives. The catalogue lists them; the root joins them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from bridge.model.keys import Key
from bridge.model.plugin import PluginDescription
from bridge.model.snapshot import Followed, OnRecord
from bridge.ports.announce import Announcer
from bridge.ports.clock import Clock
from bridge.ports.discovery import SocketFinder
from bridge.ports.group import GroupSide
from bridge.ports.guard import Guard
from bridge.ports.identity import Authenticator
from bridge.ports.leadership import Leadership
from bridge.ports.ledger import Book
from bridge.ports.orchestrator import Follow, Orchestrator
from bridge.ports.secrets import Secrets
from bridge.ports.workloads import Workloads


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What the service lends to an adapter."""

    cluster: str
    book: Book
    secrets: Secrets
    """Resolves every scheme of every adapter."""
    clock: Clock
    serves: Callable[[str], bool]
    """Whether this process holds a plugin of the driver."""
    carried: Callable[[str], bool] = lambda _driver: False
    """Whether a node agent carries calls to a healthy plugin of the driver now."""
    fence: Callable[[], str] = lambda: ""
    """Why this process may write nothing at this very moment (another replica leads); empty when it may."""


def nothing_on_record(_driver: str) -> OnRecord:
    """Its records are the service's own."""
    return OnRecord()


async def follow_nothing(_key: Key) -> Followed | None:
    """No other controller has a part in it."""
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class Joined:
    """One built adapter, with what it adds to the whole service."""

    orchestrator: Orchestrator
    resolvers: Mapping[str, Secrets] = dataclasses.field(default_factory=dict)
    """Secret resolvers by scheme."""
    authenticators: Sequence[Authenticator] = ()
    problems: Callable[[], Sequence[str]] = tuple
    """What people should put right, in sentences."""
    fence: Callable[[str], str] = lambda _driver: ""
    """Why this process may not act for a driver at this very moment; empty when it may."""
    groups: GroupSide | None = None
    """Its group snapshots, where it has them."""
    guard: Guard | None = None
    """Holds writers still around a cut, where it can."""
    workloads: Workloads | None = None
    """What an in-place revert needs, where users of a volume can be stopped for a while."""
    follow: Follow = follow_nothing
    """For requests that another controller carries out."""
    on_record: Callable[[str], OnRecord] = nothing_on_record
    """What its own objects say of a driver's snapshots. NotSyncedError before the first full list."""
    delegations: Callable[[], Sequence[PluginDescription]] = tuple
    """The drivers whose snapshots another controller makes for us, as rows of the plugin list."""


class Catalogue(Protocol):
    """The list of adapters. Looking a kind up imports that adapter and no other."""

    def sections(self) -> Mapping[str, Any]:
        """For each kind, the model of its section in the config."""
        ...

    def announcer(self, directory: str, clock: Clock) -> Announcer:
        """What makes drivers known to whoever mounts volumes on this host, by sockets in this directory."""
        ...

    def node_sections(self) -> Mapping[str, Any]:
        """For each kind that finds plugin sockets on a host, the model of its section in a node agent's config."""
        ...

    def finder(self, kind: str, settings: Any, node: str) -> SocketFinder:
        """What finds the sockets of one orchestrator's plugins on this host, which is the node of this name."""
        ...

    def leadership(self, kind: str, settings: Any) -> Leadership | None:
        """The election that this cluster holds for the replicas of the service; None where it holds none."""
        ...

    async def join(self, kind: str, settings: Any, surroundings: Surroundings) -> Joined:
        """Build the adapter of one cluster. InvalidError when its settings cannot be used."""
        ...
