"""What one version of a job asks for: settings and claims in, snapshots wanted and everything that is wrong out.

Pure. A running version may want a snapshot because it was deployed, a stopped one because it was stopped; which one
a snapshot is for is part of its uid, so that a repeat, a restart or a resync finds it again.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adapters.nomad.decide import claims, paths, quiesce_settings, settings, workloads
from adapters.nomad.decide.claims import claimed as claimed
from adapters.nomad.decide.settings import GroupSettings
from bridge.model.snapshot import DeletionPolicy

Row = Mapping[str, Any]

_NAME_PART = 20


class Moment(enum.Enum):
    """Why a version wants a snapshot."""

    DEPLOY = "deploy"
    STOP = "stop"


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """One snapshot that this job version asks for. `volume` is the Nomad volume id."""

    uid: str
    name: str
    namespace: str
    job: str
    version: int
    volume: str
    groups: tuple[str, ...]
    policy: DeletionPolicy
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    moment: Moment = Moment.DEPLOY
    wait_seconds: float = 0.0
    """How long to wait until nobody writes to the volume any more."""
    named_policy: str = ""
    together: bool = False
    group_uid: str = ""
    """The same for all that are cut at one moment; empty for what is cut alone."""
    group_name: str = ""

    @property
    def why(self) -> str:
        """For the record."""
        match self.moment:
            case Moment.DEPLOY:
                return f"deploy of version {self.version}"
            case Moment.STOP:
                return f"stop of the job (version {self.version})"

    @property
    def labels(self) -> dict[str, str]:
        """For the record."""
        found = {"job": self.job, "group": ",".join(self.groups)}
        if self.named_policy:
            found["policy"] = self.named_policy
        if self.group_name:
            found["together"] = self.group_name
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """All that one job version says to us. `asks` is false for a job without any key of ours."""

    namespace: str
    job: str
    index: int
    """JobModifyIndex: it grows with every new version, also over a purge."""
    version: int
    asks: bool
    stopped: bool = False
    wanted: tuple[Wanted, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    policies: Mapping[str, DeletionPolicy] = dataclasses.field(default_factory=dict)
    """Volume id -> the deletion policy that this job sets for its snapshots, whether one is wanted now or not."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Choice:
    """One group's wish for one volume."""

    group: GroupSettings

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(self.group.parameters.items()))


def plan(cluster: str, job: Row, items: Mapping[str, str] | None = None, *, purged: bool = False) -> Plan:
    """Read one job, and the items of its settings variable. `purged`: it is stopped by being removed."""
    job_id = str(job.get("ID") or "")
    read = settings.read(job, items, paths.settings_path(job_id))
    found = Plan(
        namespace=str(job.get("Namespace") or "default"),
        job=job_id,
        index=int(job.get("JobModifyIndex") or 0),
        version=int(job.get("Version") or 0),
        asks=read.given,
        stopped=bool(job.get("Stop")) or purged,
    )
    if not found.asks:
        return found
    problems = [*read.problems, *quiesce_settings.problems(job, items)]
    choices = _choices(job, read.groups, problems)
    if job.get("Periodic") or job.get("ParameterizedJob") or job.get("ParentID"):
        problems.extend(_template_problems(choices))
        choices = {}
    notes = read.notes
    if found.stopped and workloads.is_paused(job):
        notes, choices = (*notes, "the job is stopped by a revert: that is no stop of its own, so nothing is cut"), {}
    wanted = _joined(cluster, job, found, tuple(_wanted(cluster, job, found, choices, problems)), problems)
    return dataclasses.replace(
        found,
        wanted=wanted,
        problems=tuple(dict.fromkeys(problems)),
        notes=notes,
        policies={volume: _policy(asked) for volume, asked in choices.items()},
    )


def stub_is_newer(stub: Row, known: int) -> bool:
    """Whether a row of the jobs list tells of a version that has not been read."""
    return int(stub.get("JobModifyIndex") or 0) > known


def may_ask(row: Row) -> bool:
    """Whether a job (or its row in the list) may ask for anything: a run of a template is no deploy and no stop."""
    return not row.get("ParentID")


def agreed(own: DeletionPolicy, others: Mapping[str, DeletionPolicy]) -> tuple[DeletionPolicy, tuple[str, ...]]:
    """The policy for a volume that other jobs have settings for too, and which of them want another.

    Retain wins: what was kept can still be deleted.
    """
    against = tuple(sorted(job for job, policy in others.items() if policy is not own))
    return (DeletionPolicy.RETAIN if against else own), against


