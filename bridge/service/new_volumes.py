"""CreateVolume from a snapshot or a volume and its undoing, for every saga. The journal is the caller's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bridge.model.failure import BridgeError, ElsewhereError, Failure, FailureKind, UnavailableError
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.secret import SecretRef
from bridge.model.snapshot import HandleSource, VolumeSource
from bridge.model.volume import MadeVolume, NewVolume, Origin, Volume
from bridge.ports.plugin import Plugins
from bridge.service import work
from bridge.service.lane import Lane


class NewVolumes:
    """The plugin calls, under the cluster's fence. `made` is told of each new volume, before anybody can have it."""

    def __init__(self, plugins: Plugins, made: work.Made = work.remember_nothing) -> None:
        self._plugins = plugins
        self._made = made

    async def create(
        self,
        lane: Lane,
        shape: Volume,
        name: str,
        content: HandleSource | VolumeSource,
        *,
        operation: str = "",
        note: Callable[[], Awaitable[None]] | None,
    ) -> Outcome[MadeVolume]:
        """Make a volume of this shape. `note` puts "it may have been made" on record before the call leaves."""
        plugin = lane.calls(self._plugins, shape.driver)
        if plugin is None:
            return Failed(_no_plugin(shape.driver))
        try:
            secrets = await lane.secrets.resolve(shape.secret)
        except UnavailableError:
            raise  # it is tried again
        except BridgeError as error:
            return work.secret_failure(shape.secret, error)
        new = NewVolume(
            name=name,
            driver=shape.driver,
            content=content,
            required_bytes=shape.capacity_bytes or 0,
            mode=shape.mode,
            access_modes=shape.access_modes,
            fs_type=shape.fs_type,
            parameters=shape.parameters,
            secret=shape.secret,
            requisite=shape.accessible,
        )
        ask_fence(lane, shape.driver)
        if note is not None:
            await note()
        outcome = await plugin.create_volume(new=new, secrets=secrets)
        if isinstance(outcome, Done):
            await self._made(Origin(shape.cluster, shape.driver, outcome.value.handle, content, operation))
        return outcome

    async def delete(self, lane: Lane, driver: str, handle: str, secret: SecretRef) -> Outcome[None]:
        """Delete a volume that the caller made, or whose owner has said so."""
        plugin = lane.calls(self._plugins, driver)
        if plugin is None:
            return Failed(_no_plugin(driver))
        secrets = await lane.secrets.resolve(secret)
        return await plugin.delete_volume(handle=handle, secrets=secrets)


def ask_fence(lane: Lane, driver: str) -> None:
    """Right before an effect: ElsewhereError when this process may no longer act; the step is tried again later."""
    if reason := lane.fence(driver):
        raise ElsewhereError(reason)


def _no_plugin(driver: str) -> Failure:
    """The failure of a call that nobody can answer now."""
    return Failure(FailureKind.UNSURE, "PLUGIN_UNHEALTHY", f"no plugin of driver {driver!r} serves")
