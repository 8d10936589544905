"""The cluster's CSI plugins, announced to the registry: by socket where one is on this host, else by Nomad's API.

Never both at once for one plugin: a call over the socket and one through Nomad would not see each other's lock. A
plugin that a node agent carries is announced by the hub, and here by nobody.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import pathlib
import stat
import time
from collections.abc import Callable, Iterable, Sequence

from adapters.nomad import errors, wire
from adapters.nomad.client import Client, part
from adapters.nomad.errors import AnswerError
from adapters.nomad.handles import Handles
from adapters.nomad.plugins import ApiCalls, instance_name
from bridge.model.failure import UnavailableError
from bridge.model.plugin import Capability
from bridge.ports.plugin import PluginSink

log = logging.getLogger(__name__)

_LONGEST_SOCKET_PATH = 107
"""Bytes; the kernel's limit for unix sockets."""


_AWAITED = {
    "auto": "is not reached now: its socket is not on this host, and no node agent has it",
    "socket": "is reached by its socket on this host only (route: socket), and there is none now",
    "node": "is reached by node agents only (route: node), and none has it now",
    "api": "is reached through Nomad's API only (route: api), and that is not read yet",
}
"""What a snapshot waits for that was asked for meanwhile, by the plugin's route."""


@dataclasses.dataclass(slots=True)
class _Known:
    """What is remembered of one plugin id."""

    driver: str = ""
    index: int = -1
    plugin: wire.Row = dataclasses.field(default_factory=dict)
    capabilities: frozenset[Capability] = frozenset()
    groups: set[tuple[str, str, str]] = dataclasses.field(default_factory=set)
    """(namespace, job, group) that have held controllers: a new allocation of one is a controller too."""
    next: list[wire.Row] = dataclasses.field(default_factory=list)
    """The jobs' allocations, while no controller is healthy."""
    socket: str = ""
    """The announced socket's instance name."""
    api: tuple[frozenset[Capability], str] | None = None
    """What was announced of the API route."""
    calls: ApiCalls | None = None
    carried_at: float = float("-inf")
    """When a node agent was last seen to have it, by the monotonic clock."""


