"""References as people type them, made into what the API takes. Guesses nothing that could hit another snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.cli.exits import USAGE, Stop
from bridge.cli.faults import ProblemError
from bridge.cli.options import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from bridge.cli.client import Client

Json = dict[str, Any]

SHORTEST_PREFIX = 4
"""Shorter words are names only."""


def path(ref: str) -> str:
    """The path of a snapshot."""
    return f"/v1/snapshots/{quoted(ref)}"


def operation_path(operation_id: str) -> str:
    """The path of an operation."""
    return f"/v1/operations/{quoted(operation_id)}"


def quoted(text: str) -> str:
    """One segment of a path."""
    from urllib.parse import quote

    return quote(text, safe="")


def name_of(snapshot: Json) -> str:
    """CLUSTER/NAMESPACE/NAME: what every command takes."""
    return f"{snapshot['cluster']}/{snapshot['namespace']}/{snapshot['name']}"


def find(client: Client, ref: str, *, cluster: str = "", namespace: str = "") -> Json:
    """The snapshot that `ref` means.

    A uid, the start of one, CLUSTER/NAMESPACE/NAME; NAMESPACE/NAME or NAME where the cluster is clear. With
    --cluster or --namespace a bare word is a name. ProblemError as the API answers.
    """
    if ref.count("/") >= 2:
        return client.get(path(ref))
    if cluster or namespace or "/" in ref:
        return client.get(path(full_name(client, ref, cluster, namespace)))
    by_uid = _attempt(client, ref)
    if isinstance(by_uid, dict) and typed_in_full(ref, by_uid):
        return by_uid
    by_name = _attempt(client, full_name(client, ref, cluster, namespace))
    if isinstance(by_uid, dict) and isinstance(by_name, dict) and by_uid["uid"] != by_name["uid"]:
        hint = f"give {by_uid['uid']} or {name_of(by_name)}"
        raise Stop(f"{ref} is the name of one snapshot and the start of the uid of another", hint=hint, code=USAGE)
    found = by_uid if isinstance(by_uid, dict) else by_name
    if isinstance(found, dict):
        return found
    refusals = (by_name, by_uid) if len(ref) < SHORTEST_PREFIX else (by_uid, by_name)
    raise next(refusal for refusal in refusals if isinstance(refusal, ProblemError))


def _attempt(client: Client, ref: str) -> Json | ProblemError:
    try:
        return client.get(path(ref))
    except ProblemError as error:
        if error.status not in (404, 422):
            raise
        return error


def full_name(client: Client, ref: str, cluster: str, namespace: str) -> str:
    """CLUSTER/NAMESPACE/NAME of a name; the name itself where the cluster is not clear."""
    if ref.count("/") >= 2:
        return ref
    within, slash, name = ref.rpartition("/")
    namespace = within if slash else namespace or DEFAULT_NAMESPACE
    if not cluster:
        clusters = client.get("/v1/clusters")["items"]
        if len(clusters) != 1:
            return ref
        cluster = clusters[0]["name"]
    return f"{cluster}/{namespace}/{name}"


def typed_in_full(ref: str, snapshot: Json) -> bool:
    """Whether this is the whole uid or the name, not just the start of the uid."""
    return ref in (snapshot["uid"], snapshot["name"]) or "/" in ref
