"""From a wish to a booked request: everything is looked up now and copied in, so that nothing can vanish under it."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.decide import names
from bridge.model.failure import ConflictError, InvalidError, UnavailableError
from bridge.model.keys import Key, snapshot_key
from bridge.model.secret import SecretRef, SnapshotSecrets
from bridge.model.snapshot import HandleSource, Source, VolumeSource
from bridge.model.volume import Volume
from bridge.ports.guard import CONSISTENCY, CONSISTENCY_WHY
from bridge.ports.ledger import Book, Entry
from bridge.ports.orchestrator import SnapshotDraft
from bridge.service.keeper import Keeper
from bridge.service.lane import Lane
from bridge.service.work import Tools


class Booking:
    """Books snapshots for callers and hooks."""

    def __init__(self, book: Book, tools: Tools, keeper: Keeper) -> None:
        self._book = book
        self._tools = tools
        self._keeper = keeper

    async def book(self, lane: Lane, draft: SnapshotDraft, *, patient: bool = False) -> Key:
        """Look everything up now and copy it in.

        `patient`: a plugin that is not known yet is waited for instead of refused.
        """
        orchestrator = lane.orchestrator
        if orchestrator.traits.durable_requests:
            if not draft.adopt_handle:
                await orchestrator.volumes.find(draft.namespace, draft.volume)
            key = await orchestrator.submit(draft)
            if draft.pin:
                await self._keeper.pin(key, who=draft.asked_by, why=draft.why)
            return key
        key = snapshot_key(draft.cluster, draft.uid)
        known = await self._book.entry(key)
        if known is not None:
            if (known.name, known.volume) != (draft.name, draft.volume):
                raise ConflictError(f"the uid {draft.uid!r} belongs to another snapshot", field="uid")
            return key
        entry = await self.entry(lane, draft, patient=patient)
        if not draft.pin:
            await self._book.add(entry)
            return key
        # The pin first: nobody may find a moment in which it could be deleted.
        await self._keeper.pin(key, who=draft.asked_by, why=draft.why)
        try:
            await self._book.add(entry)
        except ConflictError:
            await self._keeper.unpin(key, who=draft.asked_by)
            raise
        return key

    async def entry(
        self, lane: Lane, draft: SnapshotDraft, *, patient: bool = False, group: Key | None = None
    ) -> Entry:
        """The request with everything looked up and copied in, not booked yet. `group`: it is a member of that."""
        _demand_labels(draft.labels)
        volume = await self._volume(lane, draft)
        source, driver = _source(draft, volume)
        view = lane.of(self._tools.plugins).view(driver)
        if not patient and not view.known and not view.expected:
            raise UnavailableError(
                f"no plugin of driver {driver!r} is known",
                field="driver",
                hint="start it, or name its socket in the config; `snapbridge plugin list` shows what is known",
            )
        return Entry(
            key=snapshot_key(draft.cluster, draft.uid),
            namespace=draft.namespace,
            name=draft.name,
            volume=draft.volume,
            driver=driver,
            source=source,
            snapshot_name=names.snapshot_name(draft.uid),
            policy=draft.policy,
            parameters=dict(draft.parameters),
            secrets=_secrets(draft.secrets, volume.secret if volume is not None else SecretRef()),
            asked_by=draft.asked_by,
            why=draft.why,
            labels=dict(draft.labels),
            created_at=self._tools.clock.now(),
            held=False,
            group=group,
            users=_users(draft.users, volume),
            shape=volume.shape() if volume is not None else None,
        )

    async def _volume(self, lane: Lane, draft: SnapshotDraft) -> Volume | None:
        """The source volume; None for an adopted handle of which nobody says what it was cut from."""
        if draft.adopt_handle and not draft.driver:
            raise InvalidError("an adopted snapshot needs its driver", field="driver")
        if draft.adopt_handle and not draft.volume:
            return None
        volume = await lane.orchestrator.volumes.find(draft.namespace, draft.volume)
        if draft.driver and draft.driver != volume.driver:
            message = f"volume {draft.volume!r} belongs to driver {volume.driver!r}, not {draft.driver!r}"
            hint = "" if draft.adopt_handle else "leave the driver out"
            raise InvalidError(message, field="driver", hint=hint)
        return volume


def _source(draft: SnapshotDraft, volume: Volume | None) -> tuple[Source, str]:
    """What to cut or adopt, and its driver."""
    if draft.adopt_handle:
        return HandleSource(draft.adopt_handle), draft.driver
    assert volume is not None
    return VolumeSource(volume.handle), volume.driver


def _demand_labels(labels: Mapping[str, str]) -> None:
    """InvalidError for a label that says what only a guard can know."""
    if taken := sorted({CONSISTENCY, CONSISTENCY_WHY} & set(labels)):
        message = f"the label {taken[0]!r} is the service's own: it tells how the copy was made"
        raise InvalidError(message, field="labels", hint="give it another name")


def _users(told: Mapping[str, tuple[str, ...]], volume: Volume | None) -> dict[str, tuple[str, ...]]:
    """Who has the volume: what the asker tells, and what the cluster says."""
    found: dict[str, tuple[str, ...]] = {}
    for labels in (told, volume.user_labels if volume is not None else {}):
        for name, values in labels.items():
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *(value for value in values if value))))
    return {name: values for name, values in found.items() if values}


def _secrets(given: SnapshotSecrets, volume: SecretRef) -> SnapshotSecrets:
    """The caller's references, and the volume's own where the caller named none."""
    return SnapshotSecrets(given.create or volume, given.delete or volume, given.inspect or volume)
