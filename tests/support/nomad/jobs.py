"""Jobs: list, register, get, versions, plan, stop, scale, dispatch, periodic force, and their sub-lists.

It must not place anything; scheduler.py does.
"""

from __future__ import annotations

import base64
import copy
import itertools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from tests.support.nomad import acl, allocations, blocking, hcl, jobfile, jobspec, submissions
from tests.support.nomad.answers import (
    Refusal,
    answer,
    flag,
    invalid_method,
    multierror,
    read_headers,
    read_json,
    write_headers,
)
from tests.support.nomad.state import Row, new_id, now_ns

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

_CHILDREN = {"Dead": 0, "Pending": 0, "Running": 0}
_VERBS = (
    "plan", "allocations", "evaluations", "versions", "deployment", "deployments", "summary", "scale", "dispatch",
    "revert", "actions", "action", "periodic/force",
)  # fmt: skip
_MAXIMUM_PAYLOAD_BYTES = 16384


def summary(agent: FakeNomad, job: Row) -> Row:
    rows = agent.state.job_allocations(job["Namespace"], job["ID"])
    names = {"complete": "Complete", "failed": "Failed", "lost": "Lost", "running": "Running", "pending": "Starting"}
    groups: Row = {}
    for group in job["TaskGroups"]:
        counts = dict.fromkeys(("Complete", "Failed", "Lost", "Queued", "Running", "Starting", "Unknown"), 0)
        for allocation in rows:
            if allocation.group == group["Name"]:
                counts[names[allocation.client]] += 1
        groups[group["Name"]] = counts
    index = max([job["CreateIndex"], *(a.modify_index for a in rows)])
    return {
        "Children": dict(_CHILDREN), "CreateIndex": job["CreateIndex"], "JobID": job["ID"], "ModifyIndex": index,
        "Namespace": job["Namespace"], "Summary": groups,
    }  # fmt: skip


