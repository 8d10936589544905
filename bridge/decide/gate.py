"""What forbids a plugin call now: no plugin, a sick one, one that cannot do it, or a back-off under way. Pure."""

from __future__ import annotations

from typing import Protocol

from bridge.decide import action as act
from bridge.decide import backoff
from bridge.model.failure import Failure, FailureKind
from bridge.model.plugin import Capability, PluginView


class Tried(Protocol):
    """The part of a record that counts tries."""

    @property
    def failure(self) -> Failure | None: ...

    @property
    def retry_at(self) -> float: ...


def plugin(view: PluginView, needed: Capability, what: str) -> act.Action | None:
    """What is in the way of calling this plugin for `what` ("make snapshots"), or None."""
    if not view.known and not view.expected:
        why = f"no plugin of driver {view.driver!r} is known"
        hint = "start it, or name its socket in the config"
        failure = Failure(FailureKind.REFUSED, "UNKNOWN_DRIVER", why, hint)
        return act.Wait(backoff.UNKNOWN_PLUGIN_SECONDS, "UNKNOWN_DRIVER", why, failure)
    if not view.healthy:
        why = f"the plugin of driver {view.driver!r} does not serve: {view.sentence or 'unknown reason'}"
        failure = Failure(FailureKind.REFUSED, "PLUGIN_UNHEALTHY", why)
        return act.Wait(backoff.UNKNOWN_PLUGIN_SECONDS, "PLUGIN_UNHEALTHY", why, failure)
    if not view.can(needed):
        why = f"the driver {view.driver!r} cannot {what} (no {needed.value})"
        return act.Rest("UNSUPPORTED", why, Failure(FailureKind.REFUSED, "UNSUPPORTED", why))
    return None


def is_early(record: Tried, view: PluginView, now: float) -> bool:
    """Whether a back-off is not over. One that is longer than any was written by a clock that was set back since."""
    longest = max(view.retry_most_seconds, view.poll_most_seconds)
    return now < record.retry_at <= now + longest


def wait(record: Tried, what: str, now: float) -> act.Wait:
    """The rest of a back-off. `what` is worked on ("the snapshot") where nothing failed."""
    reason = record.failure.code if record.failure else "not ready yet"
    why = str(record.failure) if record.failure else f"the backend still works on {what}"
    return act.Wait(record.retry_at - now, reason, why, record.failure)
