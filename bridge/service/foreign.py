"""Snapshots that a plugin holds and nobody has on record: the list of them, and the look at one before it is adopted.

It only reads. Nothing here, and nothing that is listed here, can be deleted before it was adopted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.model.failure import DeniedError, Failure, FailureKind, InvalidError, NotFoundError, UnavailableError
from bridge.model.outcome import Done, Failed
from bridge.model.plugin import Capability
from bridge.model.secret import NO_SECRET
from bridge.model.snapshot import CutSnapshot
from bridge.model.view import ForeignPage, ForeignSnapshot
from bridge.model.volume import Volume
from bridge.ports.identity import Caller
from bridge.ports.ledger import Book
from bridge.ports.orchestrator import SnapshotDraft
from bridge.ports.plugin import PluginCalls, Plugins, SecretMap
from bridge.service import permission
from bridge.service.lane import Lane

BAD_TOKEN = frozenset({"ABORTED", "INVALID_ARGUMENT", "OUT_OF_RANGE"})


class Foreign:
    """Asks plugins, and compares with everything that is on record anywhere."""

    def __init__(self, lanes: Mapping[str, Lane], book: Book, plugins: Plugins) -> None:
        self._lanes = lanes
        self._book = book
        self._plugins = plugins

    async def page(self, caller: Caller, driver: str, *, limit: int, token: str) -> ForeignPage:
        """One page of what the plugin of this driver holds beside what is on record. Where several clusters have
        one, it is the one that ranks first.

        NotFoundError: no such driver. UnavailableError: it does not serve, or a cluster is not read yet.
        """
        if permission.limited(caller):
            raise DeniedError(f"{caller.name} may not see what a plugin holds for others", field="driver")
        plugin = self._plugin(self._plugins, driver)
        if not self._plugins.view(driver).can(Capability.LIST_SNAPSHOTS):
            return _cannot_list(driver)
        volumes = [volume for lane in self._lanes.values() for volume in await lane.orchestrator.volumes.list()]
        mine = [volume for volume in volumes if volume.driver == driver]
        outcome = await plugin.page_snapshots(token=token, limit=limit, secrets=await self._secrets(mine))
        if isinstance(outcome, Failed):
            return _not_listed(driver, outcome.failure, token)
        return await self._compared(driver, outcome.value.items, outcome.value.next_token, mine)

    async def _compared(
        self, driver: str, items: Sequence[CutSnapshot], next_token: str, volumes: Sequence[Volume]
    ) -> ForeignPage:
        """Open creates first: one that ends while we look is then found by its handle."""
        claims = [lane.on_record(driver) for lane in self._lanes.values()]
        doubtful = await self._book.open_sources(driver)
        doubtful |= {source for claim in claims for source in claim.open_sources}
        known = await self._book.recorded(driver, [one.handle for one in items])
        known |= {handle for claim in claims for handle in claim.handles}
        unknown = [one for one in items if one.handle not in known]
        left_out = [one for one in unknown if one.source_handle in doubtful]
        message = ""
        if left_out:
            message = f"{len(left_out)} left out: their volumes have a create under way, which may be theirs"
        found = [
            ForeignSnapshot(driver, one, tuple(v for v in volumes if v.handle == one.source_handle))
            for one in unknown
            if one.source_handle not in doubtful
        ]
        return ForeignPage(tuple(found), next_token, message=message)

    async def look(self, lane: Lane, draft: SnapshotDraft) -> str:
        """Whether the handle that is to be adopted exists: empty, or a sentence saying that nobody could look.

        NotFoundError: the plugin does not have it. InvalidError: it was cut from another volume.
        UnavailableError: the plugin does not answer; nothing is booked.
        """
        driver, handle = draft.driver, draft.adopt_handle
        plugins = lane.of(self._plugins)
        view = plugins.view(driver)
        if not view.known and not view.expected:
            return ""  # whoever books it says so
        plugin = self._plugin(plugins, driver)
        volume = await lane.orchestrator.volumes.find(draft.namespace, draft.volume) if draft.volume else None
        secret = draft.secrets.inspect or (volume.secret if volume is not None else NO_SECRET)
        outcome = await plugin.inspect_snapshot(handle=handle, secrets=await lane.secrets.resolve(secret))
        if isinstance(outcome, Done):
            source = outcome.value.source_handle
            if volume is not None and source and source != volume.handle:
                raise InvalidError(
                    f"the snapshot {handle!r} was cut from {source!r}; {draft.volume!r} is {volume.handle!r}",
                    field="volume",
                    hint="name the volume that it was cut from, or none",
                )
            return ""
        if outcome.failure.code == "NOT_FOUND":
            raise NotFoundError(
                f"the plugin of driver {driver!r} has no snapshot {handle!r}",
                field="adopt_handle",
                hint=f"`snapbridge snapshot list --foreign --driver {driver}` lists what it has",
            )
        if outcome.failure.code == "UNIMPLEMENTED":
            return (
                f"nobody has looked whether {handle!r} exists: the plugin of driver {driver!r} can neither get nor "
                "list snapshots"
            )
        raise UnavailableError(
            f"the plugin of driver {driver!r} was asked for {handle!r} and did not say: {outcome.failure.message}",
            field="adopt_handle",
            hint=outcome.failure.hint or "nothing was booked; try again",
        )

    def _plugin(self, plugins: Plugins, driver: str) -> PluginCalls:
        view = plugins.view(driver)
        if not view.known and not view.expected:
            hint = "`snapbridge plugin list` shows what is known"
            raise NotFoundError(f"no plugin of driver {driver!r} is known", field="driver", hint=hint)
        plugin = plugins.controller(driver) if view.healthy else None
        if plugin is None:
            message = f"the plugin of driver {driver!r} does not serve now: {view.sentence or 'unknown reason'}"
            raise UnavailableError(message, field="driver", hint="it was not asked; try again when it is up")
        return plugin

    async def _secrets(self, volumes: Sequence[Volume]) -> SecretMap:
        """A list wants the driver's secret, which its volumes name."""
        for volume in volumes:
            if volume.secret:
                return await self._lanes[volume.cluster].secrets.resolve(volume.secret)
        return {}


def _cannot_list(driver: str) -> ForeignPage:
    message = f"the plugin of driver {driver!r} cannot list its snapshots (no LIST_SNAPSHOTS): records only"
    return ForeignPage(listable=False, message=message)


def _not_listed(driver: str, failure: Failure, token: str) -> ForeignPage:
    if failure.code == "UNIMPLEMENTED":
        return _cannot_list(driver)
    if token and failure.code in BAD_TOKEN:
        message = f"the plugin of driver {driver!r} does not take this page token: {failure.message}"
        raise InvalidError(message, field="next_token", hint="start without one")
    message = f"the plugin of driver {driver!r} did not list its snapshots: {failure.message}"
    if failure.kind is FailureKind.REFUSED:
        raise InvalidError(message, field="driver", hint=failure.hint)
    raise UnavailableError(message, field="driver", hint=failure.hint or "try again")
