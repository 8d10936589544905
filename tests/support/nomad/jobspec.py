"""The forms of a job on the wire: what a user may leave out, and what the server answers.

It must not schedule anything. The defaults are those of the recorded answers (jobs.json, acl.json).
"""

from __future__ import annotations

import copy
from typing import Any

from tests.support.nomad.state import Row

SECOND = 1_000_000_000
ZERO_UPDATE = {
    "AutoPromote": False, "AutoRevert": False, "Canary": 0, "HealthCheck": "", "HealthyDeadline": 0, "MaxParallel": 0,
    "MinHealthyTime": 0, "ProgressDeadline": 0, "Stagger": 0,
}  # fmt: skip
SERVICE_UPDATE = {
    "AutoPromote": False, "AutoRevert": False, "Canary": 0, "HealthCheck": "checks",
    "HealthyDeadline": 300 * SECOND, "MaxParallel": 1, "MinHealthyTime": 10 * SECOND,
    "ProgressDeadline": 600 * SECOND, "Stagger": 30 * SECOND,
}  # fmt: skip
MIGRATE = {
    "HealthCheck": "checks", "HealthyDeadline": 300 * SECOND, "MaxParallel": 1, "MinHealthyTime": 10 * SECOND,
}  # fmt: skip
RESCHEDULE = {
    "service": {"Attempts": 0, "Delay": 30 * SECOND, "DelayFunction": "exponential", "Interval": 0,
                "MaxDelay": 3600 * SECOND, "Unlimited": True},
    "batch": {"Attempts": 1, "Delay": 5 * SECOND, "DelayFunction": "constant", "Interval": 86400 * SECOND,
              "MaxDelay": 0, "Unlimited": False},
}  # fmt: skip
DEFAULT_IDENTITY = {
    "Audience": ["nomadproject.io"], "ChangeMode": "", "ChangeSignal": "", "Env": False, "ExtraClaims": None,
    "File": False, "Filepath": "", "Name": "default", "ServiceName": "", "TTL": 0,
}  # fmt: skip
_JOB = {
    "Affinities": None, "AllAtOnce": False, "Constraints": None, "ConsulNamespace": "", "CreateIndex": 0,
    "Datacenters": ["*"], "DispatchIdempotencyToken": "", "Dispatched": False, "ID": "", "JobModifyIndex": 0,
    "Meta": None, "ModifyIndex": 0, "Multiregion": None, "Name": "", "Namespace": "default", "NodePool": "default",
    "NomadTokenID": "", "ParameterizedJob": None, "ParentID": "", "Payload": None, "Periodic": None, "Priority": 50,
    "Region": "global", "Spreads": None, "Stable": False, "Status": "", "StatusDescription": "", "Stop": False,
    "SubmitTime": 0, "TaskGroups": None, "Type": "service", "UI": None, "Update": None, "VaultNamespace": "",
    "Version": 0, "VersionTag": None,
}  # fmt: skip
_GROUP = {
    "Affinities": None, "Constraints": None, "Consul": None, "Count": 1, "Disconnect": None,
    "EphemeralDisk": {"Migrate": False, "SizeMB": 300, "Sticky": False}, "MaxClientDisconnect": None,
    "MaxRunDuration": None, "Meta": None, "Migrate": None, "Name": "", "Networks": None,
    "PreventRescheduleOnLost": False, "ReschedulePolicy": None, "RestartPolicy": None, "Scaling": None,
    "Services": None, "ShutdownDelay": None, "Spreads": None, "StopAfterClientDisconnect": None, "Tasks": None,
    "Update": None, "Volumes": None,
}  # fmt: skip
_TASK = {
    "Actions": None, "Affinities": None, "Artifacts": None, "CSIPluginConfig": None, "Config": None,
    "Constraints": None, "Consul": None, "DispatchPayload": None, "Driver": "", "Env": None, "Identities": None,
    "Identity": DEFAULT_IDENTITY, "KillSignal": "", "KillTimeout": 5 * SECOND, "Kind": "", "Leader": False,
    "Lifecycle": None, "LogConfig": {"Disabled": False, "MaxFileSizeMB": 10, "MaxFiles": 10}, "Meta": None,
    "Name": "", "Resources": None, "RestartPolicy": None, "ScalingPolicies": None, "Schedule": None, "Secrets": None,
    "Services": None, "ShutdownDelay": 0, "Templates": None, "User": "", "Vault": None, "VolumeMounts": None,
}  # fmt: skip
_RESOURCES = {
    "CPU": 100, "Cores": 0, "Devices": None, "DiskMB": 0, "IOPS": 0, "MemoryMB": 300, "MemoryMaxMB": 0, "NUMA": None,
    "Networks": None, "SecretsMB": 0,
}  # fmt: skip
_VOLUME = {
    "AccessMode": "", "AttachmentMode": "", "MountOptions": None, "Name": "", "PerAlloc": False, "ReadOnly": False,
    "Source": "", "Sticky": False, "Type": "",
}  # fmt: skip
_MOUNT = {"Destination": "", "PropagationMode": "private", "ReadOnly": False, "SELinuxLabel": "", "Volume": ""}
_CSI_PLUGIN = {
    "HealthTimeout": 30 * SECOND, "ID": "", "MountDir": "/csi", "StagePublishBaseDir": "/local/csi", "Type": "",
}  # fmt: skip


def restart_policy(kind: str) -> Row:
    """The default restart block of a service, system or batch job."""
    batch = kind in ("batch", "sysbatch")
    return {
        "Attempts": 3 if batch else 2, "Delay": 15 * SECOND, "Interval": (86400 if batch else 1800) * SECOND,
        "Mode": "fail", "RenderTemplates": False,
    }  # fmt: skip


