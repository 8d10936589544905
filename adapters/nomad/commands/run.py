"""`snapbridge nomad run`: snapshot what a job's running version has written, then register the new version.

Nothing is registered unless every snapshot is there, and only over the version that was snapshotted.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from adapters.nomad.client import part
from adapters.nomad.commands.operator import Operator
from adapters.nomad.decide import claims, names
from bridge.ports.commands import Argument, Call, Command, Exit, Json, Kind, Option, Service, StopError

SUMMARY = "Snapshot a job's volumes, then register its new version."
RUN, JOB, VERSION, CREATED = "run", "job", "job_version", "job_created"
"""Labels of the snapshots, by which `undo` finds them: the version is the one whose data they hold."""
LOOK_SECONDS = 0.5
PLACED_SECONDS = 10.0
"""How long a deployment may take to appear; a job without one has none."""


def _run(call: Call) -> int:
    operator = Operator(call.environ)
    job, submission = _read(call, operator)
    namespace = str(job.get("Namespace") or operator.namespace or "default")
    job = {**job, "Namespace": namespace}
    query = {"namespace": namespace}
    current = operator.find(f"/v1/job/{part(job['ID'])}", query, f"read the job {job['ID']!r}")
    asked = _snapshots(call, job, current)
    index = int(current["JobModifyIndex"]) if current else 0
    body = {"Job": job, "EnforceIndex": True, "JobModifyIndex": index, "Submission": submission}
    try:
        answer = operator.call("PUT", "/v1/jobs", query, body, f"register the job {job['ID']!r}")
    except StopError as stop:
        raise _kept(stop, asked) from None
    for line in str(answer.get("Warnings") or "").splitlines():
        call.terminal.note(line)
    return _tell(call, operator, job)


def _kept(stop: StopError, asked: Sequence[str]) -> StopError:
    """What is left when the registration was refused."""
    if stop.code == Exit.CONFLICT:
        stop = StopError(
            "the job changed meanwhile; nothing was registered", hint="look at it, then run again", code=5
        )
    if asked:
        stop.hint = "; ".join(filter(None, (stop.hint, f"the snapshots stay: {', '.join(asked)}")))
    return stop


# The job file


def _read(call: Call, operator: Operator) -> tuple[Json, Json]:
    """The job and its source, as Nomad's own command submits them."""
    name = call.values["jobfile"]
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StopError(f"{name} cannot be read: {error}", code=Exit.USAGE) from None
    variables = dict(call.values["var"])
    if text.lstrip().startswith("{"):
        return _json(name, text), {"Source": text, "Format": "json"}
    lines = [f"{key} = {_quoted(value)}" for key, value in variables.items()]
    # Not with Nomad's defaults: they would name the namespace `default` where the file names none.
    body = {"JobHCL": text, "Canonicalize": False, "Variables": "\n".join(lines)}
    job = operator.call("POST", "/v1/jobs/parse", {}, body, f"read {name}")
    return dict(job), {"Source": text, "Format": "hcl2", "VariableFlags": variables}


def _quoted(value: str) -> str:
    """A text of HCL that means this value, whatever it holds: `${` and `%{` would begin a template."""
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("${", "$${").replace("%{", "%%{")


def _json(name: str, text: str) -> Json:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise StopError(f"{name} is no JSON: {error}", code=Exit.USAGE) from None
    job = found.get("Job", found)
    if not isinstance(job, dict) or not job.get("ID"):
        hint = "a job as `nomad job run -output` prints it"
        raise StopError(f"{name} holds no job with an ID", hint=hint, code=Exit.USAGE)
    return job


# Snapshots


def _snapshots(call: Call, job: Json, current: Json | None) -> list[str]:
    """Cut everything that the version that is there mounts; the names. StopError: nothing may be registered."""
    name = job["ID"]
    volumes = _volumes(current)
    if not volumes:
        why = "is new" if current is None else f"mounts no CSI volume in its version {current['Version']}"
        if call.values["require_snapshot"]:
            hint = "leave --require-snapshot out"
            raise StopError(f"the job {name!r} {why}: there is nothing to snapshot", hint=hint)
        call.terminal.note(f"The job {name!r} {why}: there is nothing to snapshot")
        return []
    assert current is not None
    service = call.connect()
    run = os.urandom(4).hex()
    asked = [(volume, _ask(call, service, current, volume, run)) for volume in volumes]
    names = [accepted["snapshot"]["name"] for _, accepted in asked]
    enough = _is_cut if call.values["wait_for"] == "cut" else None
    deadline = time.monotonic() + call.values["timeout"]
    for volume, accepted in asked:
        label = f"snapshot {accepted['snapshot']['name']} of {volume}"
        left = max(deadline - time.monotonic(), 0.0)
        try:
            call.terminal.follow(service, accepted["operation"], label=label, seconds=left, enough=enough)
        except StopError as stop:
            stop.message = f"{label}: {stop.message}; the job was not registered"
            raise
    for volume, text in zip(volumes, names, strict=True):
        call.terminal.note(f"snapshot {text} of {volume} is {call.values['wait_for']}")
    return names


