"""Finding and showing snapshots, whichever orchestrator keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from bridge.decide import action as act
from bridge.decide import snapshot
from bridge.model.failure import ElsewhereError, InvalidError, NotFoundError
from bridge.model.keys import Key
from bridge.model.plugin import PluginView
from bridge.model.snapshot import SnapshotRequest, SnapshotState, SnapshotStatus
from bridge.model.view import SnapshotPage, SnapshotView
from bridge.ports.identity import Caller
from bridge.ports.ledger import Book, Entry, EntryFilter
from bridge.service import permission
from bridge.service.lane import Lane

SHORTEST_PREFIX = 4
PENDING = SnapshotStatus(SnapshotState.PENDING)


class Catalogue:
    """Reads only. The book answers for clusters without durable requests, the adapters' caches for the others."""

    def __init__(self, lanes: Mapping[str, Lane], book: Book) -> None:
        self._lanes = lanes
        self._book = book

    async def page(self, caller: Caller, which: EntryFilter, *, limit: int, token: str) -> SnapshotPage:
        """The book's entries first, then each cluster that keeps its own."""
        if which.cluster and which.cluster not in self._lanes:
            raise unknown_cluster(which.cluster, self._lanes)
        source, _, rest = token.partition(":")
        items: list[SnapshotView] = []
        if not token or source == "book":
            page = await self._book.list(which, limit=limit, token=rest)
            items = [view(entry) for entry in page.items if _allowed(caller, view(entry))]
            if page.next_token:
                return SnapshotPage(tuple(items), f"book:{page.next_token}")
            source, rest = "own", "0"
        if source != "own" or not (rest.isascii() and rest.isdecimal()):
            raise InvalidError("the page token is not one of ours", field="next_token", hint="start without one")
        start = int(rest)
        found = sorted(await self._durable(caller, which), key=lambda one: (-one.created_at, str(one.key)))
        taken = found[start : start + max(limit - len(items), 0)]
        end = start + len(taken)
        return SnapshotPage((*items, *taken), f"own:{end}" if end < len(found) else "")

    async def _durable(self, caller: Caller, which: EntryFilter) -> list[SnapshotView]:
        return [one async for one in self._own_views(which.cluster) if matches(which, one) and _allowed(caller, one)]

    async def _own_views(self, cluster: str, uid_prefix: str = "") -> AsyncIterator[SnapshotView]:
        """What another controller acts on and tells nothing of is left out of a list; by its uid: ElsewhereError."""
        for name, lane in self._lanes.items():
            if lane.orchestrator.traits.durable_requests and cluster in ("", name):
                if reason := lane.fence(""):
                    # Nothing here is ours to show: an empty list would be a lie.
                    raise ElsewhereError(f"cluster {name}: {reason}", hint="Ask the leader, or name another cluster")
                async for key in lane.requests.keys():
                    if not key.uid.startswith(uid_prefix):
                        continue
                    try:
                        one = await self.own_view(key)
                    except ElsewhereError:
                        if uid_prefix:
                            raise
                        continue
                    if one is not None:
                        yield one

    async def own_view(self, key: Key) -> SnapshotView | None:
        """The view of a request that its orchestrator keeps, whoever carries it out.

        ElsewhereError when another controller does and nothing is known of what it has told.
        """
        lane = self._lanes[key.cluster]
        try:
            request = await lane.requests.observe(key)
        except ElsewhereError:
            followed = await lane.follow(key)
            if followed is None:
                raise
            return _own(followed.request, followed.status)
        if request is None:
            return None
        record = await lane.ledger.load(key)
        seen = snapshot.Observed(request, record, PluginView(request.driver), "")
        return _own(request, snapshot.project(seen, act.Rest("", "", request.trouble)))

    async def find(self, caller: Caller, ref: str, *, whole: bool = False) -> SnapshotView:
        """By uid, by CLUSTER/NAMESPACE/NAME, or (unless `whole`) by an unambiguous uid prefix."""
        found = await (self._by_name(ref) if "/" in ref else self._by_uid(ref, whole))
        if found is None or not _allowed(caller, found):
            raise NotFoundError(f"there is no snapshot {ref!r}", hint="`snapbridge snapshot list` shows them")
        return found

    async def _by_name(self, ref: str) -> SnapshotView | None:
        parts = ref.split("/", 2)
        if len(parts) != 3 or not all(parts):
            raise InvalidError(f"{ref!r} is not CLUSTER/NAMESPACE/NAME", field="snapshot")
        cluster, namespace, name = parts
        lane = self._lanes.get(cluster)
        if lane is None:
            raise unknown_cluster(cluster, self._lanes)
        if not lane.orchestrator.traits.durable_requests:
            entry = await self._book.find(cluster, namespace, name)
            return view(entry) if entry is not None else None
        async for one in self._own_views(cluster):
            if (one.namespace, one.name) == (namespace, name):
                return one
        return None

    async def _by_uid(self, ref: str, whole: bool) -> SnapshotView | None:
        if len(ref) < SHORTEST_PREFIX:
            raise InvalidError(f"{ref!r} is too short for a uid: give {SHORTEST_PREFIX} characters", field="snapshot")
        page = await self._book.list(EntryFilter(uid_prefix=ref), limit=10)
        found = [view(entry) for entry in page.items]
        found += [one async for one in self._own_views("", uid_prefix=ref)]
        exact = [one for one in found if one.key.uid == ref]
        if exact:
            return exact[0]
        if whole:
            hint = "give the full uid or CLUSTER/NAMESPACE/NAME: a prefix is not enough here"
            raise NotFoundError(f"there is no snapshot with the uid {ref!r}", hint=hint)
        if len(found) > 1:
            shown = ", ".join(one.key.uid for one in found[:5])
            raise InvalidError(f"{ref!r} fits several snapshots ({shown})", field="snapshot", hint="give more of it")
        return found[0] if found else None


