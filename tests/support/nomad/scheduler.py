"""Evaluations, placements and deployments: which allocations a job has after a write.

It must not run a task; runner.py does. One node, no constraints but CSI volumes, all updates at once.
"""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

from tests.support.nomad import allocations, claims, jobspec, plugins
from tests.support.nomad.events import Event, event
from tests.support.nomad.state import Allocation, Key, Row, new_id, now_ns, stamp

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

PLAN_SECONDS = 0.002
_UPDATED = "alloc is being updated due to job update"
_NOT_NEEDED = "alloc not needed due to job update"


class Scheduler:
    """The scheduler of one agent."""

    def __init__(self, agent: FakeNomad) -> None:
        self.agent = agent

    # Evaluations

    def evaluate(self, job: Row, trigger: str, index: int) -> Row:
        """Create an evaluation of this write; the plan follows a moment later, as a real leader's does."""
        row: Row = {
            "CreateIndex": index, "CreateTime": now_ns(), "ID": new_id(), "JobID": job["ID"],
            "JobModifyIndex": job["JobModifyIndex"], "ModifyIndex": index, "ModifyTime": now_ns(),
            "Namespace": job["Namespace"], "Priority": job["Priority"], "Status": "pending", "TriggeredBy": trigger,
            "Type": job["Type"],
        }  # fmt: skip
        self.agent.state.evaluations[row["ID"]] = row
        self.agent.spawn(self._later(row), f"plan {job['ID']}")
        return row

    async def _later(self, evaluation: Row) -> None:
        await asyncio.sleep(PLAN_SECONDS)
        self.plan(evaluation)

    def evaluation_event(self, row: Row) -> Event:
        keys = [row["JobID"], row.get("DeploymentID", "")]
        return event("Evaluation", row["ID"], row["Namespace"], {"Evaluation": row}, keys)

    # Plans

    def plan(self, evaluation: Row) -> None:
        """Place and stop allocations as the job's newest version asks, in one write."""
        state = self.agent.state
        job = state.job(evaluation["Namespace"], evaluation["JobID"])
        before = evaluation["ModifyIndex"]
        counts: dict[str, Row] = {}
        failed: dict[str, Row] = {}
        changed: list[Allocation] = []
        index = state.commit("allocs", "jobs", "evals", "deployment", "csi_plugins", "job_summary")
        for group in job["TaskGroups"] if job else []:
            assert job is not None
            counts[group["Name"]] = self._group(job, group, evaluation, index, changed, failed)
        if job is None:
            self._stop_purged(evaluation, index, changed)
        elif job["Stop"]:
            self._touch_ended(job, index, changed)
        if evaluation["TriggeredBy"] == "deployment-watcher":
            evaluation.pop("JobModifyIndex", None)
        deployment = self._deploy(job, counts, index, changed) if job else None
        current = deployment or (self.agent.state.latest_deployment(job["Namespace"], job["ID"]) if job else None)
        if current is not None:
            evaluation["DeploymentID"] = current["ID"]
        self._status(job, index, after_stop=bool(changed))
        self._publish_plan(job, evaluation, deployment, index, changed)
        self._finish(evaluation, counts, failed, before)
        self._dead(job)
        for allocation in changed:
            if allocation.desired == "stop" or allocation.terminal:
                self.agent.runner.stop(allocation)
            else:
                self.agent.runner.start(allocation)

    def _group(
        self, job: Row, group: Row, evaluation: Row, index: int, changed: list[Allocation], failed: dict[str, Row]
    ) -> Row:
        update = dict.fromkeys(
            ("Canary", "DestructiveUpdate", "Disconnect", "Ignore", "InPlaceUpdate", "Migrate", "Place",
             "Preemptions", "Reconnect", "RescheduleLater", "RescheduleNow", "Stop"), 0,
        )  # fmt: skip
        wanted = 0 if job["Stop"] else (min(group["Count"], 1) if job["Type"] == "system" else group["Count"])
        if job["Type"] in ("batch", "sysbatch"):
            done = [a for a in self._of(job, group) if a.terminal and a.job["Version"] == job["Version"]]
            wanted = max(0, wanted - len(done))
        live = [a for a in self._of(job, group) if a.desired == "run" and not a.terminal]
        live.sort(key=lambda a: a.slot)
        for allocation in live[wanted:]:
            self._stop(allocation, _NOT_NEEDED, index, changed)
            update["Stop"] += 1
        slots = set(range(wanted))
        for allocation in live[:wanted]:
            slots.discard(allocation.slot)
            if jobspec.same_work(allocation.job, job):
                update["Ignore" if allocation.job["Version"] == job["Version"] else "InPlaceUpdate"] += 1
                allocation.job = copy.deepcopy(job)
                continue
            update["DestructiveUpdate"] += 1
            self._stop(allocation, _UPDATED, index, changed)
            self._place(job, group, allocation.slot, evaluation, index, changed, allocation)
        for slot in sorted(slots):
            update["Place"] += 1
            reason = self._refusal(job, group, slot)
            if reason:
                failed[group["Name"]] = reason
            else:
                self._place(job, group, slot, evaluation, index, changed, None)
        return update

    def _of(self, job: Row, group: Row) -> list[Allocation]:
        rows = self.agent.state.job_allocations(job["Namespace"], job["ID"])
        return [a for a in rows if a.group == group["Name"]]

    def _stop(self, allocation: Allocation, reason: str, index: int, changed: list[Allocation]) -> None:
        allocation.desired, allocation.desired_description = "stop", reason
        allocation.modify_index = allocation.alloc_modify_index = index
        allocation.modify_time = now_ns()
        changed.append(allocation)

    def _place(
        self, job: Row, group: Row, slot: int, evaluation: Row, index: int, changed: list[Allocation],
        replaced: Allocation | None,
    ) -> None:  # fmt: skip
        allocation = Allocation(
            new_id(), job["Namespace"], copy.deepcopy(job), group["Name"], slot, evaluation["ID"],
            self.agent.state.node_id, index, index, index,
        )  # fmt: skip
        if replaced is not None:
            allocation.previous, replaced.next = replaced.id, allocation.id
        self.agent.state.allocations[allocation.id] = allocation
        changed.insert(0, allocation)

    def _refusal(self, job: Row, group: Row, slot: int) -> Row | None:
        """Why the node does not do, in the evaluation's form; None if it does."""
        probe = Allocation("", job["Namespace"], job, group["Name"], slot, "", "", 0, 0, 0)
        missing = []
        for source, block in claims.wanted(probe):
            volume = self.agent.state.volumes.get((job["Namespace"], source))
            if volume is None:
                missing.append(source)
            elif claims.blocked_by_other(volume, block, job["ID"], self.agent):
                # not recorded; nomad.md 1.6 (a write claim of another job blocks placement)
                return _filtered(f"CSI volume {source} has exhausted its available writer claims", [])
        if missing:
            resources = [f"csi-volume:{job['Namespace']}:{source}" for source in missing]
            return _filtered(f"missing CSI volume(s) {', '.join(missing)}", resources)
        return None

    def _touch_ended(self, job: Row, index: int, changed: list[Allocation]) -> None:
        """The plan of a stopped job writes its ended allocations too (recorded in events.json)."""
        for allocation in self.agent.state.job_allocations(job["Namespace"], job["ID"]):
            if allocation.terminal:
                allocation.modify_index = index
                changed.append(allocation)

    def _stop_purged(self, evaluation: Row, index: int, changed: list[Allocation]) -> None:
        for allocation in self.agent.state.job_allocations(evaluation["Namespace"], evaluation["JobID"]):
            if allocation.desired == "run":
                self._stop(allocation, _NOT_NEEDED, index, changed)

    def _finish(self, evaluation: Row, counts: dict[str, Row], failed: dict[str, Row], snapshot: int) -> None:
        index = self.agent.state.commit("evals")
        evaluation.update(
            ModifyIndex=index, ModifyTime=now_ns(), Status="complete", SnapshotIndex=snapshot,
            QueuedAllocations={name: int(name in failed) for name in counts},
            PlanAnnotations={"DesiredTGUpdates": counts, "PreemptedAllocs": None},
        )  # fmt: skip
        events = [self.evaluation_event(evaluation)]
        if failed:
            evaluation["FailedTGAllocs"] = {name: row["metric"] for name, row in failed.items()}
            blocked = self._block(evaluation, failed, index, snapshot)
            evaluation["BlockedEval"] = blocked["ID"]
            events.append(self.evaluation_event(blocked))
        self.agent.events.publish(index, "EvaluationUpdated", events)

    def _block(self, evaluation: Row, failed: dict[str, Row], index: int, snapshot: int) -> Row:
        row: Row = {
            **{key: evaluation[key] for key in ("JobID", "Namespace", "Priority", "Type")},
            "CreateIndex": index, "CreateTime": now_ns(), "EscapedComputedClass": True,
            "FailedTGAllocs": {name: each["metric"] for name, each in failed.items()}, "ID": new_id(),
            "JobModifyIndex": evaluation.get("JobModifyIndex", 0),
            "MissingNonNodeResources": [r for each in failed.values() for r in each["resources"]],
            "ModifyIndex": index, "ModifyTime": now_ns(), "PreviousEval": evaluation["ID"],
            "SnapshotIndex": snapshot, "Status": "blocked",
            "StatusDescription": "created to place remaining allocations", "TriggeredBy": "queued-allocs",
        }  # fmt: skip
        self.agent.state.evaluations[row["ID"]] = row
        return row

    def unblock(self, key: Key) -> None:
        """A volume was registered or freed: the evaluations that wait for one try again (nomad.md 4, since 2.0.5)."""
        for row in list(self.agent.state.evaluations.values()):
            if row["Status"] == "blocked" and row["Namespace"] == key[0]:
                row["Status"] = "pending"
                for field in ("EscapedComputedClass", "FailedTGAllocs", "MissingNonNodeResources"):
                    row.pop(field, None)
                self.agent.spawn(self._later(row), f"unblock {row['JobID']}")

    # Statuses and events of a plan

    def _status(self, job: Row | None, index: int, *, after_stop: bool) -> None:
        if job is None:
            return
        status = self.status_of(job)
        if status == "dead" and job["Stop"] and after_stop:
            status = "pending"  # until the evaluation is done, as recorded
        if status != job["Status"]:
            job["Status"], job["ModifyIndex"] = status, index

    def _dead(self, job: Row | None) -> None:
        """A stopped job is dead once its evaluation is complete."""
        if job is not None and job["Stop"] and job["Status"] == "pending":
            job["Status"], job["ModifyIndex"] = "dead", self.agent.state.commit("jobs")
            self.agent.events.publish(job["ModifyIndex"], "EvaluationUpdated", [self.job_event(job)])

    def status_of(self, job: Row) -> str:
        rows = self.agent.state.job_allocations(job["Namespace"], job["ID"])
        if any(not a.terminal and a.desired == "run" for a in rows):
            return "running"
        if job["Stop"]:
            return "dead"
        if (job["ParameterizedJob"] and not job["Dispatched"]) or job["Periodic"]:
            return "running"
        finished = rows and job["Type"] in ("batch", "sysbatch")
        return "dead" if finished else ("running" if any(not a.terminal for a in rows) else "pending")

    def job_event(self, job: Row, *, deleted: bool = False) -> Event:
        payload: Row = {"Deleted": True, "Job": job} if deleted else {"Job": job}
        return event("Job", job["ID"], job["Namespace"], payload)

    def allocation_event(self, allocation: Allocation) -> Event:
        payload = allocations.payload(allocation, self.agent.state, self.agent.identity.key_id)
        keys = [allocation.job["ID"], allocation.deployment_id]
        return event("Allocation", allocation.id, allocation.namespace, payload, keys)

    def plugin_events(self, job: Row) -> list[Event]:
        wanted = [p for p in self.agent.state.plugins.values() if p.job_id == job["ID"]]
        return [plugins.changed(plugin, self.agent) for plugin in wanted]

    def _publish_plan(
        self, job: Row | None, evaluation: Row, deployment: Row | None, index: int, changed: list[Allocation]
    ) -> None:
        events = self.plugin_events(job) if job else []
        if changed:
            events.append(self.evaluation_event(evaluation))
        if deployment:
            keys = [deployment["JobID"]]
            events.append(
                event("Deployment", deployment["ID"], deployment["Namespace"], {"Deployment": deployment}, keys)
            )
        events += [self.allocation_event(allocation) for allocation in changed]
        if job is not None and job["ModifyIndex"] == index:
            events.append(self.job_event(job))
        if events:
            self.agent.events.publish(index, "PlanResult", events)

    # Deployments

    def _deploy(self, job: Row, counts: dict[str, Row], index: int, changed: list[Allocation]) -> Row | None:
        placed = [a for a in changed if a.desired == "run"]
        current = self.agent.state.latest_deployment(job["Namespace"], job["ID"])
        if job["Type"] not in ("service", "system"):
            return None
        if current is not None and current["JobVersion"] == job["Version"]:
            for allocation in placed:
                allocation.deployment_id = current["ID"]
            return None
        if job["Stop"] or not any(group["Count"] for group in job["TaskGroups"]):
            return None
        row = self._new_deployment(job, index, placed)
        if current is not None and current["Status"] == "running":
            current.update(Status="cancelled", StatusDescription="Cancelled due to newer version of job")
        self.agent.state.deployments[row["ID"]] = row
        for allocation in placed:
            allocation.deployment_id = row["ID"]
        if not placed and not counts_need_placement(counts):
            self.finish_deployment(row, "successful", "Deployment completed successfully")
        return row

    def _new_deployment(self, job: Row, index: int, placed: list[Allocation]) -> Row:
        groups = {
            group["Name"]: {
                "AutoPromote": False, "AutoRevert": group["Update"]["AutoRevert"], "DesiredCanaries": 0,
                "DesiredTotal": group["Count"], "HealthyAllocs": 0,
                "PlacedAllocs": sum(a.group == group["Name"] for a in placed), "PlacedCanaries": None,
                "ProgressDeadline": group["Update"]["ProgressDeadline"], "Promoted": False,
                "RequireProgressBy": stamp(now_ns() + group["Update"]["ProgressDeadline"]), "UnhealthyAllocs": 0,
            }
            for group in job["TaskGroups"]
        }  # fmt: skip
        return {
            "CreateIndex": index, "CreateTime": now_ns(), "EvalPriority": job["Priority"], "ID": new_id(),
            "IsMultiregion": False, "JobCreateIndex": job["CreateIndex"], "JobID": job["ID"],
            "JobModifyIndex": job["JobModifyIndex"], "JobSpecModifyIndex": job["JobModifyIndex"],
            "JobVersion": job["Version"], "ModifyIndex": index, "ModifyTime": now_ns(),
            "Namespace": job["Namespace"], "Status": "running", "StatusDescription": "Deployment is running",
            "TaskGroups": groups,
        }  # fmt: skip

    def health(self, allocation: Allocation, healthy: bool) -> None:
        """An allocation of a deployment became healthy or failed; the last one decides the deployment."""
        deployment = self.agent.state.deployments.get(allocation.deployment_id)
        index = self.agent.state.commit("allocs", "deployment")
        allocation.health = allocations.healthy_status(index, healthy)
        allocation.modify_index, allocation.modify_time = index, now_ns()
        self.agent.events.publish(index, "AllocationUpdated", [self.allocation_event(allocation)])
        if deployment is None or deployment["Status"] != "running":
            return
        group = deployment["TaskGroups"][allocation.group]
        group["HealthyAllocs" if healthy else "UnhealthyAllocs"] += 1
        if not healthy:
            self.finish_deployment(deployment, "failed", "Failed due to unhealthy allocations")
        elif all(g["HealthyAllocs"] >= g["DesiredTotal"] for g in deployment["TaskGroups"].values()):
            self.finish_deployment(deployment, "successful", "Deployment completed successfully")

    def finish_deployment(self, deployment: Row, status: str, description: str) -> None:
        index = self.agent.state.commit("deployment", "jobs")
        deployment.update(Status=status, StatusDescription=description, ModifyIndex=index, ModifyTime=now_ns())
        job = self.agent.state.job(deployment["Namespace"], deployment["JobID"])
        events = [
            event(
                "Deployment",
                deployment["ID"],
                deployment["Namespace"],
                {"Deployment": deployment},
                [deployment["JobID"]],
            )
        ]
        if status == "successful" and job is not None and job["Version"] == deployment["JobVersion"]:
            job["Stable"], job["ModifyIndex"] = True, index
            events.append(self.job_event(job))
        self.agent.events.publish(index, "PlanResult", events)
        if job is not None:
            row = self.evaluate(job, "deployment-watcher", index)
            row["DeploymentID"] = deployment["ID"]

    def replace(self, allocation: Allocation) -> Row:
        """Stop one allocation and place another (nomad-verified.md D: new id)."""
        state = self.agent.state
        index = state.commit("allocs", "evals")
        changed: list[Allocation] = []
        self._stop(allocation, "alloc is being migrated", index, changed)  # not recorded; Nomad's wording of a stop
        job = state.job(allocation.namespace, allocation.job["ID"])
        assert job is not None
        row = self.evaluate(job, "alloc-stop", index)
        self.agent.events.publish(index, "AllocationUpdateDesiredStatus", [self.allocation_event(allocation)])
        self.agent.runner.stop(allocation)
        return row


def counts_need_placement(counts: dict[str, Row]) -> bool:
    return any(row["Place"] or row["DestructiveUpdate"] for row in counts.values())


def _filtered(reason: str, resources: list[str]) -> Row:
    metric = {
        "AllocationTime": 1, "ClassExhausted": None, "ClassFiltered": None, "CoalescedFailures": 0,
        "ConstraintFiltered": {reason: 1}, "DimensionExhausted": None, "NodePool": "default",
        "NodesAvailable": {"dc1": 1}, "NodesEvaluated": 1, "NodesExhausted": 0, "NodesFiltered": 1, "NodesInPool": 1,
        "QuotaExhausted": None, "ResourcesExhausted": None, "ScoreMetaData": None, "Scores": None,
    }  # fmt: skip
    return {"metric": metric, "resources": resources}
