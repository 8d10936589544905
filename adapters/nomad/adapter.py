"""One Nomad cluster behind the bridge's ports. Wiring only: what it does stands in the modules that it joins."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence

from adapters.nomad import errors, versions
from adapters.nomad.client import Client
from adapters.nomad.discovery import PluginFollower
from adapters.nomad.errors import AnswerError
from adapters.nomad.events import Event, Watcher
from adapters.nomad.freezing import Means
from adapters.nomad.handles import Handles
from adapters.nomad.hooks import Hooks
from adapters.nomad.identity import WorkloadIdentities
from adapters.nomad.jwks import Keys
from adapters.nomad.quiesce import Quiescer
from adapters.nomad.sdk import reads
from adapters.nomad.secrets import NomadSecrets
from adapters.nomad.settings import Settings
from adapters.nomad.volumes import NomadVolumes
from adapters.nomad.workloads import NomadWorkloads
from bridge.model.failure import InvalidError, UnavailableError
from bridge.model.keys import Key
from bridge.ports.clock import Clock
from bridge.ports.identity import Authenticator
from bridge.ports.ledger import Book
from bridge.ports.orchestrator import Intake, SnapshotDraft, Traits, Wake
from bridge.ports.plugin import PluginSink
from bridge.ports.secrets import Secrets

log = logging.getLogger(__name__)


def build(
    cluster: str,
    settings: Settings,
    *,
    secrets: Secrets,
    carried: Callable[[str], bool] = lambda _driver: False,
    fence: Callable[[], str] = lambda: "",
) -> NomadOrchestrator:
    """One cluster. `secrets` resolves every scheme that the config uses; it is called when a volume is registered.
    `carried` tells whether a node agent has a healthy plugin of a driver, `fence` why nothing may be written now.

    Nothing is dialled before `run` or the first call.
    """
    return NomadOrchestrator(cluster, Client(settings, fence=fence), secrets, carried)


class NomadOrchestrator:
    """The `Orchestrator` port. Its requests and records are the service's own: Nomad keeps nothing of a snapshot."""

    def __init__(self, cluster: str, client: Client, secrets: Secrets, carried: Callable[[str], bool]) -> None:
        self._cluster = cluster
        self._settings = settings = client.settings
        self._client = client
        self._reads = reads(settings, self._client)
        self._handles = Handles(self._client)
        self._volumes = NomadVolumes(cluster, self._client, self._handles, secrets)
        self._hooks = Hooks(cluster, self._client, self._volumes)
        self._follower = PluginFollower(cluster, self._client, self._handles, carried)
        self.guard: Quiescer | None = None
        self._watchers: list[Watcher] = []
        self._agent_sentence = "the agent has not answered yet"
        self._resync_sentence = ""
        self.agent = versions.Agent()
        """What is known of the agent's version."""

    def hold_writers(self, book: Book, clock: Clock) -> None:
        """Hold writers still around each cut from now on, with notes in this book."""
        self.guard = Quiescer(Means(self._cluster, self._client, book, clock))

    @property
    def version(self) -> versions.Version | None:
        """The agent's version, where the token may read it (`agent { policy = "read" }`)."""
        return self.agent.version

    @property
    def cluster(self) -> str:
        return self._cluster

    @property
    def kind(self) -> str:
        return "nomad"

    @property
    def traits(self) -> Traits:
        return Traits(durable_requests=False, creates_volumes=True)

    @property
    def requests(self) -> None:
        return None

    @property
    def ledger(self) -> None:
        return None

    @property
    def volumes(self) -> NomadVolumes:
        return self._volumes

    @property
    def workloads(self) -> NomadWorkloads:
        """The jobs that use the volumes, for in-place reverts."""
        return NomadWorkloads(self._client)

    @property
    def secrets(self) -> NomadSecrets:
        """The resolver of `nomadVar` references on this cluster."""
        return NomadSecrets(self._client)

    def authenticators(self) -> Sequence[Authenticator]:
        """Who may call our API from inside this cluster."""
        identity = self._settings.identity
        if not identity.enabled:
            return ()
        keys = Keys(self._client, keep_seconds=identity.jwks_seconds)
        return (WorkloadIdentities(self._cluster, identity, keys, self._reads),)

    async def submit(self, draft: SnapshotDraft) -> Key:
        """Never called: `traits.durable_requests` is False."""
        raise InvalidError(f"Nomad keeps no snapshot requests; {draft.name!r} belongs in the service's own book")

    async def withdraw(self, key: Key) -> None:
        """Never called: `traits.durable_requests` is False."""
        raise InvalidError(f"Nomad keeps no snapshot requests; {key} belongs to the service's own book")

    async def abandon(self, key: Key) -> None:
        """Never called: `traits.durable_requests` is False."""
        raise InvalidError(f"Nomad keeps no snapshot requests; {key} belongs to the service's own book")

    async def in_use(self, key: Key, handle: str) -> str:
        """Nomad knows nothing of what was restored from a snapshot; a driver that does refuses the delete."""
        return ""

    async def run(self, wake: Wake, intake: Intake, plugins: PluginSink) -> None:
        """Watch until cancelled. The requests live in the book, which wakes its own keys, so `wake` is not used."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follower.run(plugins), name=f"nomad-plugins-{self._cluster}")
                if self.guard is not None:
                    group.create_task(self.guard.run(), name=f"nomad-thaw-{self._cluster}")
                if self._settings.hooks.enabled:
                    group.create_task(self._hooks.run(intake), name=f"nomad-hooks-{self._cluster}")
                    group.create_task(self._watch(), name=f"nomad-watch-{self._cluster}")
                else:
                    self._agent_sentence = ""
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connections. `run` does it at its end; only who never runs it needs this."""
        self._reads.close()
        await self._client.close()

    def ready(self) -> str:
        """See the port. A job's own mistakes are in `problems`, not here: they stop nobody else."""
        found = [self._agent_sentence, self._resync_sentence, *(w.sentence for w in self._watchers)]
        found.append(self._follower.sentence)
        sentences = list(dict.fromkeys(text for text in found if text))
        return f"Nomad cluster {self._cluster!r}: {'; '.join(sentences)}" if sentences else ""

    def problems(self) -> Sequence[str]:
        """What people should put right: job files, and plugins that cannot be used."""
        frozen = self.guard.problems() if self.guard is not None else ()
        return [*frozen, *self._hooks.problems(), *self._follower.problems(), *self._version_notes()]

    def _version_notes(self) -> Sequence[str]:
        """What this agent's version cannot do and somebody may count on."""
        concerned = [versions.Trait.TOO_OLD]
        if self._settings.identity.enabled:
            concerned.append(versions.Trait.NO_IDENTITIES)
        plugins = [self._settings.plugin(name) for name in self._settings.plugins]
        if any(one.secret and one.route != "socket" for one in plugins):
            concerned.append(versions.Trait.DELETE_WITHOUT_SECRETS)
        return [text for trait in concerned if (text := self.agent.explain(trait))]

    async def _watch(self) -> None:
        """Learn the version, then follow each namespace."""
        await self._learn_version()
        self._watchers.clear()
        async with asyncio.TaskGroup() as group:
            for namespace in self._settings.namespaces:
                watcher = Watcher(
                    self._client,
                    namespace,
                    self.agent,
                    on_event=self._on_event,
                    resync=lambda namespace=namespace: self._hooks.resync(namespace),  # type: ignore[misc]
                )
                self._watchers.append(watcher)
                group.create_task(watcher.run(), name=f"nomad-events-{self._cluster}-{namespace}")
            group.create_task(self._resync(), name=f"nomad-resync-{self._cluster}")

    async def _learn_version(self) -> None:
        """Wait until the agent answers and its version is read, or the token may not know it."""
        failures = 0
        while True:
            try:
                await self._look_at_version()
            except UnavailableError as error:
                self._agent_sentence = str(error)
                failures += 1
                most = self._settings.backoff_most_seconds
                delay = min(most, self._settings.backoff_first_seconds * 2.0 ** min(failures, 16))
                await asyncio.sleep(delay * random.uniform(0.75, 1.25))
            else:
                self._agent_sentence = ""
                return

    async def _look_at_version(self) -> None:
        """The agent may have been upgraded since. UnavailableError when it does not answer."""
        before = self.agent.version
        try:
            self.agent.version = versions.of_agent(await self._reads.agent())
        except AnswerError as error:
            self.agent.version = None
            if before is not None or self._agent_sentence:
                log.info("the version of the agent is not known (%s); a current one is assumed", error)
            return
        if self.agent.version != before:
            rows = [f"{row.what} {row.issue}".strip() for row in versions.rows(self.agent.version)]
            log.info("the agent's version is %s", self.agent.text(), extra={"differences": rows})

    async def _on_event(self, event: Event) -> None:
        if event.topic == "CSIPlugin":
            self._follower.look_now()
        await self._hooks.on_event(event)

    async def _resync(self) -> None:
        """The periodic list: what events have not told is found here."""
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            sentence = ""
            with contextlib.suppress(UnavailableError):  # the list right below says so
                await self._look_at_version()
            for namespace in self._settings.namespaces:
                try:
                    await self._hooks.resync(namespace)
                except AnswerError as error:
                    sentence = str(errors.as_error(error, "list the jobs"))
                except UnavailableError as error:
                    sentence = str(error)
            self._resync_sentence = sentence
