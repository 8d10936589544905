"""Settings of the CSI side: deadlines, concurrency, probing. Plain values; reads no file and no environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from bridge.model.failure import InvalidError
from bridge.model.plugin import THROUGH_ORCHESTRATOR_SECONDS, CallRules, PluginView, Route

_BY_VERB: Mapping[str, float] = {
    "GetPluginInfo": 10.0,
    "GetPluginCapabilities": 10.0,
    "Probe": 5.0,
    "ControllerGetCapabilities": 10.0,
    "GroupControllerGetCapabilities": 10.0,
    "NodeGetCapabilities": 10.0,
    "NodeGetInfo": 10.0,
    "CreateSnapshot": 120.0,
    "DeleteSnapshot": 120.0,
    "CreateVolume": 300.0,
    "DeleteVolume": 120.0,
    "CreateVolumeGroupSnapshot": 300.0,
    "DeleteVolumeGroupSnapshot": 300.0,
    "GetMetadataAllocated": 3600.0,
    "GetMetadataDelta": 3600.0,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Deadlines:
    """How long one call may take, by verb. A repeat of the same call continues where the plugin is."""

    default_seconds: float = 60.0
    by_verb: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(_BY_VERB))

    def seconds(self, verb: str) -> float:
        """The deadline of this verb."""
        return self.by_verb.get(verb, self.default_seconds)


@dataclasses.dataclass(frozen=True, slots=True)
class CallSettings:
    """How calls are made on one instance."""

    deadlines: Deadlines = Deadlines()
    controller_concurrency: int = 32
    node_concurrency: int = 8
    most_handle_bytes: int = 1024
    """CSI says 128; drivers in the field (resource ids of clouds) hand out more, so a longer one is taken."""
    list_page_entries: int = 500
    most_list_pages: int = 10_000
    list_restarts: int = 3
    """How often a list whose token went stale is begun anew."""

    def __post_init__(self) -> None:
        for field in ("controller_concurrency", "node_concurrency", "list_page_entries", "most_list_pages"):
            if getattr(self, field) < 1:
                raise InvalidError(f"{field} must be 1 or more", field=field)


@dataclasses.dataclass(frozen=True, slots=True)
class RegistrySettings:
    """How instances are reached and watched."""

    calls: CallSettings = CallSettings()
    probe_interval_seconds: float = 3.0
    connect_timeout_seconds: float = 5.0
    retry_first_seconds: float = 0.1
    retry_most_seconds: float = 1.0
    watch_interval_seconds: float = 0.5
    """How often a socket file is looked at, to see whether another plugin took its place."""
    poll_first_seconds: float = 0.25
    poll_most_seconds: float = 10.0
    call_retry_first_seconds: float = 1.0
    """The pause after one failed call for a snapshot; it doubles with each further one."""
    call_retry_most_seconds: float = 300.0
    most_message_bytes: int = 64 << 20

    def under(self, rules: CallRules) -> RegistrySettings:
        """The same with one plugin's own rules in place of the defaults."""
        calls = self.calls
        deadlines = Deadlines(
            _given(rules.timeout_seconds, calls.deadlines.default_seconds),
            {**calls.deadlines.by_verb, **rules.timeouts_seconds},
        )
        concurrency = _given(rules.concurrency, calls.controller_concurrency)
        poll_first = _given(rules.poll_first_seconds, self.poll_first_seconds)
        retry_first = _given(rules.retry_first_seconds, self.call_retry_first_seconds)
        return dataclasses.replace(
            self,
            calls=dataclasses.replace(calls, deadlines=deadlines, controller_concurrency=concurrency),
            poll_first_seconds=poll_first,
            poll_most_seconds=max(_given(rules.poll_most_seconds, self.poll_most_seconds), poll_first),
            call_retry_first_seconds=retry_first,
            call_retry_most_seconds=max(_given(rules.retry_most_seconds, self.call_retry_most_seconds), retry_first),
        )


N = TypeVar("N", int, float)


def _given(value: N | None, otherwise: N) -> N:
    return otherwise if value is None else value


_SNAPSHOT_VERBS = ("CreateSnapshot", "DeleteSnapshot")
_VOLUME_VERBS = ("CreateVolume", "DeleteVolume")
_GROUP_VERBS = ("CreateVolumeGroupSnapshot", "DeleteVolumeGroupSnapshot")


def view_of(seen: PluginView, settings: RegistrySettings) -> PluginView:
    """The view with the paces that these settings give."""
    seconds = settings.calls.deadlines.seconds
    least = THROUGH_ORCHESTRATOR_SECONDS if seen.route is Route.ORCHESTRATOR else 0.0
    return dataclasses.replace(
        seen,
        poll_first_seconds=settings.poll_first_seconds,
        poll_most_seconds=settings.poll_most_seconds,
        retry_first_seconds=settings.call_retry_first_seconds,
        retry_most_seconds=settings.call_retry_most_seconds,
        concurrency=settings.calls.controller_concurrency,
        settle_seconds=max(least, *map(seconds, _SNAPSHOT_VERBS)),
        group_settle_seconds=max(map(seconds, _GROUP_VERBS)),
        volume_settle_seconds=max(least, *map(seconds, _VOLUME_VERBS)),
    )