async def collection(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    """/v1/jobs"""
    if request.method in ("PUT", "POST"):
        return await submissions.register(agent, request)
    if request.method != "GET":
        raise invalid_method()
    agent.acl.require(request, acl.namespace("list-jobs"))
    await blocking.block(request, agent.state, blocking.Watch(("jobs",)))
    wanted = request.query.get("namespace", "default")
    prefix = request.query.get("prefix", "")
    rows = []
    for (namespace, job_id), versions in sorted(agent.state.jobs.items()):
        if wanted in ("*", namespace) and job_id.startswith(prefix):
            meta = flag(request, "meta")
            rows.append(
                {
                    **jobspec.list_stub(versions[-1], summary(agent, versions[-1]), meta=meta),
                    "Meta": versions[-1]["Meta"],
                }
            )
    response_rows, following = blocking.page(request, rows, lambda r: f"{r['Namespace']}.{r['ID']}")
    for row in response_rows:
        # The filter may look at Meta; the answer shows it only when asked, and only if there is any.
        if not (flag(request, "meta") and row["Meta"]):
            del row["Meta"]
    headers = read_headers(agent.state.table_index(("jobs", "job_summary")))
    if following:
        headers["X-Nomad-Nexttoken"] = following
    return answer(response_rows, headers)


async def parse(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    """POST /v1/jobs/parse"""
    if request.method not in ("PUT", "POST"):
        raise invalid_method()
    body = await read_json(request)
    text = body.get("JobHCL", "")
    if not text:
        raise Refusal(400, "Job spec is empty")
    try:
        return answer(jobfile.parse(text, canonicalize=bool(body.get("Canonicalize"))))
    except hcl.HclError as error:
        raise Refusal(400, f"Failed to parse job: {error}") from error


async def one(agent: FakeNomad, request: web.Request, rest: str) -> web.StreamResponse:
    """/v1/job/:id and the verbs below it; a child's id holds slashes."""
    job_id, verb = rest, ""
    for known in _VERBS:
        if rest.endswith(f"/{known}"):
            job_id, verb = rest.removesuffix(f"/{known}"), known
            break
    handler = _HANDLERS.get((request.method, verb))
    if handler is None:
        raise invalid_method()
    return await handler(agent, request, job_id)


async def _get(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.namespace("read-job"))
    await blocking.block(request, agent.state, blocking.Watch(("jobs",)))
    headers = read_headers(agent.state.table_index(("jobs",)))
    job = agent.state.job(request.query.get("namespace", "default"), job_id)
    if job is None:
        raise Refusal(404, "job not found", headers)
    return answer(job, headers)


async def _allocations(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.namespace("read-job"))
    await blocking.block(request, agent.state, blocking.Watch(("allocs",)))
    rows = agent.state.job_allocations(request.query.get("namespace", "default"), job_id)
    headers = read_headers(agent.state.table_index(("allocs",)))
    return answer([allocations.stub(a, agent.state) for a in rows], headers)


async def _evaluations(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.namespace("read-job"))
    await blocking.block(request, agent.state, blocking.Watch(("evals",)))
    namespace = request.query.get("namespace", "default")
    rows = [e for e in agent.state.evaluations.values() if (e["Namespace"], e["JobID"]) == (namespace, job_id)]
    return answer(rows, read_headers(agent.state.table_index(("evals",))))


async def _versions(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.namespace("read-job"))
    await blocking.block(request, agent.state, blocking.Watch(("jobs",)))
    versions = list(reversed(agent.state.jobs.get((request.query.get("namespace", "default"), job_id), [])))
    index = agent.state.table_index(("jobs",))
    headers = read_headers(index)
    if not versions:
        raise Refusal(404, "job versions not found", headers)  # not recorded; Nomad's JobVersions handler
    diffs = None
    if flag(request, "diffs"):
        diffs = [_diff(old, new) for new, old in itertools.pairwise(versions)]
    body = {
        "Diffs": diffs,
        "Index": index,
        "KnownLeader": True,
        "LastContact": 0,
        "NextToken": "",
        "Versions": versions,
    }
    return answer(body, headers)


def _diff(old: Row, new: Row) -> Row:
    """What changed between two versions. Only meta is looked at: the rest is not recorded and not needed."""
    before, after = old["Meta"] or {}, new["Meta"] or {}
    fields = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            kind = "Deleted" if key not in after else ("Added" if key not in before else "Edited")
            fields.append({"Annotations": None, "Name": f"Meta[{key}]", "New": after.get(key, ""),
                           "Old": before.get(key, ""), "Type": kind})  # fmt: skip
    groups = [
        {"Fields": None, "Name": group["Name"], "Objects": None, "Type": "None", "Updates": None,
         "Tasks": [{"Annotations": None, "Fields": None, "Name": task["Name"], "Objects": None, "Type": "None"}
                   for task in group["Tasks"]]}
        for group in new["TaskGroups"]
    ]  # fmt: skip
    return {"Fields": fields or None, "ID": new["ID"], "Objects": None, "TaskGroups": groups,
            "Type": "Edited" if fields else "None"}  # fmt: skip


async def _deployment(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.namespace("read-job"))
    await blocking.block(request, agent.state, blocking.Watch(("deployment",)))
    row = agent.state.latest_deployment(request.query.get("namespace", "default"), job_id)
    return answer(row, read_headers(agent.state.table_index(("deployment",))))


async def _deployments(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    # not recorded; nomad.md 6 names the endpoint, the rows are those of …/deployment
    agent.acl.require(request, acl.namespace("read-job"))
    namespace = request.query.get("namespace", "default")
    rows = [d for d in agent.state.deployments.values() if (d["Namespace"], d["JobID"]) == (namespace, job_id)]
    return answer(
        sorted(rows, key=lambda d: -d["CreateIndex"]), read_headers(agent.state.table_index(("deployment",)))
    )


async def _summary(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.namespace("read-job"))
    headers = read_headers(agent.state.table_index(("job_summary",)))
    job = agent.state.job(request.query.get("namespace", "default"), job_id)
    if job is None:
        raise Refusal(404, "job not found", headers)  # not recorded; as get
    return answer(summary(agent, job), headers)


async def _actions(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.namespace("read-job"))
    job = agent.state.job(request.query.get("namespace", "default"), job_id)
    if job is None:
        raise Refusal(500, f'Unknown job "{job_id}"')
    rows = [
        {"Args": action["Args"], "Command": action["Command"], "Name": action["Name"],
         "TaskGroupName": group["Name"], "TaskName": task["Name"]}
        for group in job["TaskGroups"] for task in group["Tasks"] for action in task["Actions"] or []
    ]  # fmt: skip
    return answer(rows, read_headers(0, leader=False))


async def _plan(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    body = await read_json(request)
    job = body.get("Job") or {}
    if job.get("ID") != job_id:
        raise Refusal(400, "Job ID does not match")
    agent.acl.require(request, acl.namespace("submit-job"))
    known = agent.state.job(request.query.get("namespace", "default"), job_id)
    index = known["JobModifyIndex"] if known else 0
    zero = dict.fromkeys(("Canary", "DestructiveUpdate", "Disconnect", "Ignore", "InPlaceUpdate", "Migrate", "Place",
                          "Preemptions", "Reconnect", "RescheduleLater", "RescheduleNow", "Stop"), 0)  # fmt: skip
    groups = {}
    for group in job.get("TaskGroups") or []:
        # not recorded for a job that exists: a plan of one says Ignore or DestructiveUpdate
        same = known is not None and jobspec.same_work(known, jobspec.canonical(job))
        verb = "Place" if known is None else ("Ignore" if same else "DestructiveUpdate")
        groups[group["Name"]] = {**zero, verb: group.get("Count", 1)}
    annotations = {"DesiredTGUpdates": groups, "PreemptedAllocs": None}
    # The diff is not built: see the exclusions of the replay test.
    answer_row = {"Annotations": annotations, "CreatedEvals": None, "Diff": None, "FailedTGAllocs": None,
                  "Index": index, "JobModifyIndex": index, "NextPeriodicLaunch": None, "Warnings": ""}  # fmt: skip
    return answer(answer_row, write_headers(index))


async def _scale_status(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.namespace("read-job", "read-job-scaling"))
    headers = read_headers(agent.state.table_index(("job_summary",)))
    job = agent.state.job(request.query.get("namespace", "default"), job_id)
    if job is None:
        raise Refusal(404, "job not found", headers)  # not recorded; as get
    groups = {}
    for group in job["TaskGroups"]:
        rows = [a for a in agent.state.job_allocations(job["Namespace"], job_id) if a.group == group["Name"]]
        live = [a for a in rows if a.desired == "run" and not a.terminal]
        groups[group["Name"]] = {
            "Desired": group["Count"], "Events": None,
            "Healthy": sum(bool(a.health and a.health["Healthy"]) for a in live),
            "Placed": len(live), "Running": sum(a.client == "running" for a in live),
            "Unhealthy": sum(a.health is not None and not a.health["Healthy"] for a in live),
        }  # fmt: skip
    body = {"JobCreateIndex": job["CreateIndex"], "JobID": job_id, "JobModifyIndex": job["JobModifyIndex"],
            "JobStopped": job["Stop"], "Namespace": job["Namespace"], "TaskGroups": groups}  # fmt: skip
    return answer(body, headers)


async def _dispatch(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.namespace("dispatch-job"))
    body = await read_json(request)
    namespace = request.query.get("namespace", "default")
    parent = agent.state.job(namespace, job_id)
    if parent is None:
        raise Refusal(500, "parameterized job not found")
    if not parent["ParameterizedJob"]:
        raise Refusal(500, f'Specified job "{job_id}" is not a parameterized job')
    meta = body.get("Meta") or {}
    _check_dispatch(parent, meta, body.get("Payload"))
    token = request.query.get("idempotency_token", "")
    known = next(
        (v[-1] for v in agent.state.jobs.values()
         if token and v[-1]["ParentID"] == job_id and v[-1]["DispatchIdempotencyToken"] == token), None
    )  # fmt: skip
    index = agent.state.commit("jobs")
    evaluation: Row | None = None
    if known is None:
        known = copy.deepcopy(parent)
        child_id = f"{job_id}/dispatch-{now_ns() // 1_000_000_000}-{new_id()[:8]}"
        known.update(ID=child_id, Name=child_id, ParentID=job_id, Dispatched=True, Payload=body.get("Payload"),
                     Meta={**(parent["Meta"] or {}), **meta} or None, Status="", Version=0, SubmitTime=now_ns(),
                     CreateIndex=index, ModifyIndex=index, JobModifyIndex=index,
                     DispatchIdempotencyToken=token)  # fmt: skip
        evaluation = submissions.store(agent, known, index)
    return answer(
        {"DispatchedJobID": known["ID"], "EvalCreateIndex": index if evaluation else 0,
         "EvalID": evaluation["ID"] if evaluation else "", "Index": index, "JobCreateIndex": known["CreateIndex"]},
        write_headers(index),
    )  # fmt: skip


def _check_dispatch(parent: Row, meta: Row, payload: str | None) -> None:
    rules = parent["ParameterizedJob"]
    required, optional = rules["MetaRequired"] or [], rules["MetaOptional"] or []
    unknown = sorted(meta.keys() - {*required, *optional})
    if unknown:
        raise Refusal(500, f"Dispatch request included unpermitted metadata keys: [{' '.join(unknown)}]")
    missing = [key for key in required if key not in meta]
    if missing:
        raise Refusal(500, f"Dispatch did not provide required meta keys: [{' '.join(missing)}]")
    if payload and len(base64.b64decode(payload)) > _MAXIMUM_PAYLOAD_BYTES:
        raise Refusal(500, "Payload exceeds maximum size; 16384 bytes is the limit")  # not recorded; nomad.md 3.3


async def _force(agent: FakeNomad, request: web.Request, job_id: str) -> web.StreamResponse:
    agent.acl.require(request, acl.namespace("dispatch-job", "submit-job"))
    namespace = request.query.get("namespace", "default")
    parent = agent.state.job(namespace, job_id)
    if parent is None or not parent["Periodic"]:
        raise Refusal(500, multierror(f'job "{job_id}" is not periodic'))  # not recorded
    index = agent.state.commit("jobs")
    child = copy.deepcopy(parent)
    child_id = f"{job_id}/periodic-{now_ns() // 1_000_000_000}"
    child.update(ID=child_id, Name=child_id, ParentID=job_id, Periodic=None, CreateIndex=index, ModifyIndex=index,
                 JobModifyIndex=index, Status="", SubmitTime=now_ns())  # fmt: skip
    evaluation = submissions.store(agent, child, index)
    assert evaluation is not None
    return answer({"EvalCreateIndex": index, "EvalID": evaluation["ID"], "Index": index}, write_headers(index))


Handler = Callable[["FakeNomad", web.Request, str], Awaitable[web.StreamResponse]]
_HANDLERS: dict[tuple[str, str], Handler] = {
    ("GET", ""): _get,
    ("PUT", ""): submissions.register_at,
    ("POST", ""): submissions.register_at,
    ("DELETE", ""): submissions.stop,
    ("GET", "allocations"): _allocations,
    ("GET", "evaluations"): _evaluations,
    ("GET", "versions"): _versions,
    ("GET", "deployment"): _deployment,
    ("GET", "deployments"): _deployments,
    ("GET", "summary"): _summary,
    ("GET", "actions"): _actions,
    ("GET", "scale"): _scale_status,
    ("PUT", "scale"): submissions.scale,
    ("POST", "scale"): submissions.scale,
    ("PUT", "revert"): submissions.revert,
    ("POST", "revert"): submissions.revert,
    ("PUT", "plan"): _plan,
    ("POST", "plan"): _plan,
    ("PUT", "dispatch"): _dispatch,
    ("POST", "dispatch"): _dispatch,
    ("PUT", "periodic/force"): _force,
    ("POST", "periodic/force"): _force,
}
