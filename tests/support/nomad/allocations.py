"""How an allocation looks from outside: the stub of lists, the full form, the event payload; and its endpoints.

It must not move an allocation on: runner.py does.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.support.nomad import acl, blocking
from tests.support.nomad.answers import Refusal, answer, invalid_method, read_headers
from tests.support.nomad.state import Allocation, Row, State, now_ns, stamp

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

_UUID_LENGTH = 36
_NO_TRANSITION = {
    "ForceReschedule": None, "Migrate": None, "MigrateDisablePlacement": None, "NoShutdownDelay": None,
    "Reschedule": None,
}  # fmt: skip
_EMPTY_EVENT = {
    "Details": {}, "DiskLimit": 0, "DisplayMessage": "", "DownloadError": "", "DriverError": "", "DriverMessage": "",
    "ExitCode": 0, "FailedSibling": "", "FailsTask": False, "GenericSource": "", "KillError": "", "KillReason": "",
    "KillTimeout": 0, "Message": "", "RestartReason": "", "SetupError": "", "Signal": 0, "StartDelay": 0,
    "TaskSignal": "", "TaskSignalReason": "", "Time": 0, "Type": "", "ValidationError": "", "VaultError": "",
}  # fmt: skip


def new_task() -> Row:
    return {
        "Events": [], "Failed": False, "FinishedAt": None, "LastRestart": None, "Paused": "", "Restarts": 0,
        "StartedAt": None, "State": "pending",
    }  # fmt: skip


def add_event(task: Row, kind: str, message: str, **fields: Any) -> None:
    """Add a task event; fields are those of Nomad's TaskEvent."""
    task["Events"].append(
        {**copy.deepcopy(_EMPTY_EVENT), "DisplayMessage": message, "Type": kind, "Time": now_ns(), **fields}
    )


def stub(allocation: Allocation, state: State, *, task_states: bool = True) -> Row:
    """The form of list answers, of a volume's `Allocations` and of a plugin's."""
    row: Row = {
        "ClientDescription": allocation.client_description, "ClientStatus": allocation.client,
        "CreateIndex": allocation.create_index, "CreateTime": allocation.create_time,
        "DeploymentStatus": copy.deepcopy(allocation.health), "DesiredDescription": allocation.desired_description,
        "DesiredStatus": allocation.desired, "DesiredTransition": dict(_NO_TRANSITION),
        "EvalID": allocation.eval_id, "FollowupEvalID": "", "ID": allocation.id, "JobID": allocation.job["ID"],
        "JobType": allocation.job["Type"], "JobVersion": allocation.job["Version"],
        "ModifyIndex": allocation.modify_index, "ModifyTime": allocation.modify_time, "Name": allocation.name,
        "Namespace": allocation.namespace, "NextAllocation": allocation.next, "NodeID": allocation.node_id,
        "NodeName": state.node_name, "PreemptedAllocations": None, "PreemptedByAllocation": "",
        "RescheduleTracker": None, "TaskGroup": allocation.group,
        "TaskStates": copy.deepcopy(allocation.tasks) or None,
    }  # fmt: skip
    if not task_states:
        row["TaskStates"] = None
    return row


def full(allocation: Allocation, state: State, signing_key: str) -> Row:
    """The form of `GET /v1/allocation/:id` and, without Job, of events. Empty fields are left out, as Nomad does."""
    tasks = allocation.group_spec["Tasks"]
    disk = (allocation.group_spec.get("EphemeralDisk") or {}).get("SizeMB", 300)
    row: Row = {
        "AllocModifyIndex": allocation.alloc_modify_index, "AllocatedResources": _allocated(tasks, disk),
        "ClientStatus": allocation.client, "CreateIndex": allocation.create_index,
        "CreateTime": allocation.create_time, "DesiredStatus": allocation.desired, "EvalID": allocation.eval_id,
        "ID": allocation.id, "Job": copy.deepcopy(allocation.job), "JobID": allocation.job["ID"],
        "Metrics": _metrics(allocation), "ModifyIndex": allocation.modify_index,
        "ModifyTime": allocation.modify_time, "Name": allocation.name, "Namespace": allocation.namespace,
        "NodeID": allocation.node_id, "NodeName": state.node_name,
        "Resources": _resources(
            sum(t["Resources"]["CPU"] for t in tasks), sum(t["Resources"]["MemoryMB"] for t in tasks), disk,
            sum(t["Resources"]["MemoryMB"] for t in tasks),
        ),
        "SharedResources": _resources(0, 0, disk, 0), "SigningKeyID": signing_key, "TaskGroup": allocation.group,
        "TaskResources": {t["Name"]: dict(t["Resources"]) for t in tasks},
    }  # fmt: skip
    optional = {
        "ClientDescription": allocation.client_description, "DeploymentID": allocation.deployment_id,
        "DeploymentStatus": copy.deepcopy(allocation.health), "DesiredDescription": allocation.desired_description,
        "NextAllocation": allocation.next, "PreviousAllocation": allocation.previous,
        "TaskStates": copy.deepcopy(allocation.tasks),
        "NetworkStatus": {"Address": "", "AddressIPv6": "", "DNS": None, "InterfaceName": ""}
        if allocation.networked
        else None,
    }  # fmt: skip
    row.update({key: value for key, value in optional.items() if value})
    return row