def _volumes(current: Json | None) -> list[str]:
    groups = (current or {}).get("TaskGroups") or ()
    return list(dict.fromkeys(volume for group in groups for volume in claims.claimed(group)))


def _ask(call: Call, service: Service, current: Json, volume: str, run: str) -> Json:
    version = current["Version"]
    body: Json = {
        "cluster": call.values["cluster"],
        "namespace": current["Namespace"],
        "name": _name(volume, version, run),
        "volume": volume,
        "deletionPolicy": call.values["deletion_policy"],
        "why": f"before version {version} of the job {current['ID']} was replaced",
        "labels": {
            RUN: run,
            JOB: str(current["ID"]),
            VERSION: str(version),
            CREATED: str(current["CreateIndex"]),
        },
    }
    return service.post("/v1/snapshots", body, key=hashlib.sha256(f"{run} {volume}".encode()).hexdigest())


def _name(volume: str, version: int, run: str) -> str:
    """What `snapshot list` shows; brackets and the like are not for names. No other volume of this run has it."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in volume).strip("-")[:60]
    return "-".join(text for text in (plain, names.told_apart(volume, plain), f"v{version}", run) if text)


def _is_cut(operation: Json) -> bool:
    return any(step["name"] in ("processing", "ready") for step in operation["steps"])


# The deployment


def _tell(call: Call, operator: Operator, job: Json) -> int:
    name, query = job["ID"], {"namespace": job["Namespace"]}
    path = f"/v1/job/{part(name)}"
    now = operator.get(path, query, f"read the job {name!r}")
    # Not the answer's index: of a job that did not change, that is its ModifyIndex (nomad/job_endpoint.go:332).
    version, index = now["Version"], int(now["JobModifyIndex"])
    call.terminal.say(f"job {name} registered as version {version}")
    if call.values["detach"] or job.get("Periodic") or job.get("ParameterizedJob"):
        return Exit.DONE
    began = time.monotonic()
    said = ""
    while True:
        row = operator.get(f"{path}/deployment", query, f"read the deployment of {name!r}") or {}
        mine = row.get("JobVersion") == version
        state = str(row.get("Status") or "") if mine else ""
        if state and state != said:
            call.terminal.note(f"deployment {row['ID'][:8]}: {row.get('StatusDescription') or state}")
            said = state
        if state == "successful":
            return Exit.DONE
        if state in ("failed", "cancelled", "blocked", "unblocking"):
            hint = f"snapbridge nomad undo {quote(name, safe='/')} takes the job and its data back"
            raise StopError(f"the deployment of version {version} has ended: {state}", hint=hint)
        waited = time.monotonic() - began
        if not mine and waited > PLACED_SECONDS and (problem := _unplaced(operator, path, query, index)) is not None:
            if problem:
                raise StopError(f"version {version} is not placed: {problem}", hint="`nomad job status` says more")
            return Exit.DONE
        if waited > call.values["timeout"]:
            raise StopError(
                f"version {version} is not healthy after {call.values['timeout']:g} s",
                hint="it goes on: `nomad job status`", code=Exit.TIMED_OUT,
            )  # fmt: skip
        time.sleep(LOOK_SECONDS)


def _unplaced(operator: Operator, path: str, query: dict[str, str], index: int) -> str | None:
    """Of a version without a deployment: why it is not placed, empty when it is, None while that is not known."""
    rows: list[Any] = operator.get(f"{path}/evaluations", query, "read the evaluations") or []
    mine = [row for row in rows if int(row.get("JobModifyIndex") or 0) >= index]
    found = {str(row["Status"]) for row in mine}
    if "blocked" in found:
        return "its evaluation is blocked"
    if not mine or "pending" in found:
        return None
    return "" if "complete" in found else f"its evaluation is {', '.join(sorted(found))}"


COMMAND = Command(
    name="run",
    help=f"""{SUMMARY}

    Reads JOBFILE (HCL, or JSON; - for standard input), snapshots the CSI volumes of the version that is there, waits
    until they are ready, and registers the job, only if nobody changed it meanwhile (exit code 5). Then follows the
    deployment. Nomad is found as by its own command: NOMAD_ADDR, NOMAD_TOKEN, NOMAD_NAMESPACE, NOMAD_CACERT …
    """,
    run=_run,
    arguments=(Argument("jobfile"),),
    options=(
        Option("var", "Of the job file; repeatable.", kind=Kind.PAIR, repeated=True),
        Option("cluster", "The service's name of this Nomad; only where it has several.", default=""),
        Option("wait_for", "What to wait for before registering [ready].", choices=("ready", "cut"), default="ready"),
        Option("require_snapshot", "Refuse a job without anything to snapshot.", kind=Kind.FLAG),
        Option("deletion_policy", "Of the snapshots [Delete].", choices=("Delete", "Retain"), default="Delete"),
        Option("detach", "Return when the job is registered.", kind=Kind.FLAG),
        Option("timeout", "For the snapshots, and for the deployment [10m].", kind=Kind.DURATION, default=600.0),
    ),
)