def _over(defaults: Row, given: Row | None) -> Row:
    """The defaults with the given values; unknown keys and nulls are dropped, as Go's decoder and Canonicalize do."""
    row = copy.deepcopy(defaults)
    names = {key.lower(): key for key in row}
    for key, value in (given or {}).items():
        known = names.get(key.lower())
        if known is not None and value is not None:
            row[known] = copy.deepcopy(value)
    return row


def canonical(given: Row) -> Row:
    """The server's form of a submitted job."""
    job = _over(_JOB, given)
    kind = job["Type"]
    job["Name"] = job["Name"] or job["ID"]
    job["NodePool"] = job["NodePool"] or "default"
    job["DispatchIdempotencyToken"] = given.get("DispatchIdempotencyToken") or ""
    if job["ParameterizedJob"]:
        # The given keys, in Nomad's order and with its nulls.
        wanted = job["ParameterizedJob"]
        job["ParameterizedJob"] = {
            "MetaOptional": wanted.get("MetaOptional"), "MetaRequired": wanted.get("MetaRequired"),
            "Payload": wanted.get("Payload", "optional"),
        }  # fmt: skip
    if job["Periodic"]:
        job["Periodic"] = _over(
            {
                "Enabled": True,
                "ProhibitOverlap": False,
                "Spec": "",
                "SpecType": "cron",
                "Specs": None,
                "TimeZone": "UTC",
            },
            job["Periodic"],
        )
    # The job's own update block keeps only these two once the groups have theirs.
    job["Update"] = dict(ZERO_UPDATE)
    if kind in ("service", "system"):
        job["Update"].update(MaxParallel=1, Stagger=30 * SECOND)
    job["TaskGroups"] = [_group(group, kind, given.get("Update")) for group in given.get("TaskGroups") or []] or None
    return job


def _group(given: Row, kind: str, job_update: Row | None) -> Row:
    group = _over(_GROUP, given)
    group["EphemeralDisk"] = _over(_GROUP["EphemeralDisk"], given.get("EphemeralDisk"))  # type: ignore[arg-type]
    group["RestartPolicy"] = _over(restart_policy(kind), given.get("RestartPolicy"))
    if kind in RESCHEDULE:
        group["ReschedulePolicy"] = _over(RESCHEDULE[kind], given.get("ReschedulePolicy"))
    if kind == "service":
        group["Migrate"] = _over(MIGRATE, given.get("Migrate"))
    if kind in ("service", "system"):
        group["Update"] = _over({**SERVICE_UPDATE, **(job_update or {})}, given.get("Update"))
    if given.get("Volumes"):
        group["Volumes"] = {
            alias: {**_over(_VOLUME, volume), "Name": volume.get("Name") or alias}
            for alias, volume in given["Volumes"].items()
        }
    group["Tasks"] = [_task(task, kind, group["RestartPolicy"]) for task in given.get("Tasks") or []]
    return group


def _task(given: Row, kind: str, restart: Row) -> Row:
    task = _over(_TASK, given)
    task["Resources"] = _over(_RESOURCES, given.get("Resources"))
    task["RestartPolicy"] = _over(restart, given.get("RestartPolicy"))
    task["LogConfig"] = _over(_TASK["LogConfig"], given.get("LogConfig"))  # type: ignore[arg-type]
    task["Identity"] = _over(DEFAULT_IDENTITY, given.get("Identity"))
    task["Identity"]["Name"] = "default"
    if given.get("Identities"):
        empty = {**DEFAULT_IDENTITY, "Audience": None, "Name": ""}
        task["Identities"] = [_over(empty, identity) for identity in given["Identities"]]
    if given.get("VolumeMounts"):
        task["VolumeMounts"] = [_over(_MOUNT, mount) for mount in given["VolumeMounts"]]
    if given.get("CSIPluginConfig"):
        task["CSIPluginConfig"] = _over(_CSI_PLUGIN, given["CSIPluginConfig"])
    return task


def same_work(left: Row, right: Row) -> bool:
    """Whether two versions differ in nothing that replaces allocations. A meta edit does (nomad-verified.md G)."""
    return _work(left) == _work(right)


def _work(job: Row) -> Any:
    bookkeeping = {"CreateIndex", "JobModifyIndex", "ModifyIndex", "Stable", "Status", "StatusDescription", "Stop",
                   "SubmitTime", "Version", "VersionTag", "TaskGroups"}  # fmt: skip
    head = {key: value for key, value in job.items() if key not in bookkeeping}
    groups = [{key: value for key, value in group.items() if key != "Count"} for group in job["TaskGroups"]]
    return head, groups


def list_stub(job: Row, summary: Row, *, meta: bool) -> Row:
    """The row of `GET /v1/jobs`; meta only when it was asked for and is not empty."""
    keys = (
        "CreateIndex", "Datacenters", "ID", "JobModifyIndex", "ModifyIndex", "Multiregion", "Name", "Namespace",
        "NodePool", "ParentID", "Priority", "Status", "StatusDescription", "Stop", "SubmitTime", "Type",
    )  # fmt: skip
    row = {key: copy.deepcopy(job[key]) for key in keys}
    row["JobSummary"] = summary
    row["ParameterizedJob"] = job["ParameterizedJob"] is not None and not job["Dispatched"]
    row["Periodic"] = job["Periodic"] is not None
    if meta and job["Meta"]:
        row["Meta"] = dict(job["Meta"])
    return row


def problems(given: Row) -> list[str]:
    """What Nomad's validation says of a job; only what the recordings and our adapter need."""
    found = []
    if not given.get("TaskGroups"):
        found.append("Missing job task groups")
    if not given.get("ID"):
        found.append("Missing job ID")  # not recorded; Nomad's Job.Validate
    return found