class PluginFollower:
    """Keeps the registry's picture of this cluster's plugins."""

    def __init__(
        self, cluster: str, client: Client, handles: Handles, carried: Callable[[str], bool] = lambda _driver: False
    ) -> None:
        self._carried = carried
        self._cluster = cluster
        self._client = client
        self._handles = handles
        self._settings = client.settings
        self._known: dict[str, _Known] = {}
        self._bell = asyncio.Event()
        self.sentence = "the plugins are not read yet"
        """Empty when the last look was good."""
        self._clashes: dict[str, str] = {}

    def problems(self) -> Sequence[str]:
        """Plugins that are not announced though they are there, one sentence each."""
        return sorted(self._clashes.values())

    def look_now(self) -> None:
        """Something happened to a plugin: look at once."""
        self._bell.set()

    async def run(self, sink: PluginSink) -> None:
        """Look every `plugin_seconds`, or when rung, until cancelled. A new sink is told everything anew."""
        for known in self._known.values():
            known.socket, known.api = "", None
        while True:
            self._bell.clear()
            try:
                await self.look(sink)
                self.sentence = ""
            except AnswerError as error:
                self.sentence = str(errors.as_error(error, "list the plugins"))
            except UnavailableError as error:
                self.sentence = str(error)
            try:
                async with asyncio.timeout(self._settings.plugin_seconds):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def look(self, sink: PluginSink) -> None:
        """One look: the list, the plugins that changed, the sockets. AnswerError, UnavailableError."""
        rows = (await self._client.get("/v1/plugins", {"type": "csi"})).data or ()
        listed = {str(row["ID"]): row for row in rows}
        for plugin_id in [name for name in self._known if name not in listed]:
            await self._withdraw(plugin_id, sink)
            del self._known[plugin_id]
        for plugin_id, row in listed.items():
            known = self._known.setdefault(plugin_id, _Known())
            index = int(row.get("ModifyIndex") or 0)
            if known.index != index or self._between_allocations(known):
                await self._read(plugin_id, known)
        chosen = self._chosen()
        for plugin_id, known in self._known.items():
            if plugin_id in chosen:
                await self._announce(plugin_id, known, sink)
            else:
                await self._withdraw(plugin_id, sink)

    def _between_allocations(self, known: _Known) -> bool:
        """Whether the plugin may be starting anew. Nothing moves its index until Nomad calls it healthy."""
        return bool(self._settings.state_dir and known.groups and not wire.healthy_controllers(known.plugin))

    async def _read(self, plugin_id: str, known: _Known) -> None:
        try:
            answer = await self._client.get(f"/v1/plugin/csi/{part(plugin_id)}")
        except AnswerError as error:
            if error.status == 404:
                return  # it went between the list and this; the next list says so
            raise
        plugin = answer.data
        known.plugin = plugin
        known.index = int(plugin.get("ModifyIndex") or 0)
        known.driver = str(plugin.get("Provider") or known.driver)
        known.capabilities = wire.capabilities(plugin) or known.capabilities
        holders = set(wire.controller_allocations(plugin))
        for allocation in plugin.get("Allocations") or ():
            if allocation.get("ID") in holders:
                known.groups.add(_group(allocation))
        known.next = await self._next(known) if self._between_allocations(known) else []

    async def _next(self, known: _Known) -> list[wire.Row]:
        """What runs in the place of the controllers that were. A plugin's description leaves it out until Nomad has
        called it healthy, 11 s later (nomad/state/state_store.go, CSIPluginDenormalizeTxn)."""
        found: list[wire.Row] = []
        for namespace, job in sorted({(namespace, job) for namespace, job, _ in known.groups}):
            try:
                answer = await self._client.get(f"/v1/job/{part(job)}/allocations", {"namespace": namespace})
            except AnswerError:
                continue  # the job is gone, or not ours to read: then Nomad's own word is waited for
            found += answer.data or ()
        return found

    def _chosen(self) -> set[str]:
        """The plugin ids to announce: one per driver, for calls carry the driver's name only."""
        by_driver: dict[str, list[str]] = {}
        for plugin_id, known in self._known.items():
            if known.driver and self._settings.plugin(plugin_id).enabled:
                by_driver.setdefault(known.driver, []).append(plugin_id)
        chosen: set[str] = set()
        clashes: dict[str, str] = {}
        for driver, ids in by_driver.items():
            named = [name for name in ids if name in self._settings.plugins] if len(ids) > 1 else ids
            if len(named) == 1:
                chosen.add(named[0])
                continue
            clashes[driver] = (
                f"the plugins {', '.join(sorted(ids))} are all of the driver {driver!r}; none is used, because calls "
                "could reach the wrong one: name the one to use under `plugins` and disable the others"
            )
        for driver, text in clashes.items():
            if self._clashes.get(driver) != text:
                log.warning("%s", text)
        self._clashes = clashes
        return chosen

    async def _announce(self, plugin_id: str, known: _Known, sink: PluginSink) -> None:
        settings = self._settings.plugin(plugin_id)
        await sink.ensure_rules(known.driver, settings.calls.rules())
        name, awaited = (
            instance_name(self._cluster, plugin_id),
            f"Nomad's plugin {plugin_id!r} {_AWAITED[settings.route]}",
        )
        await sink.ensure_expected(name, known.driver, awaited)
        here = settings.route in ("auto", "socket") and self._settings.state_dir
        found = await self._socket(known) if here else None
        if found is not None:
            allocation, path = found
            name = f"nomad:{self._cluster}:{plugin_id}:{allocation}"
            if known.socket and known.socket != name:
                await sink.ensure_no_instance(known.socket)
            await self._withdraw_api(plugin_id, known, sink)
            known.socket = name
            await sink.ensure_socket(name, path, backend=settings.backend, node=self._node(known, allocation))
            return
        if known.socket:
            await sink.ensure_no_instance(known.socket)
            known.socket = ""
        if settings.route == "auto" and self._carried(known.driver):
            known.carried_at = time.monotonic()
        by_node = settings.route == "node" or time.monotonic() - known.carried_at <= self._settings.api_after_seconds
        if settings.route != "api" and by_node:
            await self._withdraw_api(plugin_id, known, sink)
        elif settings.route != "socket":
            await self._announce_api(plugin_id, known, sink)

    async def _announce_api(self, plugin_id: str, known: _Known, sink: PluginSink) -> None:
        if known.calls is None or known.calls.id.driver != known.driver:
            await self._withdraw_api(plugin_id, known, sink)
            known.calls = ApiCalls(
                self._cluster, self._client, self._handles, plugin_id=plugin_id, driver=known.driver
            )
        sentence = ""
        if not wire.healthy_controllers(known.plugin):
            expected = known.plugin.get("ControllersExpected") or 0
            sentence = f"Nomad's plugin {plugin_id!r} has no healthy controller ({expected} expected)"
        news = (known.capabilities, sentence)
        if known.api == news:
            return
        known.api = news
        endpoint = f"{self._settings.address}/v1/plugin/csi/{plugin_id}"
        await sink.ensure_calls(known.calls, known.capabilities, endpoint=endpoint, sentence=sentence)

    async def _withdraw_api(self, plugin_id: str, known: _Known, sink: PluginSink) -> None:
        """Take the API route back, and wait for its last call: the socket comes after that."""
        if known.api is not None:
            known.api = None
            await sink.ensure_no_instance(instance_name(self._cluster, plugin_id))
        if known.calls is not None:
            await known.calls.drain()

    async def _withdraw(self, plugin_id: str, sink: PluginSink) -> None:
        known = self._known[plugin_id]
        await sink.ensure_expected(instance_name(self._cluster, plugin_id), known.driver, "")
        if known.socket:
            await sink.ensure_no_instance(known.socket)
            known.socket = ""
        if known.api is not None:
            known.api = None
            await sink.ensure_no_instance(instance_name(self._cluster, plugin_id))

    async def _socket(self, known: _Known) -> tuple[str, str] | None:
        """(allocation, path) of a controller's socket on this host: the one in use if it is still there.

        Nomad names a controller 11 s after its allocation began; a group that held one before is trusted at once.
        """
        candidates = list(wire.controller_allocations(known.plugin))
        for allocation in (*(known.plugin.get("Allocations") or ()), *known.next):
            if _alive(allocation) and _group(allocation) in known.groups and allocation["ID"] not in candidates:
                candidates.append(str(allocation["ID"]))
        candidates.sort(key=lambda name: not known.socket.endswith(name))
        return await asyncio.to_thread(_first_socket, self._settings.state_dir, candidates)

    def _node(self, known: _Known, allocation: str) -> str:
        for row in (*(known.plugin.get("Allocations") or ()), *known.next):
            if row.get("ID") == allocation:
                return str(row.get("NodeName") or "")
        for node, info in (known.plugin.get("Controllers") or {}).items():
            if info and info.get("AllocID") == allocation:
                return str(node)
        return ""


def _alive(allocation: wire.Row) -> bool:
    return allocation.get("DesiredStatus") == "run" and allocation.get("ClientStatus") in ("pending", "running")


def _group(allocation: wire.Row) -> tuple[str, str, str]:
    return (
        str(allocation.get("Namespace") or ""),
        str(allocation.get("JobID") or ""),
        str(allocation.get("TaskGroup") or ""),
    )


def _first_socket(state_dir: str, allocations: Iterable[str]) -> tuple[str, str] | None:
    """The first of these allocations whose plugin socket is on this host. Allocation ids are unique, so its being
    here is the proof that the allocation is."""
    for allocation in allocations:
        path = pathlib.Path(state_dir) / "csi" / "plugins" / allocation / "csi.sock"
        try:
            found = stat.S_ISSOCK(path.stat().st_mode)
        except OSError:
            continue
        if len(str(path).encode()) > _LONGEST_SOCKET_PATH:
            log.warning("the socket %s is longer than %d bytes and cannot be dialled", path, _LONGEST_SOCKET_PATH)
        elif found:
            return allocation, str(path)
    return None
