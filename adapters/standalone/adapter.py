"""A cluster without an orchestrator: volumes from the config and those that restores made, requests in the book.

It is the embedded default, and the door for every orchestrator that has no adapter. It watches nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NoReturn

from adapters.standalone.settings import Settings, VolumeSettings
from bridge.model.failure import ConflictError, InvalidError, NotFoundError
from bridge.model.keys import Key
from bridge.model.secret import SecretRef
from bridge.model.volume import AccessMode, Volume, VolumeMode
from bridge.ports.ledger import Book
from bridge.ports.orchestrator import Intake, SnapshotDraft, Traits, Wake
from bridge.ports.plugin import PluginSink

KIND = "standalone"


def build(cluster: str, settings: Settings, book: Book) -> StandaloneCluster:
    """The cluster of this name. `book` keeps the volumes that restores make; it outlives this object."""
    return StandaloneCluster(cluster, settings, book)


class StandaloneVolumes:
    """The port `Volumes`: what the config names, and what the book remembers. The config's word comes first."""

    def __init__(self, cluster: str, settings: Settings, book: Book) -> None:
        self._cluster = cluster
        self._book = book
        self._configured = {(v.namespace, v.name): _volume(cluster, v) for v in settings.volumes}

    async def list(self, namespace: str = "") -> Sequence[Volume]:
        """By namespace and name."""
        known = {(v.namespace, v.name): v for v in await self._book.volumes(self._cluster)}
        known |= self._configured
        return [known[place] for place in sorted(known) if namespace in ("", place[0])]

    async def find(self, namespace: str, name: str) -> Volume:
        """See the port."""
        found = self._configured.get((namespace, name)) or await self._remembered(namespace, name)
        if found is None:
            raise NotFoundError(
                f"there is no volume {name!r} in the namespace {namespace!r} of {self._cluster}",
                hint="Name it under volumes in the cluster's config section, or list what there is.",
                field="volume",
            )
        return found

    async def register(self, volume: Volume, like: Volume | None) -> None:
        """See the port. The book remembers it as it is given; `like` adds nothing here."""
        if volume.cluster != self._cluster:
            raise InvalidError(
                f"the volume is of the cluster {volume.cluster!r}, not {self._cluster!r}", field="cluster"
            )
        taken = self._configured.get((volume.namespace, volume.name))
        if taken is None:
            await self._book.put_volume(volume)
        elif (taken.driver, taken.handle) != (volume.driver, volume.handle):
            raise ConflictError(
                f"the volume name {volume.namespace}/{volume.name} is taken by {taken.driver} handle {taken.handle}",
                hint="Choose another name.",
                field="name",
            )

    async def forget(self, namespace: str, name: str) -> Volume | None:
        """See the port. A volume of the config is removed there, by its owner."""
        configured = self._configured.get((namespace, name))
        found = configured or await self._remembered(namespace, name)
        if found is None:
            return None
        if found.users:
            raise ConflictError(
                f"the volume {namespace}/{name} is in use by {', '.join(found.users)}", field="volume"
            )
        if configured is not None:
            raise ConflictError(
                f"the volume {namespace}/{name} is named in the config",
                hint=f"Remove it from the section of the cluster {self._cluster}.",
                field="volume",
            )
        await self._book.drop_volume(self._cluster, namespace, name)
        return found

    async def _remembered(self, namespace: str, name: str) -> Volume | None:
        for volume in await self._book.volumes(self._cluster):
            if (volume.namespace, volume.name) == (namespace, name):
                return volume
        return None


class StandaloneCluster:
    """The port `Orchestrator` for a place that has none."""

    kind = KIND
    traits = Traits(durable_requests=False, creates_volumes=True)
    requests = None
    ledger = None

    def __init__(self, cluster: str, settings: Settings, book: Book) -> None:
        self._cluster = cluster
        self._plugins = tuple(settings.plugins)
        self._volumes = StandaloneVolumes(cluster, settings, book)
        self._announced = not self._plugins

    @property
    def cluster(self) -> str:
        """Its name in the config."""
        return self._cluster

    @property
    def volumes(self) -> StandaloneVolumes:
        """Its volumes."""
        return self._volumes

    async def submit(self, draft: SnapshotDraft) -> Key:
        """Never: the book keeps this cluster's requests."""
        self._refuse("submit")

    async def withdraw(self, key: Key) -> None:
        """Never: the book keeps this cluster's requests."""
        self._refuse("withdraw")

    async def abandon(self, key: Key) -> None:
        """Never: the book keeps this cluster's requests."""
        self._refuse("abandon")

    def _refuse(self, verb: str) -> NoReturn:
        raise InvalidError(f"{verb} is for clusters with requests of their own; {self._cluster} has none")

    async def in_use(self, key: Key, handle: str) -> str:
        """Nobody but our own restores uses a snapshot here, and those the service knows by itself."""
        return ""

    async def run(self, wake: Wake, intake: Intake, plugins: PluginSink) -> None:
        """Announce the sockets of the config, then wait for the end. Nothing is woken: there is nothing to watch."""
        for plugin in self._plugins:
            instance = f"{self._cluster}/{plugin.name}"
            await plugins.ensure_socket(instance, plugin.socket, backend=plugin.backend, node=plugin.node)
        self._announced = True
        try:
            await asyncio.Event().wait()
        finally:
            self._announced = not self._plugins

    def ready(self) -> str:
        """Empty once its plugins are announced. Whether they answer is the registry's to say."""
        return "" if self._announced else "its plugins are not announced yet"


def _volume(cluster: str, settings: VolumeSettings) -> Volume:
    return Volume(
        cluster=cluster,
        namespace=settings.namespace,
        name=settings.name,
        driver=settings.driver,
        handle=settings.handle,
        capacity_bytes=settings.capacity,
        mode=VolumeMode(settings.mode),
        access_modes=tuple(AccessMode[name] for name in settings.access_modes),
        fs_type=settings.fs_type,
        parameters=settings.parameters,
        context=settings.context,
        secret=SecretRef.parse(settings.secret),
        users=tuple(settings.used_by),
    )
