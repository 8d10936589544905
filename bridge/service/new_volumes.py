"""CreateVolume from a snapshot or a volume and its undoing, for every saga: admitted, noted, then called, under the
cluster's fence. The journal is the caller's."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bridge.decide import backoff
from bridge.model.failure import BridgeError, ElsewhereError, Failure, FailureKind, UnavailableError
from bridge.model.keys import Key
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import Route
from bridge.model.secret import SecretRef
from bridge.model.snapshot import HandleSource, VolumeSource
from bridge.model.volume import MadeVolume, NewVolume, Origin, Volume
from bridge.ports.plugin import PluginCalls
from bridge.service import work
from bridge.service.admission import Hold, Passage
from bridge.service.lane import Lane

log = logging.getLogger(__name__)

CALLED = "called"
"""Where a saga's row keeps what `Asking.note` was given last."""
TAKEN_OVER_SECONDS = 0.5

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Asking:
    """Who makes a call, and the way to its row."""

    key: Key
    """It is woken when the call that had to wait may be tried again."""
    called: str
    """What `note` wrote last; empty before the first call."""
    note: Callable[[str], Awaitable[None]]
    """Puts on record, before the call leaves, that it may be under way: whose it is, by which route, and which."""
    noted: bool = True
    """False: the journal does not say yet that the call may have taken effect, so `note` is needed in any case."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """A volume to be made."""

    name: str
    content: HandleSource | VolumeSource
    cut_from: str = ""
    """The handle of the volume that the content was cut from, where it is known."""


class NewVolumes:
    """The plugin calls. A `Hold` instead of an outcome: nothing left this process and nothing was noted."""

    def __init__(self, tools: work.Tools) -> None:
        self._tools = tools

    async def create(
        self,
        lane: Lane,
        shape: Volume,
        wanted: Wanted,
        *,
        asking: Asking,
    ) -> Outcome[MadeVolume] | Hold:
        """Make a volume of this shape."""
        try:
            secrets = await lane.secrets.resolve(shape.secret)
        except UnavailableError:
            raise  # it is tried again
        except BridgeError as error:
            return work.secret_failure(shape.secret, error)
        new = NewVolume(
            name=wanted.name,
            driver=shape.driver,
            content=wanted.content,
            required_bytes=shape.capacity_bytes or 0,
            mode=shape.mode,
            access_modes=shape.access_modes,
            fs_type=shape.fs_type,
            parameters=shape.parameters,
            secret=shape.secret,
            requisite=shape.accessible,
        )
        touched = (wanted.name, wanted.content.handle, wanted.cut_from)
        subjects = tuple(dict.fromkeys(one for one in touched if one))
        call = _Call(asking, lane, shape.driver, f"create {wanted.name}", subjects, (wanted.name,))
        outcome = await self._admitted(call, lambda plugin: plugin.create_volume(new=new, secrets=secrets))
        if isinstance(outcome, Done):
            origin = Origin(shape.cluster, shape.driver, outcome.value.handle, wanted.content, asking.key.uid)
            await self._tools.made(origin)
        return outcome

    async def delete(
        self, lane: Lane, driver: str, handle: str, secret: SecretRef, *, asking: Asking
    ) -> Outcome[None] | Hold:
        """Delete a volume that the caller made, or whose owner has said so."""
        secrets = await lane.secrets.resolve(secret)
        call = _Call(asking, lane, driver, f"delete {handle}", (handle,), (handle,))
        return await self._admitted(call, lambda plugin: plugin.delete_volume(handle=handle, secrets=secrets))

    async def _admitted(self, call: _Call, send: Callable[[PluginCalls], Awaitable[Outcome[T]]]) -> Outcome[T] | Hold:
        tools, asking = self._tools, call.asking
        # Chosen after the secrets: while they were looked up, another route may have taken over.
        plugin = call.lane.calls(tools.plugins, call.driver)
        if plugin is None:
            return Failed(_no_plugin(call.driver))
        view, route = call.lane.of(tools.plugins).view(call.driver), plugin.route
        passage = Passage(asking.key, view, route, call.subjects, view.volume_settle_seconds, call.contended)
        self._remind(call, passage)
        if (held := tools.admission.hold(passage, tools.clock.now())) is not None:
            return held
        # The place is taken before the note is written: nobody else calls for these volumes meanwhile.
        with tools.admission.inside(passage, tools.clock.now) as told:
            unsent = work.refused("NOT_SENT", "the call was not made")
            try:
                noted = await self._noted(call, route)
                plugin = call.lane.calls(tools.plugins, call.driver)
            except BaseException:
                told(unsent)
                raise
            if not noted:
                told(unsent)
                return Hold(backoff.retry_delay(2), "NOT_NOTED")
            if plugin is None or plugin.route is not route:
                told(unsent)
                why = f"the plugin of driver {call.driver!r} is being reached another way"
                return Hold(TAKEN_OVER_SECONDS, "PLUGIN_UNHEALTHY", why)
            outcome = await send(plugin)
            told(outcome)
        return outcome

    def _remind(self, call: _Call, passage: Passage) -> None:
        """What this row's last call was, if an earlier process made it and this one is its repeat."""
        writer, _, rest = call.asking.called.partition(" ")
        route, _, what = rest.partition(" ")
        if what == call.what and writer != self._tools.writer:
            work.remind(self._tools, passage, Route(route))

    async def _noted(self, call: _Call, route: Route) -> bool:
        """Whether it is on record that the call may be under way. Without that it may not leave."""
        called = f"{self._tools.writer} {route.value} {call.what}"
        if call.asking.noted and called == call.asking.called:
            return True
        try:
            await call.asking.note(called)
        except BridgeError as error:
            log.warning("a call could not be noted and was not made: %s", error, extra={"key": str(call.asking.key)})
            return False
        return True


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """One call to be made. `what` tells it from the other calls of its row."""

    asking: Asking
    lane: Lane
    driver: str
    what: str
    subjects: tuple[str, ...]
    contended: tuple[str, ...]


async def source_of(lane: Lane, key: Key) -> str:
    """The handle of the volume that this snapshot was cut from; empty where the record does not tell."""
    record = await lane.ledger.load(key)
    return record.source.handle if record is not None and isinstance(record.source, VolumeSource) else ""


def ask_fence(lane: Lane, driver: str) -> None:
    """Right before an effect: ElsewhereError when this process may no longer act; the step is tried again later."""
    if reason := lane.fence(driver):
        raise ElsewhereError(reason)


def _no_plugin(driver: str) -> Failure:
    """The failure of a call that nobody can answer now."""
    return Failure(FailureKind.UNSURE, "PLUGIN_UNHEALTHY", f"no plugin of driver {driver!r} serves")
