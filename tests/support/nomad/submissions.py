"""Writes of jobs: register with EnforceIndex, stop, purge, scale.

It must not answer reads; jobs.py does.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from aiohttp import web

from tests.support.nomad import acl, jobspec
from tests.support.nomad.answers import Refusal, answer, flag, multierror, read_json, write_headers
from tests.support.nomad.state import Row, now_ns

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad


async def register_at(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    """PUT /v1/job/:id"""
    return await register(agent, request, job_id)


async def register(agent: FakeNomad, request: web.Request, job_id: str = "") -> web.StreamResponse:
    """PUT /v1/jobs"""
    body = await read_json(request)
    given = body.get("Job")
    if not given:
        raise Refusal(400, "Job must be specified")
    if job_id and given.get("ID") != job_id:
        raise Refusal(400, "Job ID does not match name")  # not recorded; Nomad's jobUpdate handler
    given = {**given, "Namespace": _namespace(request, given)}
    _authorize(agent, request, given)
    known = agent.state.job(given["Namespace"], given.get("ID", ""))
    problems = jobspec.problems(given)
    if problems:
        raise Refusal(500, multierror(*problems))
    if given["Namespace"] not in agent.state.namespaces:
        text = f'job "{given["ID"]}" is in nonexistent namespace "{given["Namespace"]}"'
        raise Refusal(500, multierror(text))
    if body.get("EnforceIndex"):
        _enforce(known, body.get("JobModifyIndex") or 0)
    job = jobspec.canonical(given)
    token = acl.caller(request).token
    job["NomadTokenID"] = token["AccessorID"] if token else ""
    evaluation, index = _submit(agent, job, known)
    cron = (given.get("Periodic") or {}).get("Spec")
    answer_row = {
        "EvalCreateIndex": index if evaluation else 0, "EvalID": evaluation["ID"] if evaluation else "",
        "Index": index, "JobModifyIndex": job["JobModifyIndex"], "KnownLeader": False, "LastContact": 0,
        "NextToken": "",
        "Warnings": "1 warning:\n\n* cron is deprecated and may be removed in a future release. Use crons instead"
        if cron
        else "",
    }  # fmt: skip
    return answer(answer_row, write_headers(index))


def _namespace(request: web.Request, given: Row) -> str:
    asked = request.query.get("namespace", "")
    return str(asked or given.get("Namespace") or "default")


def _authorize(agent: FakeNomad, request: web.Request, given: Row) -> None:
    caller = acl.caller(request)
    needs = [acl.namespace("submit-job")]
    tasks = [task for group in given.get("TaskGroups") or [] for task in group.get("Tasks") or []]
    volumes = [v for group in given.get("TaskGroups") or [] for v in (group.get("Volumes") or {}).values()]
    if any(task.get("CSIPluginConfig") for task in tasks):
        needs.append(acl.namespace("csi-register-plugin"))
    if any(volume.get("Type") == "csi" for volume in volumes):
        # not recorded; nomad.md 2.5
        needs += [acl.namespace("csi-mount-volume"), acl.plugin_read]
    if not all(check(caller, given["Namespace"]) for check in needs):
        raise Refusal(403, "Permission denied")


def _enforce(known: Row | None, index: int) -> None:
    if index == 0 and known is not None:
        raise Refusal(500, "Enforcing job modify index 0: job already exists")
    if index and known is None:
        raise Refusal(500, f"Enforcing job modify index {index}: job does not exist")  # not recorded; nomad.md 3.2
    if known is not None and known["JobModifyIndex"] != index:
        raise Refusal(
            500,
            f"Enforcing job modify index {index}: job exists with conflicting job modify index: "
            f"{known['JobModifyIndex']}",
        )


def _submit(agent: FakeNomad, job: Row, known: Row | None) -> tuple[Row | None, int]:
    """Store a version (a new one if the job differs) and evaluate it."""
    index = agent.state.commit("jobs", "evals")
    # A job may be registered as stopped; not recorded; nomad/job_endpoint.go:doRegister keeps Stop as it is given.
    job.update(
        SubmitTime=now_ns(), CreateIndex=index, ModifyIndex=index, JobModifyIndex=index, Status="pending",
        Stop=bool(job["Stop"]),
    )  # fmt: skip
    if known is not None:
        same = jobspec.same_work(known, job) and not known["Stop"] and not job["Stop"]
        same = same and [g["Count"] for g in known["TaskGroups"]] == [g["Count"] for g in job["TaskGroups"]]
        job.update(CreateIndex=known["CreateIndex"], Version=known["Version"] + (not same), Status=known["Status"])
        if same:
            agent.state.jobs[(job["Namespace"], job["ID"])].pop()
            job["Stable"] = known["Stable"]
    return store(agent, job, index), index


def store(agent: FakeNomad, job: Row, index: int) -> Row | None:
    """Keep the version, publish JobRegistered, and evaluate unless it is a template for children."""
    agent.state.jobs.setdefault((job["Namespace"], job["ID"]), []).append(job)
    _plugins(agent, job, index)
    template = (job["ParameterizedJob"] and not job["Dispatched"]) or job["Periodic"]
    evaluation = None if template else agent.scheduler.evaluate(job, "job-register", index)
    job["Status"] = job["Status"] or "pending"
    if template:
        job["Status"] = "running"
    events = [*agent.scheduler.plugin_events(job), agent.scheduler.job_event(job)]
    if evaluation is not None:
        events.append(agent.scheduler.evaluation_event(evaluation))
    agent.events.publish(index, "JobRegistered", events)
    return evaluation


def _plugins(agent: FakeNomad, job: Row, index: int) -> None:
    for group in job["TaskGroups"]:
        for task in group["Tasks"]:
            if task["CSIPluginConfig"]:
                agent.expect_plugin(task["CSIPluginConfig"]["ID"], job, index)


async def stop(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    """DELETE /v1/job/:id; with purge the job is forgotten and its allocations stop all the same."""
    agent.acl.require(request, acl.namespace("submit-job"))
    namespace = request.query.get("namespace", "default")
    job = agent.state.job(namespace, job_id)
    purge = flag(request, "purge")
    index = agent.state.commit("jobs", "evals")
    target = job or {"ID": job_id, "Namespace": namespace, "JobModifyIndex": index, "Priority": 50, "Type": "service"}
    if job is not None:
        shown = copy.deepcopy(job)
        if not purge:
            job.update(Stop=True, Stable=False, ModifyIndex=index, JobModifyIndex=index, Version=job["Version"] + 1)
            agent.state.jobs[(namespace, job_id)].insert(-1, shown)
            shown = job
        events = [*agent.scheduler.plugin_events(job), agent.scheduler.job_event(shown, deleted=purge)]
        agent.events.publish(index, "JobDeregistered", events)
        if purge:
            del agent.state.jobs[(namespace, job_id)]
    evaluation = agent.scheduler.evaluate(target, "job-deregister", index)
    agent.events.publish(index, "JobDeregistered", [agent.scheduler.evaluation_event(evaluation)])
    return answer(
        {"EvalCreateIndex": index, "EvalID": evaluation["ID"], "Index": index, "JobModifyIndex": index,
         "KnownLeader": False, "LastContact": 0, "NextToken": "", "VolumeEvalID": "", "VolumeEvalIndex": 0},
        write_headers(index),
    )  # fmt: skip


async def revert(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    """POST /v1/job/:id/revert"""
    # not recorded; nomad/job_endpoint.go:538 (Job.Revert), command/agent/job_endpoint.go:804
    body = await read_json(request)
    if not body.get("JobID"):
        raise Refusal(400, "JobID must be specified")
    if body["JobID"] != job_id:
        raise Refusal(400, "Job ID does not match")
    agent.acl.require(request, acl.namespace("submit-job"))
    namespace = request.query.get("namespace", "default")
    versions = agent.state.jobs.get((namespace, job_id), [])
    if not versions:
        raise Refusal(500, f'job "{job_id}" not found')
    current, wanted = versions[-1], body.get("JobVersion", 0)
    if wanted == current["Version"]:
        raise Refusal(500, "can't revert to current version")
    found = next((row for row in versions if row["Version"] == wanted), None)
    if found is None:
        raise Refusal(500, f'job "{job_id}" in namespace "{namespace}" at version {wanted} not found')
    prior = body.get("EnforcePriorVersion")
    if prior is not None and prior != current["Version"]:
        raise Refusal(500, f"Current job has version {current['Version']}; enforcing version {prior}")
    job = copy.deepcopy(found)
    job.update(VersionTag=None, Stable=False)
    evaluation, index = _submit(agent, job, current)
    return answer(
        {"EvalCreateIndex": index if evaluation else 0, "EvalID": evaluation["ID"] if evaluation else "",
         "Index": index, "JobModifyIndex": job["JobModifyIndex"], "KnownLeader": False, "LastContact": 0,
         "NextToken": "", "Warnings": ""},
        write_headers(index),
    )  # fmt: skip


async def scale(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    """POST /v1/job/:id/scale"""
    body = await read_json(request)
    agent.acl.require(request, acl.namespace("scale-job", "submit-job"))
    group_name = (body.get("Target") or {}).get("Group", "")
    if not group_name:
        raise Refusal(400, "missing task group name for scaling action")
    namespace = request.query.get("namespace", "default")
    job = agent.state.job(namespace, job_id)
    if job is None:
        raise Refusal(404, f'job "{job_id}" not found')
    group = next((g for g in job["TaskGroups"] if g["Name"] == group_name), None)
    if group is None:
        raise Refusal(400, f'task group "{group_name}" specified for scaling does not exist in job')
    deployment = agent.state.latest_deployment(namespace, job_id)
    if deployment is not None and deployment["Status"] == "running":
        raise Refusal(400, "job scaling blocked due to active deployment")
    _check_scale(job, group, body)
    index = agent.state.commit("jobs")
    count = body.get("Count")
    if count is not None:
        version = copy.deepcopy(job)
        next(g for g in version["TaskGroups"] if g["Name"] == group_name)["Count"] = count
        version.update(ModifyIndex=index, JobModifyIndex=index, Version=job["Version"] + 1, Stable=False)
        agent.state.jobs[(namespace, job_id)].append(version)
        job = version
        agent.events.publish(index, "JobRegistered", [agent.scheduler.job_event(job)])
    eval_index = agent.state.commit("evals")
    evaluation = agent.scheduler.evaluate(job, "job-scaling", eval_index)
    last = agent.state.commit("scaling_event")
    return answer(
        {"EvalCreateIndex": eval_index, "EvalID": evaluation["ID"], "Index": last,
         "JobModifyIndex": job["JobModifyIndex"], "KnownLeader": True, "LastContact": 0, "NextToken": "",
         "Warnings": ""},
        write_headers(last),
    )  # fmt: skip


def _check_scale(job: Row, group: Row, body: Row) -> None:
    wanted = body.get("JobModifyIndex") or 0
    if wanted and wanted != job["JobModifyIndex"]:
        # not recorded; nomad/job_endpoint.go:1068
        raise Refusal(
            500,
            f"Enforcing job modify index {wanted}: job exists with conflicting job modify index: "
            f"{job['JobModifyIndex']}",
        )
    scaling = group.get("Scaling") or {}
    count = body.get("Count")
    if count is not None and count < (scaling.get("Min") or 0):
        # not recorded; nomad.md 3.3
        raise Refusal(400, f"group count was less than scaling policy minimum: {count} < {scaling['Min']}")