def view(entry: Entry) -> SnapshotView:
    """A booked request as people see it."""
    return SnapshotView(
        key=entry.key,
        namespace=entry.namespace,
        name=entry.name,
        volume=entry.volume,
        driver=entry.driver,
        policy=entry.policy.value,
        snapshot_name=entry.snapshot_name,
        status=entry.status or PENDING,
        created_at=entry.created_at,
        asked_by=entry.asked_by,
        why=entry.why,
        labels=dict(entry.labels),
        parameters=dict(entry.parameters),
        users=dict(entry.users),
    )


def _own(request: SnapshotRequest, status: SnapshotStatus) -> SnapshotView:
    """A request that its orchestrator keeps, as people see it."""
    return SnapshotView(
        key=request.key,
        namespace=request.namespace,
        name=request.name,
        volume=request.volume,
        driver=request.driver,
        policy=request.policy.value,
        snapshot_name=request.snapshot_name,
        status=status,
        created_at=request.created_at,
        parameters=dict(request.parameters),
    )


def matches(which: EntryFilter, one: SnapshotView) -> bool:
    """The filter of `Book.list`, for requests that live elsewhere."""
    pairs = (
        (which.cluster, one.key.cluster),
        (which.namespace, one.namespace),
        (which.volume, one.volume),
        (which.driver, one.driver),
    )
    if any(wanted and wanted != is_ for wanted, is_ in pairs):
        return False
    if which.states and one.status.state.value not in which.states:
        return False
    if not one.key.uid.startswith(which.uid_prefix):
        return False
    if not all(_used_by(one, name, value) for name, value in which.users.items()):
        return False
    return all(one.labels.get(name) == value for name, value in which.labels.items())


def _used_by(one: SnapshotView, name: str, value: str) -> bool:
    """Whether this user had its volume; a value that ends in `*` is the start of one."""
    if value.endswith("*"):
        return any(known.startswith(value[:-1]) for known in one.users.get(name, ()))
    return value in one.users.get(name, ())


def unknown_cluster(name: str, lanes: Mapping[str, Lane]) -> NotFoundError:
    """The error for a cluster that the config does not name."""
    return NotFoundError(
        f"no cluster {name!r} is configured", field="cluster", hint=f"there are: {', '.join(sorted(lanes)) or 'none'}"
    )


def _allowed(caller: Caller, one: SnapshotView) -> bool:
    return permission.may(caller, one.key.cluster, one.namespace, one.volume)
