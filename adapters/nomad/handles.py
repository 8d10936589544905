"""Which Nomad volumes stand for which CSI volume handle. Calls carry handles; Nomad's API wants its own ids.

Kept from the volume list and asked again for a handle that is not known. Two ids may stand for one handle.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

from adapters.nomad import wire
from adapters.nomad.client import Client, part


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class VolumeId:
    """One registration."""

    namespace: str
    id: str


class Handles:
    """The map (plugin id, handle) -> registrations."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._map: dict[tuple[str, str], tuple[VolumeId, ...]] = {}
        self._reading = asyncio.Lock()

    async def of(self, plugin_id: str, handle: str, *, fresh: bool = False) -> tuple[VolumeId, ...]:
        """The registrations of this handle, in a stable order; empty when there is none.

        AnswerError, UnavailableError.
        """
        found = self._map.get((plugin_id, handle), ())
        if fresh or not found:
            await self.refresh()
            found = self._map.get((plugin_id, handle), ())
        return found

    async def refresh(self) -> Sequence[wire.Row]:
        """Read the list of all volumes that we may see; returns its rows."""
        async with self._reading:
            rows: list[wire.Row] = []
            for namespace in self._client.settings.namespaces:
                rows.extend(await list_volumes(self._client, namespace))
            found: dict[tuple[str, str], list[VolumeId]] = {}
            for row in rows:
                key = (str(row.get("PluginID") or ""), str(row.get("ExternalID") or ""))
                found.setdefault(key, []).append(VolumeId(str(row["Namespace"]), str(row["ID"])))
            self._map = {key: tuple(sorted(ids)) for key, ids in found.items() if key[1]}
            return rows


async def list_volumes(client: Client, namespace: str) -> list[wire.Row]:
    """The CSI volumes of a namespace, or of all (`*`). Never with `plugin_id`: with `*` that lists nothing."""
    answer = await client.get("/v1/volumes", {"type": "csi", "namespace": namespace})
    return list(answer.data or ())


async def read_volume(client: Client, namespace: str, volume_id: str) -> dict[str, Any]:
    """One volume's description. AnswerError 404 when there is none."""
    answer = await client.get(f"/v1/volume/csi/{part(volume_id)}", {"namespace": namespace})
    return dict(answer.data)
