"""Which job uses some volumes, how it can be stopped for a while, and whether it runs. Pure: rows in, values out.

Two ways to stop: `scale` sets the one group that mounts the volumes to 0, `stop` registers the job as stopped with a
mark in its meta. Both keep the job and its versions.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.nomad.decide import claims
from bridge.model.failure import ConflictError, InvalidError, NotFoundError
from bridge.model.revert import Workload, WorkloadState

Row = Mapping[str, Any]

MARK = "paused_by"
"""The meta key of a job that a revert has stopped. Every instance is stopped with it, so it replaces none."""
_WORDS = "snapbridge revert "
START_SECONDS = 10.0
SECOND_NS = 1_000_000_000
BOOKKEEPING = frozenset(
    {
        "CreateIndex", "JobModifyIndex", "ModifyIndex", "NomadTokenID", "Stable", "Status", "StatusDescription",
        "SubmitTime", "Version", "VersionTag",
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Memo:
    """What a revert remembers of the job: all that stopping and starting it need."""

    job: str
    version: int
    index: int
    """Its JobModifyIndex when it was looked at."""
    created: int
    mode: str
    groups: Mapping[str, int]
    """The groups that mount the volumes, and their counts."""
    mark: str
    target: int | None = None
    """The version to start afterwards, where another one was asked for."""

    @classmethod
    def of(cls, workload: Workload) -> Memo:
        """Read it back."""
        return cls(**json.loads(workload.memo))

    def text(self) -> str:
        """As kept in the journal."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def sentence(self) -> str:
        """The mark, for people."""
        return f"{_WORDS}{self.mark}"


def is_paused(job: Row) -> bool:
    """Whether a job is stopped by a revert of ours, for a while."""
    return bool(job.get("Stop")) and str((job.get("Meta") or {}).get(MARK) or "").startswith(_WORDS)


def users(volumes: Sequence[Row], name: str) -> str:
    """The one job that claims these volumes, or that is named; empty when there is none.

    ConflictError: several jobs, several writers, or a claim that nobody can be asked to give back.
    """
    jobs = {name} if name else set()
    for row in volumes:
        stubs = {str(stub["ID"]): stub for stub in row.get("Allocations") or () if stub.get("ID")}
        writers, readers = list(row.get("WriteAllocs") or ()), list(row.get("ReadAllocs") or ())
        for claim in (*writers, *readers):
            if claim not in stubs:
                raise ConflictError(
                    f"the volume {row['ID']!r} has a claim of the allocation {claim}, which is in no list",
                    hint="a stuck claim goes within Nomad's claim GC (5 minutes), or with `nomad volume detach`",
                )
            jobs.add(str(stubs[claim].get("JobID") or ""))
        if len(writers) > 1:
            raise ConflictError(
                f"{len(writers)} allocations write to the volume {row['ID']!r}",
                hint="scale it down to one writer first: only one can be stopped and started safely",
            )
    if len(jobs) > 1:
        raise ConflictError(
            f"several jobs use it: {', '.join(sorted(jobs))}", hint="stop all but one of them, then ask again"
        )
    return next(iter(jobs), "")


def workload(job: Row, volumes: Sequence[str], mark: str, target: Row | None) -> Workload | None:
    """How this job would be stopped and started; None when none of its instances would be.

    ConflictError or InvalidError when that makes no sense, or would lose something.
    """
    name = str(job["ID"])
    _refuse_kind(job)
    if job.get("Stop"):
        if target is not None:
            raise ConflictError(f"the job {name!r} is stopped", hint="start it, or revert its volumes by hand")
        return None
    groups = [group for group in job.get("TaskGroups") or () if set(claims.claimed(group)) & set(volumes)]
    if not groups:
        raise ConflictError(
            f"the job {name!r} does not mount {', '.join(volumes)} in its current version",
            hint="wait until its deployment is through, or name the right one",
        )
    counts = {str(group["Name"]): int(group.get("Count") or 0) for group in groups}
    if target is not None:
        _refuse_target(job, target, volumes)
    elif not any(counts.values()):
        return None
    mode = "scale" if target is None and _scales(job, groups) else "stop"
    memo = Memo(
        job=name,
        version=int(job["Version"]),
        index=int(job["JobModifyIndex"]),
        created=int(job["CreateIndex"]),
        mode=mode,
        groups=counts,
        mark=mark,
        target=int(target["Version"]) if target is not None else None,
    )
    what = ", ".join(f"group {group} ({count})" for group, count in counts.items())
    if mode == "scale":
        (only,) = counts
        pause, resume = f"scale group {only} of the job {name} to 0", f"scale it to {counts[only]} again"
    else:
        pause, resume = f"stop the job {name}", f"start it again, version {memo.version}"
    if memo.target is not None:
        resume = f"start its version {memo.target} instead of {memo.version}"
        if memo.version - memo.target > 1:
            resume += f", past the {memo.version - memo.target - 1} in between"
    return Workload(f"job {name}", f"job {name}: {what}", pause, resume, memo.text(), _downtime(groups))


