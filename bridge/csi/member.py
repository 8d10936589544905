"""One supervised instance: connect, fingerprint once per connection, then probe. Degraded, never absent.

Whatever a plugin or a file system does becomes a sentence here; `run` ends only by being cancelled.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import Protocol

from bridge.csi import fingerprint, methods
from bridge.csi.client import Client
from bridge.csi.fingerprint import Fingerprint, NotTakenError
from bridge.csi.instance import Instance
from bridge.csi.settings import RegistrySettings
from bridge.csi.trace import Tracer
from bridge.model.outcome import Failed
from bridge.model.plugin import NO_RULES, CallRules, Capability, InstanceId, PluginDescription, Role, Route
from bridge.pb.csi.v1 import csi_pb2 as pb
from bridge.ports.clock import Clock
from bridge.ports.transport import Carriage, Transport

log = logging.getLogger(__name__)

_IDENTITY = "identity"
"""The role under which calls of the Identity service appear in traces."""
_LATE = "the plugin does not answer Probe: see its log, restart it if it hangs"


class Link(Protocol):
    """The way to one plugin."""

    endpoint: str

    @property
    def route(self) -> Route: ...

    @property
    def transport(self) -> Transport: ...

    @property
    def epoch(self) -> str: ...

    async def connect(self) -> str:
        """Be connected, or return a sentence that says why not."""
        ...

    async def lost(self) -> None:
        """Return when what `connect` made is over."""
        ...

    async def pause(self, seconds: float) -> None:
        """Wait before another `connect`."""
        ...

    async def close(self) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What every member shares."""

    settings: RegistrySettings
    clock: Clock
    tracer: Tracer
    changed: Callable[[frozenset[str]], None]
    """Called with the drivers whose members changed."""
    settings_of: Callable[[str, CallRules], RegistrySettings]
    """The settings that count for a member of this driver with these rules of its own."""


NOT_YET = "it has not answered yet"


