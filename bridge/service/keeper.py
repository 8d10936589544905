"""What keeps a snapshot from being deleted beside its policy: pins, and volumes that share its blocks.

Asked twice: by the desk, so that a caller gets an answer, and by each pass, so that no other way around it exists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from bridge.model.failure import ConflictError, DeniedError, InUseError, PinnedError
from bridge.model.keys import Key
from bridge.model.pin import Pin
from bridge.model.snapshot import DeletionPolicy, Record, SnapshotRequest, SnapshotState, Wish
from bridge.model.view import SnapshotView
from bridge.model.volume import Origin, Volume
from bridge.ports.clock import Clock
from bridge.ports.identity import Caller
from bridge.ports.ledger import Book, Entry
from bridge.service import permission
from bridge.service.lane import Lane

UNPIN = "`snapbridge snapshot unpin` lets it go; a pin of an operation goes with that operation"


def _never(_driver: str) -> bool:
    return False


class Keeper:
    """Pins of people and operations, and the volumes that were made from a snapshot."""

    def __init__(
        self, lanes: Mapping[str, Lane], book: Book, clock: Clock, shares_blocks: Callable[[str], bool] = _never
    ) -> None:
        self._lanes = lanes
        self._book = book
        self._clock = clock
        self._shares_blocks = shares_blocks

    async def pin(self, key: Key, *, who: str, why: str = "", owner: str = "") -> Pin:
        """Keep it. ConflictError when its deletion was asked for already."""
        pin = await self._book.pin(Pin(key, owner, who, why, self._clock.now()))
        await self._book.audit(str(key), "pin", who, {"why": why, "owner": owner})
        return pin

    async def unpin(self, key: Key, *, who: str, owner: str = "") -> bool:
        """Let this owner's pin go; whether there was one."""
        there = await self._book.unpin(key, owner)
        if there:
            await self._book.audit(str(key), "unpin", who, {"owner": owner})
        return there

    async def demand_unpin(self, caller: Caller, key: Key) -> None:
        """DeniedError when a caller with limits wants to take off somebody else's pin."""
        if not permission.limited(caller):
            return
        for pin in await self._book.pins([key]):
            if not pin.owner and pin.who != caller.name:
                raise DeniedError(f"{caller.name} may not let it go: it is {pin}", hint="ask who pinned it")

    async def with_pins(self, views: Sequence[SnapshotView]) -> list[SnapshotView]:
        """The same rows, each with its pins."""
        found: dict[Key, list[Pin]] = {}
        for pin in await self._book.pins([view.key for view in views]) if views else ():
            found.setdefault(pin.key, []).append(pin)
        return [
            dataclasses.replace(view, pins=tuple(found[view.key])) if view.key in found else view for view in views
        ]

    async def sentence(self, request: SnapshotRequest, record: Record) -> str:
        """Why what is to be deleted must stay now; empty when nothing keeps it. For each pass."""
        for pin in await self._book.pins([request.key]):
            return f"it is {pin}"
        policy = record.policy if record.condemned else request.policy
        if policy is DeletionPolicy.RETAIN or record.deleted:
            return ""
        sharing = await self.sharing(record.driver, record.handle)
        return f"the volume {_name(sharing[0])} was restored from it and shares its blocks" if sharing else ""

    async def pinned(self, keys: Sequence[Key]) -> str:
        """Who pinned one of these; empty when nobody did."""
        for pin in await self._book.pins(keys):
            return f"its member {pin.key.uid} is {pin}"
        return ""

    async def demand_free(self, found: SnapshotView) -> None:
        """PinnedError, InUseError: it cannot be deleted now. For the desk."""
        for pin in await self._book.pins([found.key]):
            raise PinnedError(f"the snapshot is {pin}", hint=UNPIN, field="snapshot")
        if found.policy == DeletionPolicy.RETAIN.value:
            return
        sharing = await self.sharing(found.driver, found.status.handle)
        if sharing:
            names = ", ".join(_name(volume) for volume in sharing)
            raise InUseError(
                f"{'volumes that share' if len(sharing) > 1 else 'a volume that shares'} its blocks "
                f"{'were' if len(sharing) > 1 else 'was'} restored from it: "
                f"{names}",
                hint="delete the volume first, or keep the snapshot: `snapbridge snapshot set-policy REF Retain`",
                field="snapshot",
            )

    async def made(self, origin: Origin) -> None:
        """A volume was made from a snapshot or another volume: remember it."""
        await self._book.put_origin(dataclasses.replace(origin, made_at=self._clock.now()))

    async def with_origins(self, volumes: Sequence[Volume]) -> list[Volume]:
        """The same volumes, each with what it was made from."""
        clusters = {volume.cluster for volume in volumes}
        known = {
            (one.cluster, one.driver, one.handle): one.content
            for cluster in sorted(clusters)
            for one in await self._book.origins(cluster)
        }
        if not known:
            return list(volumes)
        return [dataclasses.replace(one, origin=known.get((one.cluster, one.driver, one.handle))) for one in volumes]

    async def sharing(self, driver: str, handle: str) -> list[Volume]:
        """The registered volumes that were made from this snapshot, where the driver lets them share its blocks.

        UnavailableError when a cluster cannot be asked: then nobody knows.
        """
        if not handle or not self._shares_blocks(driver):
            return []
        made = {origin.handle for origin in await self._book.made_from(driver, handle)}
        if not made:
            return []
        return [
            volume
            for lane in self._lanes.values()
            for volume in await lane.orchestrator.volumes.list()
            if volume.driver in (driver, "") and volume.handle in made  # empty: not known at the moment
        ]

    async def set_policy(self, key: Key, policy: DeletionPolicy) -> None:
        """Change what deleting the snapshot means. A retained one is under management again, nothing is deleted.

        ConflictError: its deletion is decided, or its name is taken by another one since.
        """
        lane = self._lanes[key.cluster]
        for _ in range(20):
            entry = await self._book.entry(key)
            if entry is None:
                return
            changed = _with_policy(entry, policy)
            if changed is entry:
                return
            known = await lane.ledger.load(key)
            if known is not None and known.group:
                message = "it was cut with its group by one call, and is deleted with that only"
                raise ConflictError(message, field="snapshot", hint="its data is the backend's own matter now")
            await self._demand_name(changed.key, entry.namespace, entry.name)
            try:
                await self._book.change(changed)
            except PinnedError:
                raise
            except ConflictError:
                continue
            record = await lane.ledger.load(key)
            if record is not None and record.condemned and record.policy is not policy:
                raise ConflictError("its deletion is decided already", field="snapshot")
            return
        raise ConflictError(f"the request {key} changes too fast", hint="try again")

    async def _demand_name(self, key: Key, namespace: str, name: str) -> None:
        there = await self._book.find(key.cluster, namespace, name)
        if there is not None and there.key != key:
            raise ConflictError(
                f"the name {namespace}/{name} is that of another snapshot since ({there.key.uid})",
                hint="delete that one first, or adopt the handle under another name",
                field="name",
            )


def _with_policy(entry: Entry, policy: DeletionPolicy) -> Entry:
    """The entry under this policy. One that was let go and kept comes back, so that only a delete can delete it."""
    status = entry.status
    if entry.policy is policy:
        return entry
    if status is None or status.state is not SnapshotState.RETAINED:
        return dataclasses.replace(entry, policy=policy)
    state = SnapshotState.READY if status.ready else SnapshotState.PROCESSING
    return dataclasses.replace(
        entry, policy=policy, wish=Wish.PRESENT, abandon=False, status=dataclasses.replace(status, state=state)
    )


def _name(volume: Volume) -> str:
    return f"{volume.cluster}/{volume.namespace}/{volume.name}"
