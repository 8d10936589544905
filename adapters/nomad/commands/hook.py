"""`snapbridge hook`: what a prestart or poststop task runs, so that its group's volumes are snapshotted in time.

A hook asks once per allocation and volume, whoever restarts it; it ends with 0 only if every snapshot is there
(or with --best-effort, which says so).
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from adapters.nomad.commands import task as tasks
from adapters.nomad.commands.patience import Patient
from adapters.nomad.commands.task import Task
from adapters.nomad.decide import names
from bridge.ports.commands import Argument, Call, Command, Exit, Json, Kind, Option, StopError

SUMMARY = "Snapshots of a job's volumes, asked for by the job's own tasks."
QUERY_SECONDS = 20.0
CUT_QUERY_SECONDS = 1.0
SECOND_CHANCE_SECONDS = 30.0
_NAME_PART = 40


def _snapshot(call: Call) -> int:
    """Ask for everything, then wait for everything."""
    task = tasks.of(call.environ)
    try:
        return _all(call, task)
    except StopError as stop:
        if not call.values["best_effort"] or stop.code == Exit.USAGE:
            raise
        call.terminal.note(f"Warning: {stop.message}")
        if stop.hint:
            call.terminal.note(f"  {stop.hint}")
        call.terminal.note("Warning: there is no snapshot; the task goes on (--best-effort)")
        return Exit.DONE


def _all(call: Call, task: Task) -> int:
    deadline = time.monotonic() + call.values["timeout"]
    patient = Patient(call, lambda: tasks.service(call, task), call.values["connect_timeout"])
    volumes = _volumes(call, task, patient)
    asked = [(volume, _ask(call, task, patient, volume)) for volume in volumes]
    stops = []
    for volume, accepted in asked:
        try:
            _await(call, patient, volume, accepted, deadline)
        except StopError as stop:
            stops.append(stop)
    if len(stops) == 1 and len(volumes) == 1:
        raise stops[0]
    for failed in stops:
        call.terminal.note(f"Error: {failed.message}" + (f"\n  {failed.hint}" if failed.hint else ""))
    if stops:
        code = Exit.PARTIAL if len(stops) < len(volumes) else stops[0].code
        raise StopError(f"{len(stops)} of {len(volumes)} snapshots failed", code=code)
    return Exit.DONE


def _volumes(call: Call, task: Task, patient: Patient) -> Sequence[str]:
    """What is to be cut: what was named, or every volume that this task may touch: those of its own group."""
    query = {"cluster": call.values["cluster"], "namespace": task.namespace}
    claimed = {row["name"]: row for row in patient.get("/v1/volumes", query)["items"]}
    named = [task.volume(given, claimed) for given in call.values["volumes"]]
    for volume in named:
        if volume not in claimed:
            known = ", ".join(claimed) or "none that is registered"
            message = f"the group {task.group!r} of job {task.job!r} does not claim the volume {volume!r}"
            raise StopError(message, hint=f"it claims {known}; name the volume's id (its source)", code=Exit.DENIED)
    if not named and not claimed:
        message = f"no volume that the group {task.group!r} of job {task.job!r} claims is registered as a CSI volume"
        raise StopError(message, hint="`nomad volume status` lists them", code=Exit.NOT_FOUND)
    return list(dict.fromkeys(named)) or sorted(claimed)


def _ask(call: Call, task: Task, patient: Patient, volume: str) -> Json:
    moment = "final" if call.values["final"] else "before"
    given = dict(call.values["parameter"])
    body: Json = {
        "cluster": call.values["cluster"],
        "namespace": task.namespace,
        "name": snapshot_name(task, volume, moment),
        "volume": volume,
        "deletionPolicy": call.values["deletion_policy"],
        "parameters": given,
        "why": call.values["why"] or _why(task, moment),
    }
    accepted = patient.post("/v1/snapshots", body, key=idempotency_key(task, volume, moment))
    call.terminal.note(f"snapshot {accepted['snapshot']['name']} of {volume} is asked for")
    return accepted


def _await(call: Call, patient: Patient, volume: str, accepted: Json, deadline: float) -> None:
    """Until it is ready (or cut). StopError names what is wrong and what to do."""
    snapshot, operation = accepted["snapshot"], accepted["operation"]
    cut_is_enough = call.values["wait_for"] == "cut"
    second_chance = time.monotonic() + SECOND_CHANCE_SECONDS if operation["state"] == "failed" else 0.0
    path = f"/v1/snapshots/{quote(snapshot['uid'], safe='')}"
    said = ""
    while True:
        snapshot = patient.get(path)
        if snapshot["ready"] or (cut_is_enough and (snapshot["cutAt"] or snapshot["handle"])):
            _tell_done(call, volume, snapshot)
            return
        left = deadline - time.monotonic()
        if operation["state"] == "failed" and time.monotonic() >= min(second_chance, deadline):
            raise _failed(volume, snapshot, operation)
        if left <= 0:
            message = (
                f"snapshot {snapshot['name']} of {volume} is {snapshot['state']} after {call.values['timeout']:g} s"
            )
            hint = f"it is finished all the same: snapbridge op watch {operation['id']}; --timeout waits longer"
            raise StopError(message + _because(snapshot), hint=hint, code=Exit.TIMED_OUT)
        state = snapshot["state"] + _because(snapshot)
        if state != said:
            call.terminal.note(f"snapshot {snapshot['name']} of {volume}: {state}")
            said = state
        operation = _next(patient, operation, min(left, CUT_QUERY_SECONDS if cut_is_enough else QUERY_SECONDS))


def _next(patient: Patient, operation: Json, seconds: float) -> Json:
    """The operation after a change, or after so many seconds."""
    if operation["state"] != "running":
        time.sleep(min(seconds, 1.0))
        return operation
    query = {"wait": f"{max(int(seconds * 1000), 1)}ms", "index": operation["version"]}
    path = f"/v1/operations/{quote(operation['id'], safe='')}"
    return patient.get(path, query, timeout=seconds + 15)


def _tell_done(call: Call, volume: str, snapshot: Json) -> None:
    state = "ready" if snapshot["ready"] else "cut"
    consistency = snapshot["labels"].get("consistency")
    note = f" ({consistency})" if consistency else ""
    call.terminal.say(f"snapshot {snapshot['name']} of {volume} is {state}{note}")


def _because(snapshot: Json) -> str:
    failure = snapshot.get("failure") or {}
    text = failure.get("message") or ""
    return f": {text}" if text else ""


def _failed(volume: str, snapshot: Json, operation: Json) -> StopError:
    failure: dict[str, Any] = operation.get("failure") or {}
    code = f" ({failure['code']})" if failure.get("code") else ""
    message = (
        f"snapshot {snapshot['name']} of {volume} failed: {failure.get('message') or 'no reason was told'}{code}"
    )
    return StopError(message, hint=failure.get("hint") or "")


def snapshot_name(task: Task, volume: str, moment: str) -> str:
    """The same for each repeat by this allocation, and no other allocation's nor volume's: a name that is taken
    would stop the deployment.

    >>> snapshot_name(Task("web", "g", "t", "default", "a1b2c3d4-0", "0", ""), "web-data", "before")
    'web-web-data-before-a1b2c3d4'
    """
    shown = _plain(volume)
    parts = (_plain(task.job), shown, names.told_apart(volume, shown), moment, task.allocation[:8])
    return "-".join(text for text in parts if text)


def idempotency_key(task: Task, volume: str, moment: str) -> str:
    """As `snapshot_name`, for the service: one allocation, volume and moment is one snapshot."""
    text = "\n".join((task.namespace, task.job, task.allocation, volume, moment))
    return f"hook-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def _why(task: Task, moment: str) -> str:
    when = "final snapshot" if moment == "final" else "before the start"
    return f"{when}: task {task.name} of job {task.job}"[:200]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_NAME_PART].strip("-")


SNAPSHOT = Command(
    "snapshot",
    "Snapshot the volumes that this task's group claims, and wait.\n\n"
    "For prestart tasks, where a failure stops the deployment, and poststop tasks (--final). VOLUME is an id; "
    "without one every CSI volume of the group is taken. The task needs an identity block for snapbridge; "
    "SNAPBRIDGE_ADDR names the service. A repeat by the same allocation finds the same snapshots.",
    _snapshot,
    arguments=(Argument("volumes", required=False, many=True),),
    options=(
        Option("final", "The last one, of quiet data: for poststop tasks.", kind=Kind.FLAG),
        Option("wait_for", "What to wait for.", choices=("cut", "ready"), default="ready"),
        Option("timeout", "How long to wait for it [10m].", kind=Kind.DURATION, default=600.0, metavar="DURATION"),
        Option(
            "connect_timeout", "For how long a service that is away is tried [1m].", kind=Kind.DURATION, default=60.0,
            metavar="DURATION",
        ),
        Option("best_effort", "End with 0 even without a snapshot; a warning says so.", kind=Kind.FLAG),
        Option("deletion_policy", "Of the snapshots.", choices=("Delete", "Retain"), default="Delete"),
        Option("parameter", "For the driver: key=value; repeatable.", kind=Kind.PAIR, repeated=True),
        Option("why", "A note for people."),
        Option("cluster", "Where the service knows several.", default="", environment="SNAPBRIDGE_CLUSTER"),
    ),
)  # fmt: skip

COMMAND = Command("hook", SUMMARY, commands=(SNAPSHOT,))
