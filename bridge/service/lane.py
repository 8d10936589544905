"""One cluster as the worker sees it: where its requests, its records and its volumes are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from bridge.model.failure import ElsewhereError
from bridge.model.snapshot import OnRecord
from bridge.ports.adapter import follow_nothing, nothing_on_record
from bridge.ports.group import GroupBook, GroupSide
from bridge.ports.guard import Guard
from bridge.ports.ledger import Book, Ledger
from bridge.ports.orchestrator import Follow, Orchestrator, Requests
from bridge.ports.plugin import PluginCalls, Plugins
from bridge.ports.secrets import Secrets
from bridge.ports.workloads import Workloads
from bridge.service import booked_groups
from bridge.service.booked import BookedRequests


def _open(_driver: str) -> str:
    return ""


@dataclasses.dataclass(frozen=True, slots=True)
class Lane:
    """The ports of one cluster, whoever implements them."""

    orchestrator: Orchestrator
    requests: Requests
    ledger: Ledger
    secrets: Secrets
    fence: Callable[[str], str] = _open
    """Asked right before each plugin call: why this process may no longer act for a driver; empty when it may."""
    follow: Follow = follow_nothing
    """Asked for what another controller carries out."""
    guard: Guard | None = None
    """Holds writers still around a cut, where the orchestrator can."""
    groups: GroupSide | None = None
    """Where the orchestrator has group snapshots, or the book keeps them for it."""
    workloads: Workloads | None = None
    """Only where users of a volume can be stopped for a while."""
    on_record: Callable[[str], OnRecord] = nothing_on_record
    """What the orchestrator's own objects say of a driver's snapshots."""

    plugins: Plugins | None = None
    """The registry as this cluster sees it; None: as everybody does."""

    def of(self, plugins: Plugins) -> Plugins:
        """What may be called for this cluster's volumes: another cluster's plugin may stand before other storage."""
        return self.plugins or plugins

    def calls(self, plugins: Plugins, driver: str) -> PluginCalls | None:
        """The plugin to call now, under this cluster's fence: asked here, and once more when the call has its slot.

        None when no plugin serves; ElsewhereError when this process may not act for the driver.
        """
        plugin = self.of(plugins).controller(driver)
        if plugin is None:
            return None
        if reason := self.fence(driver):
            raise ElsewhereError(reason)
        return plugin.under(functools.partial(self.fence, driver))


def lane(  # noqa: PLR0913 -- keywords; the composition roots call it
    orchestrator: Orchestrator,
    ledger: Ledger,
    book: Book,
    secrets: Secrets,
    *,
    fence: Callable[[str], str] = _open,
    follow: Follow = follow_nothing,
    guard: Guard | None = None,
    groups: GroupSide | None = None,
    workloads: Workloads | None = None,
    on_record: Callable[[str], OnRecord] = nothing_on_record,
    group_book: GroupBook | None = None,
    plugins: Plugins | None = None,
) -> Lane:
    """Give the cluster its own keepers where it has them, the service's where it has not."""
    if groups is None and group_book is not None and orchestrator.requests is None:
        groups = booked_groups.side(orchestrator, book, orchestrator.ledger or ledger, group_book)
    return Lane(
        orchestrator=orchestrator,
        requests=orchestrator.requests or BookedRequests(orchestrator, book, group_book),
        ledger=orchestrator.ledger or ledger,
        secrets=secrets,
        fence=fence,
        follow=follow,
        guard=guard,
        groups=groups,
        workloads=workloads,
        on_record=on_record,
        plugins=plugins,
    )
