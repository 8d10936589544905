"""Nomad's jobs behind the `Workloads` port: who mounts a volume, stopping it for a while and starting it again.

Every write carries Nomad's own precondition (JobModifyIndex, EnforceIndex, EnforcePriorVersion). A job is never
purged, and an allocation is never stopped by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters.nomad import errors, wire
from adapters.nomad.client import Client, part
from adapters.nomad.decide import workloads as decide
from adapters.nomad.errors import AnswerError
from adapters.nomad.handles import read_volume
from bridge.model.failure import ConflictError, DeniedError, InvalidError, NotFoundError, UnavailableError
from bridge.model.revert import Workload, WorkloadState


class NomadWorkloads:
    """The `Workloads` port over Nomad's API."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def note(
        self, namespace: str, volumes: Sequence[str], *, mark: str, name: str = "", version: str = ""
    ) -> Workload | None:
        """See the port."""
        rows = [await self._volume(namespace, volume) for volume in volumes]
        job_id = decide.users(rows, name)
        if not job_id:
            if version:
                raise InvalidError("which job is meant is not clear: nobody claims the volume", field="workload")
            return None
        job = await self._job(namespace, job_id)
        if job is None:
            if name:
                raise NotFoundError(f"Nomad has no job {name!r} in the namespace {namespace!r}", field="workload")
            return None
        target = None
        if version:
            path = f"/v1/job/{part(job_id)}/versions"
            known = (await self._get(path, namespace, f"read the versions of {job_id!r}") or {}).get("Versions")
            target = decide.version(known or (), job_id, version)
        return decide.workload(job, volumes, mark, target)

    async def look(self, namespace: str, workload: Workload) -> WorkloadState:
        """See the port."""
        memo = decide.Memo.of(workload)
        job = await self._job(namespace, memo.job)
        path = f"/v1/job/{part(memo.job)}/allocations"
        rows = await self._get(path, namespace, f"list the allocations of {memo.job!r}") if job else ()
        return decide.state(memo, job, rows or ())

    async def pause(self, namespace: str, workload: Workload, *, again: bool) -> None:
        """See the port."""
        memo = decide.Memo.of(workload)
        job = await self._there(namespace, memo)
        index = int(job["JobModifyIndex"])
        if job.get("Stop"):
            raise ConflictError(f"the job {memo.job!r} was stopped by somebody else")
        if not again and index != memo.index:
            raise ConflictError(
                f"the job {memo.job!r} has changed since it was looked at (version {memo.version}, now "
                f"{job['Version']})",
                hint="ask again",
            )
        if memo.mode == "scale":
            (group,) = memo.groups
            await self._scale(namespace, memo, group, 0, index)
            return
        meta = {**(job.get("Meta") or {}), decide.MARK: memo.sentence}
        stopped = {key: value for key, value in job.items() if key != "VersionTag"} | {"Stop": True, "Meta": meta}
        body = {"Job": stopped, "EnforceIndex": True, "JobModifyIndex": index}
        await self._write("/v1/jobs", namespace, body, f"stop the job {memo.job!r}")

    async def resume(self, namespace: str, workload: Workload, *, back: bool) -> None:
        """See the port."""
        memo = decide.Memo.of(workload)
        job = await self._there(namespace, memo)
        if memo.mode == "scale":
            await self._scale_back(namespace, memo, job)
            return
        if not job.get("Stop"):
            return
        if (job.get("Meta") or {}).get(decide.MARK) != memo.sentence:
            raise ConflictError(f"the job {memo.job!r} was stopped by somebody else")
        version = memo.version if back or memo.target is None else memo.target
        await self._to_version(namespace, memo, version, int(job["Version"]))

    async def _scale_back(self, namespace: str, memo: decide.Memo, job: dict[str, Any]) -> None:
        ((group, count),) = memo.groups.items()
        if job.get("Stop"):
            raise ConflictError(f"the job {memo.job!r} was stopped by somebody else")
        rows = [row for row in job.get("TaskGroups") or () if row["Name"] == group]
        if not rows:
            raise ConflictError(f"the job {memo.job!r} has no group {group!r} any more")
        if rows[0].get("Count"):
            return
        try:
            await self._scale(namespace, memo, group, count, int(job["JobModifyIndex"]))
        except UnavailableError:
            # A deployment of the other groups is under way, and it may take minutes. Only our own version is
            # between, so the one before it is the same job with its counts.
            if int(job["Version"]) != memo.version + 1:
                raise
            try:
                await self._to_version(namespace, memo, memo.version, int(job["Version"]))
            except (DeniedError, ConflictError):  # no submit-job, or it has changed: wait for the deployment
                pass
            else:
                return
            raise

    async def _scale(self, namespace: str, memo: decide.Memo, group: str, count: int, index: int) -> None:
        body = {
            "Count": count,
            "Target": {"Group": group},
            "Message": memo.sentence,
            "Meta": {decide.MARK: memo.sentence},
            "JobModifyIndex": index,
        }
        path = f"/v1/job/{part(memo.job)}/scale"
        await self._write(path, namespace, body, f"scale group {group!r} of the job {memo.job!r} to {count}")

    async def _to_version(self, namespace: str, memo: decide.Memo, version: int, current: int) -> None:
        body = {"JobID": memo.job, "JobVersion": version, "EnforcePriorVersion": current}
        path = f"/v1/job/{part(memo.job)}/revert"
        await self._write(path, namespace, body, f"start version {version} of the job {memo.job!r}")

    async def _there(self, namespace: str, memo: decide.Memo) -> dict[str, Any]:
        job = await self._job(namespace, memo.job)
        if job is None or int(job["CreateIndex"]) != memo.created:
            raise ConflictError(f"the job {memo.job!r} was removed")
        return job

    async def _volume(self, namespace: str, name: str) -> dict[str, Any]:
        """A volume's row. ConflictError where Nomad hides what a new registration needs."""
        try:
            row = await read_volume(self._client, namespace, name)
        except AnswerError as error:
            raise errors.as_error(error, f"read the volume {name!r}") from None
        plugin_id = str(row.get("PluginID") or "")
        flags = (row.get("MountOptions") or {}).get("MountFlags") or ()
        if wire.REDACTED in flags and not self._client.settings.plugin(plugin_id).mount_flags:
            raise ConflictError(
                f"Nomad hides the mount flags of the volume {name!r}, so it could not be registered as it was",
                hint=f"set plugins.{plugin_id}.mount_flags in the service's config",
            )
        return row

    async def _job(self, namespace: str, job_id: str) -> dict[str, Any] | None:
        try:
            answer = await self._client.get(f"/v1/job/{part(job_id)}", {"namespace": namespace})
        except AnswerError as error:
            if error.status == 404:
                return None
            raise errors.as_error(error, f"read the job {job_id!r}") from None
        return dict(answer.data)

    async def _get(self, path: str, namespace: str, what: str) -> Any:
        try:
            return (await self._client.get(path, {"namespace": namespace})).data
        except AnswerError as error:
            raise errors.as_error(error, what) from None

    async def _write(self, path: str, namespace: str, body: dict[str, Any], what: str) -> None:
        try:
            await self._client.call("POST", path, {"namespace": namespace}, body=body)
        except AnswerError as error:
            raise errors.as_error(error, what) from None
