"""`POST /v1/jobs/parse`: a job file in HCL becomes the API's JSON, with or without the client's defaults.

It must not know the scheduler. Blocks that our samples do not use are left out of the answer.
"""

from __future__ import annotations

from typing import Any

from tests.support.nomad import hcl, jobspec
from tests.support.nomad.blocking import duration_seconds
from tests.support.nomad.state import Row

_JOB_KEYS = (
    "Affinities", "AllAtOnce", "Constraints", "ConsulNamespace", "CreateIndex", "Datacenters",
    "DispatchIdempotencyToken", "ID", "JobModifyIndex", "Meta", "Migrate", "ModifyIndex", "Multiregion", "Name",
    "Namespace", "NodePool", "NomadTokenID", "ParameterizedJob", "ParentID", "Payload", "Periodic", "Priority",
    "Region", "Reschedule", "Spreads", "Stable", "Status", "StatusDescription", "Stop", "SubmitTime", "TaskGroups",
    "Type", "UI", "Update", "VaultNamespace", "Version", "VersionTag",
)  # fmt: skip
_GROUP_KEYS = (
    "Affinities", "Constraints", "Consul", "Disconnect", "EphemeralDisk", "MaxClientDisconnect", "MaxRunDuration",
    "Meta", "Migrate", "Name", "Networks", "PreventRescheduleOnLost", "ReschedulePolicy", "RestartPolicy", "Scaling",
    "Services", "ShutdownDelay", "Spreads", "StopAfterClientDisconnect", "Tasks", "Update", "Volumes",
)  # fmt: skip
_TASK_KEYS = (
    "Actions", "Affinities", "Artifacts", "Config", "Constraints", "Consul", "DispatchPayload", "Env", "Identities",
    "Identity", "Lifecycle", "LogConfig", "Meta", "Resources", "RestartPolicy", "ScalingPolicies", "Schedule",
    "Secrets", "Services", "Templates", "Vault", "VolumeMounts",
)  # fmt: skip
_DEFAULTS = {
    "AllAtOnce": False, "ConsulNamespace": "", "CreateIndex": 0, "JobModifyIndex": 0, "ModifyIndex": 0,
    "Namespace": "default", "NodePool": "", "NomadTokenID": "", "ParentID": "", "Priority": 50, "Region": "global",
    "Stable": False, "Status": "", "StatusDescription": "", "Stop": False, "Type": "service", "VaultNamespace": "",
    "Version": 0,
}  # fmt: skip


def parse(text: str, *, canonicalize: bool) -> Row:
    """The job of a file. Raises HclError with the text that follows `Failed to parse job: `."""
    block = hcl.parse(text).one("job")
    if block is None:
        raise hcl.HclError("'job' block not found")  # not recorded; Nomad's jobspec2
    job: Row = {**dict.fromkeys(_JOB_KEYS), "Dispatched": False, **_attributes(block, _JOB_KEYS)}
    job["ID"] = job["Name"] = block.labels[0]
    job["Meta"] = _meta(block)
    periodic, parameterized = block.one("periodic"), block.one("parameterized")
    if periodic is not None:
        job["Periodic"] = {_camel(key): value for key, value in periodic.attributes.items()}
    if parameterized is not None:
        job["ParameterizedJob"] = {_camel(key): value for key, value in parameterized.attributes.items()}
    job["TaskGroups"] = [_group(group) for group in block.of_type("group")]
    return _canonical(job) if canonicalize else job


def _camel(name: str) -> str:
    special = {"id": "ID", "cpu": "CPU", "memory": "MemoryMB", "ttl": "TTL", "aud": "Audience"}
    return special.get(name) or "".join(part.capitalize() for part in name.split("_"))


def _attributes(block: hcl.Block, keys: tuple[str, ...]) -> Row:
    found = {_camel(name): value for name, value in block.attributes.items()}
    return {key: value for key, value in found.items() if key in keys}


def _meta(block: hcl.Block) -> Row | None:
    inner = block.one("meta")
    values = inner.attributes if inner is not None else block.attributes.get("meta")
    return {key: str(value) for key, value in values.items()} if values else None


def _nanoseconds(value: Any) -> int:
    return int(duration_seconds(str(value)) * jobspec.SECOND)


def _group(block: hcl.Block) -> Row:
    group: Row = {**dict.fromkeys(_GROUP_KEYS), "Count": block.attributes.get("count", 1)}
    group.update(Name=block.labels[0], Meta=_meta(block), Tasks=[_task(task) for task in block.of_type("task")])
    volumes = {volume.labels[0]: _volume(volume) for volume in block.of_type("volume")}
    group["Volumes"] = volumes or None
    restart = block.one("restart")
    if restart is not None:
        policy = {_camel(key): value for key, value in restart.attributes.items()}
        for key in {"Interval", "Delay"} & policy.keys():
            policy[key] = _nanoseconds(policy[key])
        group["RestartPolicy"] = policy
    return group


def _volume(block: hcl.Block) -> Row:
    given = {_camel(key): value for key, value in block.attributes.items()}
    empty = {"AccessMode": "", "AttachmentMode": "", "MountOptions": None, "PerAlloc": False, "ReadOnly": False,
             "Source": "", "Sticky": False, "Type": ""}  # fmt: skip
    return {**empty, **given, "Name": block.labels[0]}