def _refuse_kind(job: Row) -> None:
    name, kind = job["ID"], job.get("Type")
    if job.get("ParentID") or job.get("Periodic") or job.get("ParameterizedJob") or kind not in ("service", "system"):
        word = "periodic" if job.get("Periodic") else "dispatched" if job.get("ParentID") else kind
        raise ConflictError(
            f"{name!r} is a {word} job: stopping it would end its run, and starting it again would repeat it",
            hint="wait until it has ended, or stop it; then ask again",
        )
    if job.get("Multiregion"):
        raise ConflictError(f"{name!r} is a multiregion job", hint="stop it in this region, then ask again")


def _refuse_target(job: Row, target: Row, volumes: Sequence[str]) -> None:
    name, version = job["ID"], target["Version"]
    if _spec(target) == _spec(job):
        raise ConflictError(
            f"the job {name!r} is what its version {version} was: there is nothing to undo",
            hint="`snapbridge snapshot revert` takes the data back alone",
        )
    mounted = {volume for group in target.get("TaskGroups") or () for volume in claims.claimed(group)}
    if missing := sorted(mounted - set(volumes)):
        raise ConflictError(
            f"version {version} of {name!r} mounts {', '.join(missing)} too, and no snapshot of it is given",
            hint="the version would meet data that it does not know",
        )
    if strange := sorted(set(volumes) - mounted):
        raise ConflictError(f"version {version} of {name!r} does not mount {', '.join(strange)}")


def _spec(job: Row) -> Any:
    """What a version says, without what Nomad keeps of it."""
    return _plain({key: value for key, value in job.items() if key not in BOOKKEEPING})


def _plain(value: Any) -> Any:
    """Each constraint once: Nomad adds its own ones again at every registration (seen on 2.0.6)."""
    if isinstance(value, Mapping):
        return {
            key: _once(part) if key == "Constraints" and isinstance(part, list) else _plain(part)
            for key, part in value.items()
        }
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _once(rows: list[Any]) -> list[Any]:
    found: list[Any] = []
    for row in rows:
        if row not in found:
            found.append(row)
    return found


def _scales(job: Row, groups: Sequence[Row]) -> bool:
    """One call of one group: several would each wait for the deployment that the one before has begun."""
    least = (groups[0].get("Scaling") or {}).get("Min") or 0
    return len(groups) == 1 and job.get("Type") == "service" and not least and int(groups[0].get("Count") or 0) > 0


def _downtime(groups: Sequence[Row]) -> float:
    """Roughly: the longest kill time-out, the detach, the swap, and the start."""
    tasks = [task for group in groups for task in group.get("Tasks") or ()]
    kill = max((int(task.get("KillTimeout") or 0) for task in tasks), default=0)
    delay = max((int(group.get("ShutdownDelay") or 0) for group in groups), default=0)
    return (kill + delay) / SECOND_NS + START_SECONDS


def version(rows: Sequence[Row], job: str, asked: str) -> Row:
    """The version that was asked for: `7`, or `7@CREATEINDEX`. InvalidError, NotFoundError, ConflictError."""
    wanted, _, created = asked.partition("@")
    if created and any(str(row["CreateIndex"]) != created for row in rows):
        raise ConflictError(f"the job {job!r} was purged and made anew since; its versions are others now")
    if not wanted.isascii() or not wanted.isdecimal():
        raise InvalidError(f"{wanted!r} is no version of a job", field="version", hint="a number, as Nomad shows it")
    for row in rows:
        if int(row["Version"]) == int(wanted):
            return row
    known = ", ".join(str(row["Version"]) for row in rows)
    raise NotFoundError(
        f"Nomad has no version {wanted} of the job {job!r} any more", field="version", hint=f"it has {known}"
    )


def state(memo: Memo, job: Row | None, allocations: Sequence[Row]) -> WorkloadState:
    """How the job stands. `job` is None when it is gone."""
    if job is None or int(job["CreateIndex"]) != memo.created:
        return WorkloadState.HALTED
    if job.get("Stop"):
        ours = memo.mode == "stop" and (job.get("Meta") or {}).get(MARK) == memo.sentence
        return WorkloadState.PAUSED if ours else WorkloadState.HALTED
    groups = {str(group["Name"]): group for group in job.get("TaskGroups") or ()}
    mine = {name: groups[name] for name in memo.groups if name in groups}
    if not mine:  # another version, with other groups: its own
        mine = groups
    wanted = {name: int(group.get("Count") or 0) for name, group in mine.items()}
    if not any(wanted.values()):
        return WorkloadState.PAUSED if memo.mode == "scale" else WorkloadState.HALTED
    system = job.get("Type") == "system"
    for name, count in wanted.items():
        rows = [row for row in allocations if row.get("TaskGroup") == name and row.get("DesiredStatus") == "run"]
        good = sum(_runs(row, groups[name]) for row in rows if row.get("JobVersion") == job["Version"])
        if good < (1 if system else count) or (system and good < len(rows)):
            return WorkloadState.STARTING
    return WorkloadState.RUNNING


def _runs(allocation: Row, group: Row) -> bool:
    """Whether its main tasks run: prestart tasks alone make an allocation `running` too."""
    states = allocation.get("TaskStates") or {}
    main = [str(task["Name"]) for task in group.get("Tasks") or () if not task.get("Lifecycle")]
    return allocation.get("ClientStatus") == "running" and all(
        (states.get(name) or {}).get("State") == "running" for name in main
    )
