"""One Nomad cluster behind the bridge's ports. Wiring only: what it does stands in the modules that it joins."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from adapters.nomad import errors, versions
from adapters.nomad.client import Client
from adapters.nomad.discovery import PluginFollower
from adapters.nomad.errors import AnswerError
from adapters.nomad.events import Event, Watcher
from adapters.nomad.handles import Handles
from adapters.nomad.hooks import Hooks
from adapters.nomad.identity import WorkloadIdentities
from adapters.nomad.jwks import Keys
from adapters.nomad.sdk import reads
from adapters.nomad.secrets import NomadSecrets
from adapters.nomad.settings import Settings
from adapters.nomad.volumes import NomadVolumes
from bridge.model.failure import InvalidError, UnavailableError
from bridge.model.keys import Key
from bridge.ports.identity import Authenticator
from bridge.ports.orchestrator import Intake, SnapshotDraft, Traits, Wake
from bridge.ports.plugin import PluginSink
from bridge.ports.secrets import Secrets

log = logging.getLogger(__name__)


def build(cluster: str, settings: Settings, *, secrets: Secrets) -> NomadOrchestrator:
    """One cluster. `secrets` resolves every scheme that the config uses; it is called when a volume is registered.

    Nothing is dialled before `run` or the first call.
    """
    return NomadOrchestrator(cluster, settings, secrets)


class NomadOrchestrator:
    """The `Orchestrator` port. Its requests and records are the service's own: Nomad keeps nothing of a snapshot."""

    def __init__(self, cluster: str, settings: Settings, secrets: Secrets) -> None:
        self._cluster = cluster
        self._settings = settings
        self._client = Client(settings)
        self._reads = reads(settings, self._client)
        self._handles = Handles(self._client)
        self._volumes = NomadVolumes(cluster, self._client, self._handles, secrets)
        self._hooks = Hooks(cluster, self._client, self._volumes)
        self._follower = PluginFollower(cluster, self._client, self._handles)
        self._watchers: list[Watcher] = []
        self._agent_sentence = "the agent has not answered yet"
        self._resync_sentence = ""
        self.version: versions.Version | None = None
        """The agent's version, where the token may read it (`agent { policy = "read" }`)."""

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
        return [*self._hooks.problems(), *self._follower.problems()]

    async def _watch(self) -> None:
        """Learn the version, then follow each namespace."""
        self.version = await self._learn_version()
        topics = versions.topics(self.version)
        self._watchers.clear()
        async with asyncio.TaskGroup() as group:
            for namespace in self._settings.namespaces:
                watcher = Watcher(
                    self._client,
                    namespace,
                    topics,
                    on_event=self._on_event,
                    resync=lambda namespace=namespace: self._hooks.resync(namespace),  # type: ignore[misc]
                )
                watcher.readable = versions.STREAM_UNREADABLE not in versions.traits(self.version)
                self._watchers.append(watcher)
                group.create_task(watcher.run(), name=f"nomad-events-{self._cluster}-{namespace}")
            group.create_task(self._resync(), name=f"nomad-resync-{self._cluster}")

    async def _learn_version(self) -> versions.Version | None:
        """The agent's version; None when the token may not know it. Waits until the agent answers."""
        failures = 0
        while True:
            try:
                version = versions.of_agent(await self._reads.agent())
            except AnswerError as error:
                log.info("the version of the agent is not known (%s); a current one is assumed", error)
                version = None
            except UnavailableError as error:
                self._agent_sentence = str(error)
                failures += 1
                most = self._settings.backoff_most_seconds
                delay = min(most, self._settings.backoff_first_seconds * 2.0 ** min(failures, 16))
                await asyncio.sleep(delay * random.uniform(0.75, 1.25))
                continue
            self._agent_sentence = ""
            return version

    async def _on_event(self, event: Event) -> None:
        if event.topic == "CSIPlugin":
            self._follower.look_now()
        await self._hooks.on_event(event)

    async def _resync(self) -> None:
        """The periodic list: what events have not told is found here."""
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            sentence = ""
            for namespace in self._settings.namespaces:
                try:
                    await self._hooks.resync(namespace)
                except AnswerError as error:
                    sentence = str(errors.as_error(error, "list the jobs"))
                except UnavailableError as error:
                    sentence = str(error)
            self._resync_sentence = sentence
