"""What a shell proposes for a reference or a volume. It asks the service briefly, and says nothing when it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bridge.cli import connection, exits, faults, options, refs

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SECONDS = 2.0
MOST = 200


def snapshots(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names in full, and bare names where that is enough."""
    items = _items(context, "/v1/snapshots")
    full = "/" in incomplete
    found = [
        (refs.name_of(item) if full else item["name"], f"{item['state']}, of {item['volume']}") for item in items
    ]
    return _proposals(found, incomplete)


def volumes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of volumes."""
    items = _items(context, "/v1/volumes")
    return _proposals([(item["name"], item["driver"]) for item in items], incomplete)


def operations(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of operations."""
    items = _items(context, "/v1/operations")
    return _proposals([(item["id"], item["verb"]) for item in items], incomplete)


def _own_name(item: dict[str, Any]) -> str:
    return str(item["name"])


def _proposals(found: list[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name, help=text) for name, text in found if name.startswith(incomplete)]


def _items(context: click.Context, path: str) -> list[dict[str, Any]]:
    from bridge.cli.client import Client

    query: dict[str, str | int] = {} if path == "/v1/volumes" else {"per_page": MOST}
    for name in ("cluster", "namespace"):
        if path != "/v1/operations" and context.params.get(name):
            query[name] = context.params[name]
    try:
        client = Client(connection.connect(options.over_parents(context)))
        try:
            return list(client.get(path, query, timeout=SECONDS)["items"])
        finally:
            client.close()
    except (exits.Stop, faults.LostError, faults.ProblemError):
        return []
