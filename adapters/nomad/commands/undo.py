"""`snapbridge nomad undo`: a job's earlier version together with the data that it had, as one operation.

The service does it (an in-place revert that starts another version); this command finds the snapshots.
"""

from __future__ import annotations

import os
import sys
from typing import Any
from urllib.parse import quote

from adapters.nomad.commands import run as runs
from bridge.ports.commands import Argument, Call, Command, Exit, Json, Kind, Option, Service, StopError

SUMMARY = "Take a job back to its previous version, with the data of that time."


def _undo(call: Call) -> int:
    service = call.connect()
    name = call.values["job"]
    namespace = call.values["namespace"] or call.environ.get("NOMAD_NAMESPACE") or "default"
    chosen = _choose(call, service, name, namespace)
    first, *others = chosen
    labels = first["labels"]
    version = labels[runs.VERSION]
    body: Json = {
        "also": [snapshot["uid"] for snapshot in others],
        "workload": name,
        "version": f"{version}@{labels[runs.CREATED]}",
    }
    path = f"/v1/snapshots/{quote(first['uid'], safe='')}/revert"
    if call.values["dry_run"] or not call.values["yes"]:
        plan = service.post(path, {**body, "dryRun": True}, key=os.urandom(16).hex())["plan"]
        if call.values["dry_run"]:
            _show(plan, first, call.terminal.say)
            return Exit.DONE
        _confirm(call, plan, first, f"Take the job {name} back to version {version}?")
    operation = service.post(path, body, key=os.urandom(16).hex())["operation"]
    ended = call.terminal.follow(
        service, operation, label=f"undo {name}", seconds=call.values["timeout"], enough=None
    )
    if left := ended["steps"][-1]["note"]:
        message = f"the data is that of version {version}, but {left}"
        raise StopError(message, hint=f"the replaced data is kept as {ended['result']['kept']}", code=Exit.PARTIAL)
    call.terminal.say(f"job {name} is what its version {version} was, with the data of {first['cutAt']}")
    call.terminal.note(
        f"The replaced data is kept as {ended['result']['kept']}. When all is well: "
        f"snapbridge op acknowledge {ended['id']} --delete"
    )
    return Exit.DONE


def _choose(call: Call, service: Service, name: str, namespace: str) -> list[Json]:
    """The snapshots of one `nomad run`: of the version that is asked for, or the newest."""
    query: dict[str, Any] = {"namespace": namespace}
    if "," not in name:  # no selector can hold one
        query["selector"] = f"{runs.JOB}={name}"
    if call.values["cluster"]:
        query["cluster"] = call.values["cluster"]
    version = call.values["to_version"]
    wanted = {runs.JOB: name} if version is None else {runs.JOB: name, runs.VERSION: str(version)}
    rows = [row for row in service.items("/v1/snapshots", query) if _is_of_run(row["labels"], wanted)]
    if not rows:
        which = f" of version {call.values['to_version']}" if call.values["to_version"] is not None else ""
        raise StopError(
            f"there are no snapshots{which} that `snapbridge nomad run` took of the job {name!r}",
            hint="`snapbridge snapshot list` shows what there is; `snapbridge snapshot revert` takes data back alone",
            code=Exit.NOT_FOUND,
        )
    newest = max(rows, key=lambda row: row["createdAt"] or "")
    chosen = [row for row in rows if row["labels"][runs.RUN] == newest["labels"][runs.RUN]]
    if late := [row["name"] for row in chosen if not row["ready"]]:
        raise StopError(
            f"the snapshot {late[0]!r} is not ready", hint="`snapbridge snapshot describe`", code=Exit.CONFLICT
        )
    return sorted(chosen, key=lambda row: str(row["volume"]))


def _is_of_run(labels: Json, wanted: Json) -> bool:
    """Whether `nomad run` has put these labels on, all of them: people may have used some of the words."""
    made = all(labels.get(label) for label in (runs.RUN, runs.VERSION, runs.CREATED))
    return made and all(labels.get(label) == value for label, value in wanted.items())


def _show(plan: Json, first: Json, say: Any) -> None:
    say(f"Data of {first['cutAt']}; what was written since is kept aside, under {', '.join(plan['keeps'])}")
    if plan["stops"]:
        say(f"Stopped for about {plan['downtimeSeconds']:g} s: {plan['stops']}")
    for number, step in enumerate(plan["steps"], start=1):
        say(f"  {number}. {step}")


def _confirm(call: Call, plan: Json, first: Json, question: str) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StopError("an undo stops the job", hint="look with --dry-run, then give --yes", code=Exit.USAGE)
    _show(plan, first, call.terminal.note)
    call.terminal.note(f"{question} [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise StopError("nothing was done", code=Exit.FAILED)


COMMAND = Command(
    name="undo",
    help=f"""{SUMMARY}

    Uses the snapshots that `snapbridge nomad run` took right before it replaced that version. The job is stopped, its
    volumes are put back, and the version is registered again, as one operation that survives a restart of the
    service. If anything fails, job and volumes are put back as they were.
    """,
    run=_undo,
    arguments=(Argument("job"),),
    options=(
        Option("to_version", "The version to go back to [the one before the last run].", kind=Kind.NUMBER),
        Option("namespace", "The job's [NOMAD_NAMESPACE, or default].", short="n", default=""),
        Option("cluster", "The service's name of this Nomad; only where it has several.", default=""),
        Option("dry_run", "Show the steps and change nothing.", kind=Kind.FLAG),
        Option("yes", "Do not ask.", kind=Kind.FLAG, short="y"),
        Option("timeout", "How long to follow it [30m]; it goes on by itself.", kind=Kind.DURATION, default=1800.0),
    ),
)
