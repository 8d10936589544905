"""One cluster as the worker sees it: where its requests, its records and its volumes are."""

from __future__ import annotations

import dataclasses

from bridge.ports.ledger import Book, Ledger
from bridge.ports.orchestrator import Orchestrator, Requests
from bridge.ports.secrets import Secrets
from bridge.service.booked import BookedRequests


@dataclasses.dataclass(frozen=True, slots=True)
class Lane:
    """The ports of one cluster, whoever implements them."""

    orchestrator: Orchestrator
    requests: Requests
    ledger: Ledger
    secrets: Secrets


def lane(orchestrator: Orchestrator, ledger: Ledger, book: Book, secrets: Secrets) -> Lane:
    """Give the cluster its own keepers where it has them, the service's where it has not."""
    return Lane(
        orchestrator=orchestrator,
        requests=orchestrator.requests or BookedRequests(orchestrator, book),
        ledger=orchestrator.ledger or ledger,
        secrets=secrets,
    )