def _task(block: hcl.Block) -> Row:
    scalars = {"Kind": "", "Leader": False, "KillSignal": "", "User": "", "ShutdownDelay": 0}
    task: Row = {**dict.fromkeys(_TASK_KEYS), **scalars, "KillTimeout": None, "Name": block.labels[0]}
    task["Driver"] = block.attributes.get("driver", "")
    for name in ("leader", "user", "kill_signal"):
        if name in block.attributes:
            task[_camel(name)] = block.attributes[name]
    if "kill_timeout" in block.attributes:
        task["KillTimeout"] = _nanoseconds(block.attributes["kill_timeout"])
    config, env = block.one("config"), block.one("env")
    task["Config"] = dict(config.attributes) if config is not None else None
    task["Env"] = {key: str(value) for key, value in env.attributes.items()} if env is not None else None
    task["Meta"] = _meta(block)
    task["Actions"] = [
        {"Args": a.attributes.get("args"), "Command": a.attributes["command"], "Name": a.labels[0]}
        for a in block.of_type("action")
    ] or None
    task["VolumeMounts"] = [_mount(mount.attributes) for mount in block.of_type("volume_mount")] or None
    _nested(task, block)
    return task


def _mount(given: Row) -> Row:
    return {
        "Destination": given["destination"], "PropagationMode": None, "ReadOnly": given.get("read_only"),
        "SELinuxLabel": None, "Volume": given["volume"],
    }  # fmt: skip


def _nested(task: Row, block: hcl.Block) -> None:
    resources, lifecycle, plugin = block.one("resources"), block.one("lifecycle"), block.one("csi_plugin")
    if resources is not None:
        empty = dict.fromkeys(("CPU", "Cores", "Devices", "DiskMB", "IOPS", "MemoryMB", "MemoryMaxMB", "NUMA",
                               "Networks", "SecretsMB"))  # fmt: skip
        task["Resources"] = {**empty, **{_camel(key): value for key, value in resources.attributes.items()}}
    if lifecycle is not None:
        sidecar = lifecycle.attributes.get("sidecar", False)
        task["Lifecycle"] = {"Hook": lifecycle.attributes.get("hook", ""), "Sidecar": sidecar}
    if plugin is not None:
        task["CSIPluginConfig"] = {_camel(key): value for key, value in plugin.attributes.items()}
        if "HealthTimeout" in task["CSIPluginConfig"]:
            task["CSIPluginConfig"]["HealthTimeout"] = _nanoseconds(task["CSIPluginConfig"]["HealthTimeout"])
    for identity in block.of_type("identity"):
        given = {_camel(key): value for key, value in identity.attributes.items()}
        if "TTL" in given:
            given["TTL"] = _nanoseconds(given["TTL"])
        if given.get("Name", "default") == "default":
            task["Identity"] = given
        else:
            task["Identities"] = [*(task["Identities"] or []), given]


def _canonical(job: Row) -> Row:
    """The client library's defaults (the recorded `Canonicalize: true`)."""
    job = {**job, **{key: value for key, value in _DEFAULTS.items() if job.get(key) is None}}
    kind = job["Type"]
    job["Update"] = job["Update"] or (dict(jobspec.SERVICE_UPDATE) if kind in ("service", "system") else None)
    for group in job["TaskGroups"]:
        group["EphemeralDisk"] = group["EphemeralDisk"] or {"Migrate": False, "SizeMB": 300, "Sticky": False}
        group["RestartPolicy"] = {**jobspec.restart_policy(kind), **(group["RestartPolicy"] or {})}
        group["ReschedulePolicy"] = group["ReschedulePolicy"] or jobspec.RESCHEDULE.get(kind)
        if kind == "service":
            group["Migrate"] = group["Migrate"] or dict(jobspec.MIGRATE)
        if kind in ("service", "system"):
            group["Update"] = group["Update"] or dict(jobspec.SERVICE_UPDATE)
        for task in group["Tasks"]:
            _canonical_task(task, group["RestartPolicy"])
    return job


def _canonical_task(task: Row, restart: Row) -> None:
    task["KillTimeout"] = 5 * jobspec.SECOND if task["KillTimeout"] is None else task["KillTimeout"]
    task["LogConfig"] = {"Disabled": False, "Enabled": None, "MaxFileSizeMB": 10, "MaxFiles": 10}
    task["RestartPolicy"] = {**restart, **(task["RestartPolicy"] or {})}
    task["Resources"] = task["Resources"] or dict.fromkeys(
        ("CPU", "Cores", "Devices", "DiskMB", "IOPS", "MemoryMB", "MemoryMaxMB", "NUMA", "Networks", "SecretsMB")
    )
    defaults = {"CPU": 100, "MemoryMB": 300, "Cores": 0}
    task["Resources"].update({k: v for k, v in defaults.items() if task["Resources"].get(k) is None})
    for mount in task["VolumeMounts"] or []:
        mount.update(
            PropagationMode=mount["PropagationMode"] or "private", ReadOnly=bool(mount["ReadOnly"]), SELinuxLabel=""
        )
