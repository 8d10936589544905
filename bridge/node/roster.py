"""Which nodes there are, and what of their plugins the registry must know. Fed by the hub, one event at a time.

A node that is lost is degraded, not absent: its plugins stay in the registry with a sentence until it is forgotten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bridge.model.node import Node
from bridge.node.session import CarriedTransport, Session
from bridge.pb.snapbridge.node.v1 import node_pb2 as pb
from bridge.ports.clock import Clock
from bridge.ports.transport import TransportSink


@dataclasses.dataclass(slots=True)
class _Entry:
    session: Session
    connected: bool
    since: float
    sentence: str
    transports: dict[str, CarriedTransport] = dataclasses.field(default_factory=dict)
    """By the plugin's name on its node; those of an earlier session until the new one has listed its own."""
    drivers: dict[str, str] = dataclasses.field(default_factory=dict)
    paths: dict[str, str] = dataclasses.field(default_factory=dict)


class Roster:
    """The hub's memory of nodes."""

    def __init__(self, sink: TransportSink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def nodes(self) -> Sequence[Node]:
        """Every node that is attached, or was, by name."""
        return [
            Node(
                name=name,
                connected=entry.connected,
                version=entry.session.hello.agent_version,
                since=entry.since,
                plugins=tuple(sorted({driver for driver in entry.drivers.values() if driver})),
                labels=dict(entry.session.hello.topology),
                sentence=entry.sentence,
            )
            for name, entry in sorted(self._entries.items())
        ]

    def attach(self, session: Session) -> None:
        """A session begins; an older one of the same node is told that it is replaced."""
        before = self._entries.get(session.node)
        if before is None:
            self._entries[session.node] = _Entry(session, True, self._clock.now(), "attached")
            return
        if before.connected:
            before.session.replaced.set()
        before.session, before.connected, before.since = session, True, self._clock.now()
        before.sentence = "attached"

    async def report(self, session: Session, report: pb.PluginReport) -> None:
        """A plugin was found or changed."""
        entry = self._current(session)
        if entry is None:
            return
        name = report.instance
        session.reports[name] = report
        transport = entry.transports.get(name)
        if transport is None or transport.session is not session or transport.socket_id != report.socket_id:
            transport = entry.transports[name] = CarriedTransport(session, name, report.socket_id)
        entry.drivers[name] = report.driver
        entry.paths[name] = report.socket_path
        await self._tell(session.node, entry, name, "" if report.healthy else report.health or "it is not healthy")

    async def gone(self, session: Session, name: str) -> None:
        """A plugin of the node is gone."""
        entry = self._current(session)
        if entry is not None:
            await self._remove(session.node, entry, name)

    async def listed(self, session: Session) -> None:
        """The session has reported all it has: what an earlier one had besides is gone."""
        entry = self._current(session)
        if entry is not None:
            for name in sorted(entry.transports.keys() - session.reports.keys()):
                await self._remove(session.node, entry, name)

    async def detach(self, session: Session, reason: str) -> None:
        """The session is over. Nothing happens when a newer one has taken its place."""
        entry = self._current(session)
        if entry is None or not entry.connected:
            return
        entry.connected, entry.since, entry.sentence = False, self._clock.now(), reason
        for name in sorted(entry.transports):
            await self._tell(session.node, entry, name, f"the node {session.node} is not attached: {reason}")

    async def forget(self, older_than_seconds: float) -> None:
        """Drop the nodes that have been away for longer."""
        now = self._clock.now()
        for node, entry in list(self._entries.items()):
            if not entry.connected and now - entry.since > older_than_seconds:
                for name in sorted(entry.transports):
                    await self._remove(node, entry, name)
                del self._entries[node]

    def _current(self, session: Session) -> _Entry | None:
        entry = self._entries.get(session.node)
        return entry if entry is not None and entry.session is session else None

    async def _tell(self, node: str, entry: _Entry, name: str, sentence: str) -> None:
        endpoint = f"node:{node}{entry.paths[name]}"
        await self._sink.ensure_transport(
            instance_name(node, name), entry.transports[name], endpoint=endpoint, node=node, sentence=sentence
        )

    async def _remove(self, node: str, entry: _Entry, name: str) -> None:
        for known in (entry.transports, entry.drivers, entry.paths, entry.session.reports):
            known.pop(name, None)
        await self._sink.ensure_no_instance(instance_name(node, name))


def instance_name(node: str, name: str) -> str:
    """What the registry calls a plugin of a node."""
    return f"{node}:{name}"