class Member:
    """Keeps one instance. Its public attributes are for reading."""

    concurrency = 0
    """As its settings say."""

    def __init__(
        self,
        name: str,
        link: Link,
        setting: Setting,
        *,
        backend: str = "",
        node: str = "",
        rules: CallRules = NO_RULES,
    ) -> None:
        self.name = name
        self.link = link
        self.backend = backend
        self.node = node
        self.rules = rules
        self.cluster = ""
        """Whose plugin it is; empty for one that all share."""
        self.healthy = False
        self.sentence = NOT_YET
        self.known: Fingerprint | None = None
        self.instances: dict[Role, Instance] = {}
        self._setting = setting
        self._connections = 0
        self._connected = False

    @property
    def driver(self) -> str:
        """The driver's name; empty until the plugin told it."""
        return self.known.driver if self.known else ""

    @property
    def controller(self) -> Instance | None:
        """The instance's controller calls, healthy or not."""
        return self.instances.get(Role.CONTROLLER)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the plugin announced at the last connection."""
        return self.known.capabilities if self.known else frozenset()

    def carriage(self) -> Carriage | None:
        """The raw way to the plugin, while it is connected."""
        return Carriage(self.link.transport, self.epoch) if self._connected else None

    @property
    def epoch(self) -> str:
        """Another one for each connection."""
        return f"{self.link.epoch}.{self._connections}"

    def rows(self) -> list[PluginDescription]:
        """One row per role; one without a role for a plugin that has not told any."""
        known = self.known or Fingerprint("")
        roles: list[Role | None] = [role for role in Role if role in self.instances]
        return [
            PluginDescription(
                id=InstanceId(known.driver, role.value if role else "", self.name),
                route=self.link.route,
                endpoint=self.link.endpoint,
                healthy=self.healthy,
                sentence=self.sentence,
                vendor_version=known.vendor_version,
                node=self.node,
                capabilities=known.capabilities,
                in_flight=self.instances[role].in_flight if role else 0,
                backend=self.backend,
            )
            for role in (roles or [None])
        ]

    async def run(self) -> None:
        """Supervise until cancelled."""
        settings = self._setting.settings
        pause = settings.retry_first_seconds
        try:
            while True:
                connections = self._connections
                try:
                    self._become(healthy=False, sentence=await self._attempt())
                except NotTakenError as error:
                    self._become(healthy=False, sentence=str(error))
                except Exception as error:
                    log.exception("the supervision of a plugin failed", extra={"instance": self.name})
                    self._become(healthy=False, sentence=f"an internal error: {error!r}; see the log")
                if self._connections != connections:
                    pause = settings.retry_first_seconds
                await self.link.pause(pause)
                pause = min(pause * 2, settings.retry_most_seconds)
        finally:
            self._connected = False
            await self.link.close()

    async def _attempt(self) -> str:
        """One connection, from its start to its end; returns why it is over."""
        sentence = await self.link.connect()
        if sentence:
            return sentence
        self._connected = True
        attend = asyncio.create_task(self._attend(), name=f"csi-attend:{self.name}")
        lost = asyncio.create_task(self.link.lost(), name=f"csi-lost:{self.name}")
        try:
            done, _ = await asyncio.wait({attend, lost}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._connected = False
            attend.cancel()
            lost.cancel()
            await asyncio.wait({attend, lost})
        return f"the connection to {self.link.endpoint} was lost; connecting again"

    async def _attend(self) -> None:
        """Learn what the plugin is, then watch its health."""
        settings = self._setting.settings
        client = self._client(_IDENTITY, settings.calls.controller_concurrency)
        known = await fingerprint.name(client)
        client.id = InstanceId(known.driver, _IDENTITY, self.name)
        if self.known is None:
            self._adopt(known)
        while sentence := await _probe(client):
            self._become(healthy=False, sentence=sentence)
            await self._setting.clock.sleep(settings.retry_most_seconds)
        self._adopt(await fingerprint.complete(client, known))
        self._connections += 1
        late = False
        while True:
            self._become(healthy=not sentence, sentence=sentence or f"at {self.link.endpoint}")
            await self._setting.clock.sleep(settings.probe_interval_seconds)
            sentence, was_late = await _probe(client), late
            late = sentence == _LATE
            if late and self.healthy and not was_late:
                sentence = ""  # one late answer is a busy plugin, two in a row are one that hangs

    def _adopt(self, known: Fingerprint) -> None:
        before = self.known
        if known == before:
            return
        self.known = known
        self.retune()
        self._setting.changed(frozenset({known.driver, before.driver if before else ""}))

    def retune(self) -> None:
        """Make the callers anew, by the settings that count now. Calls under way end as they began."""
        known = self.known
        if known is None:
            return
        calls = self._setting.settings_of(self.driver, self.rules).calls
        most = {Role.CONTROLLER: calls.controller_concurrency, Role.NODE: calls.node_concurrency}
        self.instances = {
            role: Instance(
                self._client(role.value, most[role]), route=self.link.route, capabilities=known.capabilities
            )
            for role in known.roles
        }

    def _client(self, role: str, concurrency: int) -> Client:
        setting = self._setting
        calls = setting.settings_of(self.driver, self.rules).calls
        id = InstanceId(self.driver, role, self.name)
        return Client(id, self.link.transport, setting.tracer, calls, concurrency=concurrency)

    def _become(self, *, healthy: bool, sentence: str) -> None:
        if (healthy, sentence) == (self.healthy, self.sentence):
            return
        turned = healthy is not self.healthy
        self.healthy, self.sentence = healthy, sentence
        fields = {"driver": self.driver, "instance": self.name, "healthy": healthy, "sentence": sentence}
        log.log(logging.INFO if turned else logging.DEBUG, "a plugin's health changed", extra=fields)
        self._setting.changed(frozenset({self.driver}))


async def _probe(client: Client) -> str:
    """Empty when the plugin is ready; else a sentence."""
    outcome = await client.unary(methods.PROBE, pb.ProbeRequest())
    if isinstance(outcome, Failed):
        failure = outcome.failure
        if failure.code == "DEADLINE_EXCEEDED":
            return _LATE
        return f"the plugin's Probe fails: {failure.message} ({failure.code})"
    if outcome.value.HasField("ready") and not outcome.value.ready.value:
        return "the plugin is starting: its Probe says that it is not ready yet"
    return ""
