"""ListSnapshots: all pages, or one snapshot by its handle. Trusts neither a plugin's filter nor its tokens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from bridge.csi import failures, methods, snapshots
from bridge.csi.client import Client
from bridge.model.failure import Failure, FailureKind
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.snapshot import CutPage, CutSnapshot
from bridge.pb.csi.v1 import csi_pb2 as pb

_VERB = "ListSnapshots"


async def find(client: Client, handle: str, secrets: Mapping[str, str]) -> Outcome[CutSnapshot]:
    """The one snapshot with this handle. None: Failed(REFUSED, "NOT_FOUND"); several or another one: unsure."""
    if not handle:
        return Failed(failures.invalid("snapshot_id is required"))
    request = pb.ListSnapshotsRequest(snapshot_id=handle, secrets=dict(secrets))
    outcome = await client.unary(methods.LIST_SNAPSHOTS, request)
    if isinstance(outcome, Failed):
        return outcome
    entries = outcome.value.entries
    if len(entries) > 1 or outcome.value.next_token:
        text = f"it has more than the one snapshot that was asked for ({handle!r}): it ignores the filter"
        return Failed(failures.bad_response(_VERB, text, code="WRONG_SNAPSHOT"))
    if not entries:
        hint = failures.TABLE["GetSnapshot"]["NOT_FOUND"].hint
        return Failed(Failure(FailureKind.REFUSED, "NOT_FOUND", f"no snapshot {handle!r} is listed", hint))
    most = client.settings.most_handle_bytes
    cut = snapshots.cut_of(_VERB, entries[0].snapshot, most_handle_bytes=most, handle=handle)
    return Failed(cut) if isinstance(cut, Failure) else Done(cut)


async def page(client: Client, token: str, limit: int, secrets: Mapping[str, str]) -> Outcome[CutPage]:
    """One page, by the plugin's own token."""
    request = pb.ListSnapshotsRequest(max_entries=limit, starting_token=token, secrets=dict(secrets))
    outcome = await client.unary(methods.LIST_SNAPSHOTS, request)
    if isinstance(outcome, Failed):
        return outcome
    following = outcome.value.next_token
    if following and following == token:
        return Failed(failures.bad_response(_VERB, f"its page token {token!r} leads back to itself"))
    found: list[CutSnapshot] = []
    for entry in outcome.value.entries:
        cut = snapshots.cut_of(_VERB, entry.snapshot, most_handle_bytes=client.settings.most_handle_bytes)
        if isinstance(cut, Failure):
            return Failed(cut)
        found.append(cut)
    return Done(CutPage(tuple(found), following))


async def every(
    client: Client, volume_handle: str, secrets: Mapping[str, str]
) -> AsyncGenerator[Outcome[CutSnapshot], None]:
    """All snapshots (of one volume, if given), each once. A stale token begins the list anew, a few times."""
    settings = client.settings
    seen: set[str] = set()
    restarts = 0
    token = ""
    for _ in range(settings.most_list_pages):
        request = pb.ListSnapshotsRequest(
            max_entries=settings.list_page_entries,
            starting_token=token,
            source_volume_id=volume_handle,
            secrets=dict(secrets),
        )
        outcome = await client.unary(methods.LIST_SNAPSHOTS, request)
        if isinstance(outcome, Failed):
            if token and outcome.failure.code == "ABORTED" and restarts < settings.list_restarts:
                restarts, token = restarts + 1, ""
                continue
            yield outcome
            return
        for entry in outcome.value.entries:
            cut = snapshots.cut_of(_VERB, entry.snapshot, most_handle_bytes=settings.most_handle_bytes)
            if isinstance(cut, Failure):
                yield Failed(cut)
                return
            if cut.handle not in seen and (not volume_handle or cut.source_handle == volume_handle):
                seen.add(cut.handle)
                yield Done(cut)
        if not outcome.value.next_token:
            return
        if outcome.value.next_token == token:
            yield Failed(failures.bad_response(_VERB, f"its page token {token!r} leads back to itself"))
            return
        token = outcome.value.next_token
    yield Failed(failures.bad_response(_VERB, f"it has more than {settings.most_list_pages} pages"))