def payload(allocation: Allocation, state: State, signing_key: str) -> Row:
    row = full(allocation, state, signing_key)
    del row["Job"]
    return {"Allocation": row}


def _resources(cpu: int, memory: int, disk: int, memory_max: int) -> Row:
    return {
        "CPU": cpu, "Cores": 0, "Devices": None, "DiskMB": disk, "IOPS": 0, "MemoryMB": memory,
        "MemoryMaxMB": memory_max, "NUMA": None, "Networks": None, "SecretsMB": 0,
    }  # fmt: skip


def _allocated(tasks: list[Row], disk: int) -> Row:
    return {
        "Shared": {"DiskMB": disk, "Networks": None, "Ports": None},
        "TaskLifecycles": {t["Name"]: t.get("Lifecycle") for t in tasks},
        "Tasks": {
            t["Name"]: {
                "Cpu": {"CpuShares": t["Resources"]["CPU"], "ReservedCores": None}, "Devices": None,
                "Memory": {"MemoryMB": t["Resources"]["MemoryMB"], "MemoryMaxMB": 0}, "Networks": None,
            }
            for t in tasks
        },
    }  # fmt: skip


def _metrics(allocation: Allocation) -> Row:
    scores = {"binpack": 0.1, "job-anti-affinity": 0.0, "node-affinity": 0.0, "node-reschedule-penalty": 0.0}
    return {
        "AllocationTime": 1, "ClassExhausted": None, "ClassFiltered": None, "CoalescedFailures": 0,
        "ConstraintFiltered": None, "DimensionExhausted": None, "NodePool": "default", "NodesAvailable": {"dc1": 1},
        "NodesEvaluated": 1, "NodesExhausted": 0, "NodesFiltered": 0, "NodesInPool": 1, "QuotaExhausted": None,
        "ResourcesExhausted": None, "Scores": None,
        "ScoreMetaData": [{"NodeID": allocation.node_id, "NormScore": 0.1, "Scores": scores}],
    }  # fmt: skip


def healthy_status(index: int, healthy: bool) -> Row:
    return {"Canary": False, "Healthy": healthy, "ModifyIndex": index, "Timestamp": stamp()}


async def list_allocations(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    """GET /v1/allocations"""
    if request.method != "GET":
        raise invalid_method()
    agent.acl.require(request, acl.namespace("read-job"))
    await blocking.block(request, agent.state, blocking.Watch(("allocs",)))
    wanted = request.query.get("namespace", "default")
    prefix = request.query.get("prefix", "")
    states = request.query.get("task_states", "true") != "false"
    rows = [
        stub(a, agent.state, task_states=states)
        for a in sorted(agent.state.allocations.values(), key=lambda a: a.id)
        if a.id.startswith(prefix) and wanted in ("*", a.namespace)
    ]
    return blocking.listing(request, agent.state, ("allocs",), rows, lambda row: str(row["ID"]))


async def one_allocation(agent: FakeNomad, request: web.Request, rest: str) -> web.StreamResponse:
    """GET /v1/allocation/:id (the full id) and PUT …/stop"""
    allocation_id, _, verb = rest.partition("/")
    if len(allocation_id) != _UUID_LENGTH:
        raise Refusal(500, "alloc lookup failed: index error: UUID must be 36 characters")
    if verb == "stop" and request.method in ("PUT", "POST"):
        return await _stop(agent, request, allocation_id)
    if request.method != "GET" or verb:
        raise invalid_method()
    await blocking.block(request, agent.state, blocking.Watch(("allocs",)))
    headers = read_headers(agent.state.table_index(("allocs",)))
    allocation = agent.state.allocations.get(allocation_id)
    if allocation is None:
        raise Refusal(404, "alloc not found", headers)
    caller = acl.caller(request)
    if not acl.namespace("read-job")(caller, allocation.namespace):
        raise Refusal(403, "Permission denied")
    return answer(full(allocation, agent.state, agent.identity.key_id), headers)


async def _stop(agent: FakeNomad, request: web.Request, allocation_id: str) -> web.StreamResponse:
    # not recorded; nomad-verified.md D (an allocation stopped is replaced)
    allocation = agent.state.allocations.get(allocation_id)
    if allocation is None:
        raise Refusal(404, "alloc not found")
    caller = acl.caller(request)
    if not acl.namespace("alloc-lifecycle")(caller, allocation.namespace):
        raise Refusal(403, "Permission denied")
    evaluation = agent.scheduler.replace(allocation)
    return answer({"EvalID": evaluation["ID"], "Index": agent.state.index}, {"X-Nomad-Index": str(agent.state.index)})
