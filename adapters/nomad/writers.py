"""Who writes to a volume now, and how its task is held still: claims and settings, read at the moment of the cut.

It reads only; nothing is kept between two cuts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.nomad import errors
from adapters.nomad.client import Client, part
from adapters.nomad.decide import paths, quiesce_settings
from adapters.nomad.errors import AnswerError
from adapters.nomad.freezing import Target
from bridge.model.snapshot import SnapshotRequest, VolumeSource

Row = Mapping[str, Any]


@dataclasses.dataclass(slots=True)
class Wanted:
    """Whom to freeze for some volumes. `refusal`: nothing may be cut at all."""

    targets: list[Target] = dataclasses.field(default_factory=list)
    required: bool = False
    why: str = ""
    """Why the copy will be no quiesced one, as far as that is known already."""
    refusal: str = ""


class Writers:
    """Looks claims up."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def of(self, requests: Sequence[SnapshotRequest]) -> Wanted:
        """The tasks to freeze for these volumes, each once. BridgeError when they cannot be read."""
        found = Wanted()
        rows: dict[str, Row] = {}
        for request in requests:
            if "/" in request.volume:
                found.why = f"Nomad cannot be asked who uses {request.volume!r}: its id holds a slash"
            elif isinstance(request.source, VolumeSource) and request.volume:
                for allocation_id in await self._claims(request.namespace, request.volume):
                    if allocation_id not in rows:
                        rows[allocation_id] = await self._read(f"/v1/allocation/{part(allocation_id)}") or {}
        for row in rows.values():
            await self._add(row, found)
        if not found.targets and not found.why:
            found.why = "nobody uses the volume" if not rows else "no quiesce is set for what uses the volume"
        return found

    async def _claims(self, namespace: str, volume: str) -> Sequence[str]:
        """The allocations that claim the volume and run, or may run on a client that is not heard of."""
        row = await self._read(f"/v1/volume/csi/{part(volume)}", {"namespace": namespace})
        stubs = (row or {}).get("Allocations") or ()
        return [str(stub["ID"]) for stub in stubs if stub.get("ClientStatus") in ("running", "unknown")]

    async def _add(self, row: Row, found: Wanted) -> None:
        job = row.get("Job") or {}
        group = next((g for g in job.get("TaskGroups") or () if g.get("Name") == row.get("TaskGroup")), None)
        if group is None:
            return
        namespace, job_id = str(row.get("Namespace") or "default"), str(job.get("ID") or "")
        reading = quiesce_settings.read(job, group, await self._items(namespace, str(job.get("ParentID") or job_id)))
        place = f"job {job_id!r}, group {group.get('Name')!r}"
        if reading.problems:
            text = f"{place}: {'; '.join(reading.problems)}"
            if reading.required:
                found.refusal = found.refusal or text
            found.why = found.why or text
        if reading.quiesce is None:
            if not reading.problems:
                found.why = found.why or f"no quiesce is set for {place}, which uses the volume"
            return
        wish = reading.quiesce
        state = ((row.get("TaskStates") or {}).get(wish.task) or {}).get("State")
        if state != "running":
            found.why = found.why or f"task {wish.task!r} of job {job_id!r} does not run; there was nothing to freeze"
            return
        found.required = found.required or wish.required
        found.targets.append(
            Target(namespace, job_id, str(row["ID"]), wish.task, wish.freeze, wish.thaw, wish.seconds)
        )

    async def _items(self, namespace: str, job_id: str) -> Mapping[str, str]:
        """The job's settings variable; nothing where there is none, or where the token may not read it."""
        row = await self._read(f"/v1/var/{paths.settings_path(job_id)}", {"namespace": namespace}, (403, 404))
        return dict((row or {}).get("Items") or {})

    async def _read(
        self, path: str, query: Mapping[str, str] | None = None, missing: Sequence[int] = (404, 405)
    ) -> Row | None:
        try:
            data = (await self._client.get(path, query)).data
        except AnswerError as error:
            if error.status in missing:
                return None
            raise errors.as_error(error, f"read {path}") from None
        return dict(data) if isinstance(data, Mapping) else None
