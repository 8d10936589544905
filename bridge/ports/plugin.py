"""Plugin calls, and the registry that finds the instance to call. gRPC stays behind this port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from bridge.model.group import CutGroup
from bridge.model.outcome import Outcome
from bridge.model.plugin import (
    NO_RULES,
    CallRules,
    Capability,
    InstanceId,
    PluginDescription,
    PluginView,
    Route,
)
from bridge.model.snapshot import CutPage, CutSnapshot
from bridge.model.volume import MadeVolume, NewVolume

SecretMap = Mapping[str, str]
"""Resolved secret values: handed to one call and forgotten."""


class PluginCalls(Protocol):
    """The calls of one instance. Each has a deadline of its own and never raises for a plugin's refusal.

    All of them may be repeated: names are deterministic and CSI calls idempotent.
    """

    @property
    def id(self) -> InstanceId: ...

    @property
    def route(self) -> Route: ...

    def under(self, fence: Callable[[], str]) -> PluginCalls:
        """The same calls, each of which asks `fence` when nothing is left to wait for before its request leaves.

        A sentence (this process may no longer act) raises ElsewhereError instead.
        """
        ...

    async def create_snapshot(
        self, *, name: str, volume_handle: str, parameters: Mapping[str, str], secrets: SecretMap
    ) -> Outcome[CutSnapshot]:
        """Cut a snapshot, or find the one that this name and volume already have.

        An answer about another source than `volume_handle` is Failed(UNSURE, "WRONG_SOURCE").
        """
        ...

    async def delete_snapshot(self, *, handle: str, secrets: SecretMap) -> Outcome[None]:
        """Remove it; a missing one is Done."""
        ...

    async def inspect_snapshot(self, *, handle: str, secrets: SecretMap) -> Outcome[CutSnapshot]:
        """GetSnapshot where announced, else ListSnapshots by id. Missing: Failed(REFUSED, "NOT_FOUND").

        A plugin that can do neither: Failed(REFUSED, "UNIMPLEMENTED").
        """
        ...

    def list_snapshots(self, *, volume_handle: str = "", secrets: SecretMap) -> AsyncIterator[Outcome[CutSnapshot]]:
        """Every snapshot that the plugin holds, all pages; a Failed ends the iteration."""
        ...

    async def page_snapshots(self, *, token: str, limit: int, secrets: SecretMap) -> Outcome[CutPage]:
        """One page of what the plugin holds, by its own token; it may take the limit for a hint.

        A token that it does not know: Failed(…, "ABORTED" or "INVALID_ARGUMENT").
        """
        ...

    async def create_group(
        self, *, name: str, volume_handles: Sequence[str], parameters: Mapping[str, str], secrets: SecretMap
    ) -> Outcome[CutGroup]:
        """Cut all volumes at one moment, or find the group that this name and these volumes already have.

        An answer about other volumes is Failed(UNSURE, "WRONG_SOURCE"). A plugin or a route without groups:
        Failed(REFUSED).
        """
        ...

    async def delete_group(self, *, handle: str, member_handles: Sequence[str], secrets: SecretMap) -> Outcome[None]:
        """Remove the group with all its members, every one of which must be named; a missing group is Done."""
        ...

    async def inspect_group(
        self, *, handle: str, member_handles: Sequence[str], secrets: SecretMap
    ) -> Outcome[CutGroup]:
        """The group and its members as they are now. Missing: Failed(REFUSED, "NOT_FOUND")."""
        ...

    async def create_volume(self, *, new: NewVolume, secrets: SecretMap) -> Outcome[MadeVolume]:
        """Make a volume, empty or from a source. A reply without the asked content source is Failed(UNSURE)."""
        ...

    async def delete_volume(self, *, handle: str, secrets: SecretMap) -> Outcome[None]:
        """Remove it; a missing one is Done."""
        ...


class Plugins(Protocol):
    """The registry, keyed (driver, role, instance)."""

    def view(self, driver: str) -> PluginView:
        """What is known of this driver's best controller instance; `known=False` when there is none."""
        ...

    def controller(self, driver: str) -> PluginCalls | None:
        """The healthy controller instance to call now, or None."""
        ...

    def describe(self) -> Sequence[PluginDescription]:
        """Every instance, healthy or not, in a stable order."""
        ...

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call `listener(driver)` when an instance of it appears, changes or goes. Returns the way to stop."""
        ...


class SocketSink(Protocol):
    """Where sockets of this host are announced."""

    async def ensure_socket(self, instance: str, path: str, *, backend: str = "", node: str = "") -> None:
        """There is a CSI socket at `path`; connect, learn its driver, keep it. Repeating changes nothing."""
        ...

    async def ensure_no_instance(self, instance: str) -> None:
        """The instance is gone; unknown ones are fine."""
        ...


class PluginSink(SocketSink, Protocol):
    """Where discovery (config, sockets, node agents, an orchestrator's API) announces instances."""

    async def ensure_socket(
        self, instance: str, path: str, *, backend: str = "", node: str = "", rules: CallRules = NO_RULES
    ) -> None:
        """There is a CSI socket at `path`; connect, learn its driver, keep it. Repeating changes nothing.

        `rules` are this instance's own; without any, its driver's count (`ensure_rules`).
        """
        ...

    async def ensure_rules(self, driver: str, rules: CallRules) -> None:
        """Call every instance of this driver by these rules, whoever announced it. Repeating changes nothing."""
        ...

    async def ensure_expected(self, name: str, driver: str, sentence: str) -> None:
        """A plugin of this driver exists, though no instance of it may be reached now.

        Requests for it are taken meanwhile, and wait; `sentence` says for what. Empty: it is expected no more. `name`
        tells who expects it. Repeating changes nothing.
        """
        ...

    async def ensure_calls(
        self,
        calls: PluginCalls,
        capabilities: frozenset[Capability],
        *,
        endpoint: str,
        sentence: str = "",
        concurrency: int = 1,
    ) -> None:
        """An instance that is reached otherwise (an orchestrator's API). An empty sentence means healthy.

        `concurrency`: how many calls it takes at once.
        """
        ...
