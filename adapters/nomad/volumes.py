"""The cluster's volumes: Nomad's registrations. Registering and forgetting never touch data.

Nothing is forced here: a claimed volume is never deregistered, and a name that another handle has stays its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.nomad import errors, wire
from adapters.nomad.client import Client, part
from adapters.nomad.errors import AnswerError
from adapters.nomad.handles import Handles, VolumeId, read_volume
from bridge.model.failure import BridgeError, ConflictError, InvalidError, NotFoundError, UnavailableError
from bridge.model.secret import NO_SECRET, SecretRef
from bridge.model.volume import Volume
from bridge.ports.secrets import Secrets

log = logging.getLogger(__name__)

_AT_ONCE = 16


class NomadVolumes:
    """The `Volumes` port over Nomad's API."""

    def __init__(self, cluster: str, client: Client, handles: Handles, secrets: Secrets) -> None:
        self._cluster = cluster
        self._client = client
        self._handles = handles
        self._secrets = secrets
        self._seen: dict[VolumeId, tuple[int, wire.Row]] = {}

    async def list(self, namespace: str = "") -> Sequence[Volume]:
        """The volumes, with a read of each that changed since the last list (a list's row has no size)."""
        try:
            rows = await self._handles.refresh()
        except AnswerError as error:
            raise errors.as_error(error, "list the volumes") from None
        gate = asyncio.Semaphore(_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._detail(row, gate), name="nomad-volume") for row in rows]
        except* BridgeError as broken:
            raise broken.exceptions[0] from None
        details = [task.result() for task in tasks]
        present = {VolumeId(str(row["Namespace"]), str(row["ID"])) for row in details}
        self._seen = {key: value for key, value in self._seen.items() if key in present}
        found = [self._volume(row) for row in details if not namespace or row["Namespace"] == namespace]
        return sorted(found, key=lambda volume: (volume.namespace, volume.name))

    async def find(self, namespace: str, name: str) -> Volume:
        """One volume, read now."""
        self._reachable(name)
        row = await self._read(namespace, name)
        if row is None:
            raise NotFoundError(
                f"Nomad has no CSI volume {name!r} in the namespace {namespace!r}",
                hint="`nomad volume status -type csi -namespace '*'` lists them; host volumes have no snapshots",
                field="volume",
            )
        volume = self._volume(row)
        if not volume.driver:
            raise UnavailableError(
                f"Nomad does not say which driver the volume {name!r} belongs to",
                hint=f"is the plugin {row.get('PluginID')!r} running?",
            )
        return volume

    async def register(self, volume: Volume, like: Volume | None) -> None:
        """Register `volume.handle` under its name, read it again, then drop its passing registrations.

        In this order a crash leaves at worst two registrations of one handle, and a repeat ends with one.
        """
        self._reachable(volume.name)
        there = await self._read(volume.namespace, volume.name)
        if there is None:
            pattern = await self._read(like.namespace, like.name) if like is not None else None
            body = await self._body(volume, like, pattern)
            await self._put(volume, body)
            there = await self._read(volume.namespace, volume.name)
        if there is None or wire.volume_handle(there) != volume.handle:
            held = "nothing" if there is None else repr(wire.volume_handle(there))
            raise ConflictError(
                f"the volume id {volume.name!r} in {volume.namespace!r} stands for {held}, not for {volume.handle!r}",
                hint="choose another name",
                field="name",
            )
        await self._drop_passing(volume, str(there.get("PluginID") or ""))

    async def forget(self, namespace: str, name: str) -> Volume | None:
        """Deregister a free volume. Its data stays."""
        self._reachable(name)
        row = await self._read(namespace, name)
        if row is None:
            return None
        volume = self._volume(row)
        if volume.users:
            raise ConflictError(
                f"the volume {name!r} in {namespace!r} is in use: {'; '.join(volume.users)}",
                hint="stop what claims it first; a claim of an allocation in no list goes within Nomad's claim GC",
            )
        await self._deregister(VolumeId(namespace, name))
        return volume

    async def _deregister(self, volume_id: VolumeId) -> None:
        try:
            await self._client.call(
                "DELETE", f"/v1/volume/csi/{part(volume_id.id)}", {"namespace": volume_id.namespace}
            )
        except AnswerError as error:
            if errors.classify(error.status, error.text).code != "NOT_FOUND":
                raise errors.as_error(error, f"deregister the volume {volume_id.id!r}") from None

    def secret_ref(self, plugin_id: str) -> SecretRef:
        """Where the secrets of a plugin's volumes are kept; Nomad never shows those that it stores itself."""
        text = self._client.settings.plugin(plugin_id).secret
        return SecretRef.parse(text) if text else NO_SECRET

    def _volume(self, row: wire.Row) -> Volume:
        return wire.volume(self._cluster, row, self.secret_ref(str(row.get("PluginID") or "")))

    async def _detail(self, row: wire.Row, gate: asyncio.Semaphore) -> wire.Row:
        """A list's row with what only the volume's own description holds."""
        key = VolumeId(str(row["Namespace"]), str(row["ID"]))
        index = int(row.get("ModifyIndex") or 0)
        seen = self._seen.get(key)
        if seen is not None and seen[0] == index:
            return {**seen[1], **row}
        if wire.unreachable_id(key.id):
            return row
        async with gate:
            detail = await self._read(key.namespace, key.id)
        if detail is None:
            return row
        self._seen[key] = (int(detail.get("ModifyIndex") or 0), detail)
        return {**row, **detail}

    async def _read(self, namespace: str, name: str) -> dict[str, Any] | None:
        try:
            return await read_volume(self._client, namespace, name)
        except AnswerError as error:
            if error.status == 404:
                return None
            raise errors.as_error(error, f"read the volume {name!r}") from None

    async def _body(self, volume: Volume, like: Volume | None, pattern: wire.Row | None) -> dict[str, Any]:
        """The registration: the new volume's own facts, and from its source what a driver does not tell."""
        source = pattern or {}
        plugin_id = str(source.get("PluginID") or "") or await self._plugin_of(volume)
        secret = volume.secret or (like.secret if like else NO_SECRET) or self.secret_ref(plugin_id)
        alike = like is not None and (volume.access_modes, volume.mode) == (like.access_modes, like.mode)
        capabilities = source.get("RequestedCapabilities") if alike else None
        capabilities = capabilities or wire.capability_rows(volume.access_modes, volume.mode)
        body: dict[str, Any] = {
            "ID": volume.name,
            "Name": wire.fresh_name(volume.name, volume.handle),
            "Namespace": volume.namespace,
            "PluginID": plugin_id,
            "ExternalID": volume.handle,
            "RequestedCapacityMin": volume.capacity_bytes or int(source.get("Capacity") or 0),
            "RequestedCapacityMax": max(int(source.get("RequestedCapacityMax") or 0), volume.capacity_bytes or 0),
            "RequestedCapabilities": [dict(c) for c in capabilities],
            "Parameters": dict(volume.parameters or source.get("Parameters") or {}),
            # The driver's own words about one volume: never those about another one.
            "Context": dict(volume.context or (source.get("Context") if _same(volume, source) else None) or {}),
            "Secrets": dict(await self._secrets.resolve(secret)),
            "MountOptions": self._mount_options(volume, source, plugin_id),
        }
        segments = volume.accessible or wire.topologies(source)
        if segments:
            body["RequestedTopologies"] = {"Required": wire.places(segments)}
        return body

    def _mount_options(self, volume: Volume, source: Mapping[str, Any], plugin_id: str) -> dict[str, Any]:
        options = source.get("MountOptions") or {}
        flags: Sequence[str] = options.get("MountFlags") or ()
        if wire.REDACTED in flags:
            flags = self._client.settings.plugin(plugin_id).mount_flags
            if not flags:
                log.warning(
                    "the mount flags of the source of %s/%s are hidden by Nomad and were not carried over; "
                    "set plugins.%s.mount_flags", volume.namespace, volume.name, plugin_id,
                )  # fmt: skip
        return {"FSType": volume.fs_type or options.get("FSType") or "", "MountFlags": list(flags) or None}

    async def _plugin_of(self, volume: Volume) -> str:
        """The plugin id of a driver, where no source volume tells it."""
        try:
            for registered in await self._passing(volume, ""):
                row = await self._read(registered.namespace, registered.id)
                if row is not None:
                    return str(row.get("PluginID") or "")
            rows = (await self._client.get("/v1/plugins", {"type": "csi"})).data or ()
        except AnswerError as error:
            raise errors.as_error(error, f"look for the plugin of the driver {volume.driver!r}") from None
        ids = [str(row["ID"]) for row in rows if row.get("Provider") == volume.driver]
        if len(ids) != 1:
            found = f"plugins {', '.join(ids)} are" if ids else "no plugin is"
            raise InvalidError(f"{found} of the driver {volume.driver!r}; a volume needs exactly one", field="driver")
        return ids[0]

    async def _put(self, volume: Volume, body: dict[str, Any]) -> None:
        path = f"/v1/volume/csi/{part(volume.name)}"
        try:
            await self._client.call("PUT", path, {"namespace": volume.namespace}, body={"Volumes": [body]})
        except AnswerError as error:
            if errors.classify(error.status, error.text).code == "NAMESPACE_NOT_FOUND":
                # Of a create this leaves it open what was made; a registration makes nothing.
                raise InvalidError(
                    f"Nomad has no namespace {volume.namespace!r} to register the volume {volume.name!r} in",
                    hint="make the namespace, or name another one",
                    field="namespace",
                ) from None
            raise errors.as_error(error, f"register the volume {volume.name!r}") from None

    async def _passing(self, volume: Volume, plugin_id: str) -> Sequence[VolumeId]:
        """The passing registrations of a handle that Nomad's API made for us."""
        rows = await self._handles.refresh()
        return [
            VolumeId(str(row["Namespace"]), str(row["ID"]))
            for row in rows
            if row.get("ExternalID") == volume.handle
            and plugin_id in ("", row.get("PluginID"))
            and str(row["ID"]).startswith(wire.MADE_PREFIX)
            and (row["Namespace"], row["ID"]) != (volume.namespace, volume.name)
        ]

    async def _drop_passing(self, volume: Volume, plugin_id: str) -> None:
        try:
            for passing in await self._passing(volume, plugin_id):
                await self._deregister(passing)
        except AnswerError as error:
            raise errors.as_error(error, "list the volumes") from None

    def _reachable(self, name: str) -> None:
        if trouble := wire.unreachable_id(name):
            raise InvalidError(trouble, hint="register it under an id without one", field="volume")


def _same(volume: Volume, source: wire.Row) -> bool:
    """Whether this registration stands for the same volume on the backend."""
    return bool(source) and wire.volume_handle(source) == volume.handle