def snapshot_uid(cluster: str, job: Row, volume: str, moment: Moment = Moment.DEPLOY) -> str:
    """The identity of one version's snapshot of one volume: the same for each repeat, restart and resync.

    The submit time is part of it because a rebuilt cluster counts its indexes from the beginning.
    """
    facts = [
        cluster, job.get("Namespace") or "default", job.get("ID"), job.get("Version") or 0,
        job.get("JobModifyIndex") or 0, job.get("SubmitTime") or 0, volume,
    ]  # fmt: skip
    if moment is Moment.STOP:
        facts.append(moment.value)
    digest = hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def _choices(job: Row, groups: Sequence[GroupSettings], problems: list[str]) -> dict[str, list[_Choice]]:
    """Volume id -> what each group wants of it. Names that stand for nothing are told."""
    choices: dict[str, list[_Choice]] = {}
    shared: dict[str, bool] = {}
    for group, own in zip(job.get("TaskGroups") or (), groups, strict=True):
        volumes: list[str] = []
        for name in own.volumes:
            match = claims.find(name, group)
            volumes.extend(match.ids)
            if own.shared_volumes:
                shared[name] = shared.get(name, False) or match.known
            if match.trouble and not own.shared_volumes:
                problems.append(f"group {own.group!r}: {settings.VOLUMES} names {name!r}, but {match.trouble}")
        if own.understood and (own.on_deploy or own.on_stop):
            for volume in dict.fromkeys(volumes):
                choices.setdefault(volume, []).append(_Choice(own))
    lost = (name for name, known in shared.items() if not known)
    problems.extend(
        f"{settings.VOLUMES} names {name!r}, which no group of the job claims as a CSI volume" for name in lost
    )
    return choices


def _template_problems(choices: Mapping[str, Sequence[_Choice]]) -> Iterator[str]:
    every = [choice.group for asked in choices.values() for choice in asked]
    for key, on in (
        (settings.ON_DEPLOY, any(group.on_deploy for group in every)),
        (settings.ON_STOP, any(group.on_stop for group in every)),
    ):
        if on:
            yield (
                f"{key} does nothing for a periodic or parameterized job: each run would be one; "
                "call the API from a prestart or poststop task instead"
            )


def _wanted(
    cluster: str, job: Row, found: Plan, choices: Mapping[str, Sequence[_Choice]], problems: list[str]
) -> Iterator[Wanted]:
    moment = Moment.STOP if found.stopped else Moment.DEPLOY
    for volume, every in sorted(choices.items()):
        if len({choice.group.deletion_policy for choice in every}) > 1:
            problems.append(
                f"{_names(every)} want different {settings.DELETION_POLICY} for {volume!r}; Retain is taken"
            )
        asked = [c for c in every if (c.group.on_stop if moment is Moment.STOP else c.group.on_deploy)]
        if len({choice.parameters for choice in asked}) > 1:
            problems.append(f"{_names(asked)} want different {settings.PARAMETERS} for {volume!r}; none is taken")
            continue
        if not asked:
            continue
        uid = snapshot_uid(cluster, job, volume, moment)
        yield Wanted(
            uid=uid,
            name=_snapshot_name(found, volume, uid, moment),
            namespace=found.namespace,
            job=found.job,
            version=found.version,
            volume=volume,
            groups=tuple(sorted({choice.group.group for choice in asked})),
            policy=_policy(every),
            parameters=dict(asked[0].parameters),
            moment=moment,
            wait_seconds=max(c.group.stop_wait_seconds for c in asked) if moment is Moment.STOP else 0.0,
            named_policy=",".join(sorted({c.group.policy for c in asked if c.group.policy})),
            together=any(c.group.together for c in asked),
        )


def _joined(
    cluster: str, job: Row, found: Plan, wanted: tuple[Wanted, ...], problems: list[str]
) -> tuple[Wanted, ...]:
    """What is to be cut at one moment gets one group. Who is in it is part of every uid: with another volume it is
    another group, and all of it is cut anew."""
    members = [one for one in wanted if one.together]
    if len(members) < 2:
        return wanted
    moment = members[0].moment
    uid = snapshot_uid(cluster, job, json.dumps([one.volume for one in members]), moment)
    name = "-".join(text for text in (_plain(found.job), f"v{found.version}", _word(moment), "all", uid[:8]) if text)
    policies = {one.policy for one in members}
    if len(policies) > 1:
        problems.append(
            f"{settings.TOGETHER} joins volumes with different {settings.DELETION_POLICY}; Retain is taken"
        )
    policy = DeletionPolicy.RETAIN if DeletionPolicy.RETAIN in policies else DeletionPolicy.DELETE
    joined = []
    for one in wanted:
        if one.together:
            own = snapshot_uid(cluster, job, json.dumps([uid, one.volume]), moment)
            title = _snapshot_name(found, one.volume, own, moment)
            one = dataclasses.replace(one, uid=own, name=title, policy=policy, group_uid=uid, group_name=name)
        joined.append(one)
    return tuple(joined)


def _names(asked: Sequence[_Choice]) -> str:
    return f"groups {', '.join(sorted({choice.group.group for choice in asked}))}"


def _policy(asked: Sequence[_Choice]) -> DeletionPolicy:
    """Of groups that differ, Retain."""
    policies = {choice.group.deletion_policy for choice in asked}
    return DeletionPolicy.RETAIN if DeletionPolicy.RETAIN in policies else DeletionPolicy.DELETE


def _snapshot_name(found: Plan, volume: str, uid: str, moment: Moment) -> str:
    """A name for people that no other version's snapshot has."""
    parts = (_plain(found.job), _plain(volume), f"v{found.version}", _word(moment), uid[:8])
    return "-".join(text for text in parts if text)


def _word(moment: Moment) -> str:
    return "stop" if moment is Moment.STOP else ""


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_NAME_PART].strip("-")
