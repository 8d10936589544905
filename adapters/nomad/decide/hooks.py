"""What a job file asks for: `snapbridge_*` meta -> the snapshots of one job version, and everything that is wrong.

Pure: job in Nomad's wire form in, a plan out. Group meta overrides job meta, key by key. A key that is unknown, that
contradicts another or that stands where nothing reads it becomes a problem; none is ignored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bridge.model.snapshot import DeletionPolicy

Row = Mapping[str, Any]

PREFIX = "snapbridge_"
VOLUMES = "snapbridge_volumes"
ON_DEPLOY = "snapbridge_on_deploy"
POLICY = "snapbridge_deletion_policy"
PARAMETERS = "snapbridge_parameters"
KNOWN = (VOLUMES, ON_DEPLOY, POLICY, PARAMETERS)
LATER = ("snapbridge_on_stop", "snapbridge_policy")
"""Keys of later versions: said to be without effect, so that nobody trusts them."""

_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no", "")
_POLICIES = {policy.value.lower(): policy for policy in DeletionPolicy}
_NAME_PART = 20


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


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """All that one job version says to us. `asks` is false for a job without any key of ours."""

    namespace: str
    job: str
    index: int
    """JobModifyIndex: it grows with every new version, also over a purge."""
    version: int
    asks: bool
    wanted: tuple[Wanted, ...] = ()
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Choice:
    """One group's wish for one volume."""

    group: str
    policy: DeletionPolicy
    parameters: tuple[tuple[str, str], ...]


def plan(cluster: str, job: Row) -> Plan:
    """Read one job."""
    problems: list[str] = []
    found = Plan(
        namespace=str(job.get("Namespace") or "default"),
        job=str(job.get("ID") or ""),
        index=int(job.get("JobModifyIndex") or 0),
        version=int(job.get("Version") or 0),
        asks=any(True for _ in _our_keys(job)),
    )
    if not found.asks:
        return found
    problems.extend(_key_problems(job))
    choices: dict[str, list[_Choice]] = {}
    named_by_job: set[str] = set()
    job_meta = _meta(job)
    for group in job.get("TaskGroups") or ():
        problems.extend(_read_group(job_meta, group, choices, named_by_job))
    if not job.get("TaskGroups") and job_meta:
        problems.append("the job has no group")
    inherited = any(VOLUMES not in _meta(group) for group in job.get("TaskGroups") or ())
    lost = [name for name in _names(job_meta.get(VOLUMES, "")) if inherited and name not in named_by_job]
    problems.extend(f"{VOLUMES} names {name!r}, which no group of the job claims as a CSI volume" for name in lost)
    if choices and (job.get("Periodic") or job.get("ParameterizedJob") or job.get("ParentID")):
        problems.append(
            f"{ON_DEPLOY} does nothing for a periodic or parameterized job: each run would be a deploy; "
            "call the API from a prestart task instead"
        )
        choices.clear()
    wanted = [] if job.get("Stop") else list(_wanted(cluster, job, found, choices, problems))
    return dataclasses.replace(found, wanted=tuple(wanted), problems=tuple(dict.fromkeys(problems)))


def stub_is_newer(stub: Row, known: int) -> bool:
    """Whether a row of the jobs list tells of a version that has not been read."""
    return int(stub.get("JobModifyIndex") or 0) > known


def claimed(group: Row, allocation_name: str = "") -> tuple[str, ...]:
    """The ids of the CSI volumes that a group claims; with an allocation's name, only those of that one.

    >>> claimed({"Count": 1, "Volumes": {"v": {"Type": "csi", "Source": "d", "PerAlloc": True}}}, "j.g[2]")
    ('d[2]',)
    """
    ids: list[str] = []
    for volume in (group.get("Volumes") or {}).values():
        if (volume.get("Type") or "") == "csi":
            ids.extend(_ids(volume, group, allocation_name))
    return tuple(dict.fromkeys(ids))


def snapshot_uid(cluster: str, job: Row, volume: str) -> str:
    """The identity of one version's snapshot of one volume: the same for each repeat, restart and resync.

    The submit time is part of it because a rebuilt cluster counts its indexes from the beginning.
    """
    facts = [
        cluster, job.get("Namespace") or "default", job.get("ID"), job.get("Version") or 0,
        job.get("JobModifyIndex") or 0, job.get("SubmitTime") or 0, volume,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def variable_path(job_id: str) -> str:
    """Where a job's summary is kept: a variable's path takes few characters, so others are written `~HEX`.

    Settings may live in `snapbridge/<job>` one day; a summary must never take their place.

    >>> variable_path("a/b c")
    'snapbridge/status/a~2Fb~20c'
    """
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else _hex(c) for c in job_id)
    if len(safe) > 100:
        safe = f"{safe[:80]}~{hashlib.sha256(job_id.encode()).hexdigest()[:16]}"
    return f"snapbridge/status/{safe}"


def _hex(character: str) -> str:
    return "".join(f"~{byte:02X}" for byte in character.encode())


def _our_keys(job: Row) -> Iterator[tuple[str, str]]:
    """(place, key) of every key of ours, wherever it stands."""
    for key in _meta(job):
        yield "job", key
    for group in job.get("TaskGroups") or ():
        for key in _meta(group):
            yield f"group {group.get('Name')!r}", key
        for task in group.get("Tasks") or ():
            for key in _meta(task):
                yield f"task {task.get('Name')!r}", key


def _key_problems(job: Row) -> Iterator[str]:
    for place, key in _our_keys(job):
        if place.startswith("task "):
            yield f"{key} in the meta of {place} is not read; move it to the group or the job"
        elif key in LATER:
            yield f"{key} ({place}) does nothing in this version of snapbridge"
        elif key not in KNOWN:
            yield f"{key} ({place}) is unknown; known keys are {', '.join(KNOWN)}"


def _meta(row: Row) -> dict[str, str]:
    """Our keys of one meta block."""
    return {str(k): str(v) for k, v in (row.get("Meta") or {}).items() if str(k).startswith(PREFIX)}


def _read_group(
    job_meta: Mapping[str, str], group: Row, choices: dict[str, list[_Choice]], named_by_job: set[str]
) -> Iterator[str]:
    name = str(group.get("Name") or "")
    own = _meta(group)
    meta = {**job_meta, **own}
    on_deploy, trouble = _flag(meta.get(ON_DEPLOY, ""))
    policy, policy_trouble = _policy(meta.get(POLICY, ""))
    parameters, parameter_trouble = _parameters(meta.get(PARAMETERS, ""))
    troubles = [text for text in (trouble, policy_trouble, parameter_trouble) if text]
    yield from (f"group {name!r}: {text}" for text in troubles)
    volumes: list[str] = []
    for wish in _names(meta.get(VOLUMES, "")):
        ids, trouble = _resolve(wish, group)
        if ids and VOLUMES not in own:
            named_by_job.add(wish)
        elif trouble and VOLUMES in own:
            yield f"group {name!r}: {trouble}"
        volumes.extend(ids)
    if on_deploy and not _names(meta.get(VOLUMES, "")):
        yield f"group {name!r}: {ON_DEPLOY} is set, but {VOLUMES} names no volume"
    if _names(meta.get(VOLUMES, "")) and ON_DEPLOY not in meta:
        yield f'group {name!r}: {VOLUMES} is set, but nothing says when; set {ON_DEPLOY} = "true"'
    if not on_deploy or policy is None or parameters is None:
        return
    for volume in dict.fromkeys(volumes):
        choices.setdefault(volume, []).append(_Choice(name, policy, tuple(sorted(parameters.items()))))


def _resolve(wish: str, group: Row) -> tuple[tuple[str, ...], str]:
    """A name in the list -> volume ids: `*`, the volume block's label, or the volume's own id."""
    if wish == "*":
        ids = claimed(group)
        return ids, "" if ids else f"{VOLUMES} is *, but the group claims no CSI volume"
    block = (group.get("Volumes") or {}).get(wish)
    if block is not None:
        if block.get("Type") != "csi":
            return (
                (),
                f"{VOLUMES} names {wish!r}, which is a {block.get('Type')!r} volume; only CSI volumes have snapshots",
            )
        return _ids(block, group, ""), ""
    for block in (group.get("Volumes") or {}).values():
        if block.get("Type") == "csi":
            ids = _ids(block, group, "")
            if wish in ids:
                return (wish,), ""
            if wish == block.get("Source"):
                return ids, ""
    return (), f"{VOLUMES} names {wish!r}, which the group does not claim as a CSI volume"


def _ids(volume: Row, group: Row, allocation_name: str) -> tuple[str, ...]:
    """A volume block's ids. With `per_alloc` the id carries the index of the allocation."""
    source = str(volume.get("Source") or "")
    if not source:
        return ()
    if not volume.get("PerAlloc"):
        return (source,)
    if allocation_name:
        match = re.search(r"\[(\d+)\]$", allocation_name)
        return (f"{source}[{match[1]}]",) if match else ()
    return tuple(f"{source}[{place}]" for place in range(int(group.get("Count") or 0)))


def _wanted(
    cluster: str, job: Row, found: Plan, choices: Mapping[str, Sequence[_Choice]], problems: list[str]
) -> Iterator[Wanted]:
    for volume, asked in sorted(choices.items()):
        groups = tuple(sorted({choice.group for choice in asked}))
        if len({choice.parameters for choice in asked}) > 1:
            problems.append(f"groups {', '.join(groups)} want different {PARAMETERS} for {volume!r}; none is taken")
            continue
        policy = asked[0].policy
        if len({choice.policy for choice in asked}) > 1:
            problems.append(f"groups {', '.join(groups)} want different {POLICY} for {volume!r}; Retain is taken")
            policy = DeletionPolicy.RETAIN
        uid = snapshot_uid(cluster, job, volume)
        yield Wanted(
            uid=uid,
            name=_snapshot_name(found, volume, uid),
            namespace=found.namespace,
            job=found.job,
            version=found.version,
            volume=volume,
            groups=groups,
            policy=policy,
            parameters=dict(asked[0].parameters),
        )


def _snapshot_name(found: Plan, volume: str, uid: str) -> str:
    """A name for people that no other version's snapshot has."""
    parts = (_plain(found.job), _plain(volume), f"v{found.version}", uid[:8])
    return "-".join(text for text in parts if text)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_NAME_PART].strip("-")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in re.split(r"[,\s]+", text) if name))


def _flag(text: str) -> tuple[bool, str]:
    value = text.strip().lower()
    if value in _TRUE:
        return True, ""
    if value in _FALSE:
        return False, ""
    return False, f'{ON_DEPLOY} is {text!r}; it is "true" or "false"'


def _policy(text: str) -> tuple[DeletionPolicy | None, str]:
    value = text.strip().lower()
    if not value:
        return DeletionPolicy.DELETE, ""
    if value in _POLICIES:
        return _POLICIES[value], ""
    return None, f"{POLICY} is {text!r}; it is Delete or Retain"


def _parameters(text: str) -> tuple[dict[str, str] | None, str]:
    """`k=v,k2=v2`, or a JSON object of strings for values with commas."""
    text = text.strip()
    if not text:
        return {}, ""
    if text.startswith("{"):
        try:
            read = json.loads(text)
        except ValueError:
            return None, f"{PARAMETERS} begins like JSON and is none"
        if not isinstance(read, dict) or not all(isinstance(value, str) for value in read.values()):
            return None, f"{PARAMETERS} is no JSON object of strings"
        return read, ""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if any(not sign or not key.strip() for key, sign, _ in pairs):
        return None, f"{PARAMETERS} is {text!r}; write key=value,key=value or a JSON object"
    keys = [key.strip() for key, _, _ in pairs]
    if len(set(keys)) != len(keys):
        return None, f"{PARAMETERS} gives a key twice"
    return {key.strip(): value.strip() for key, _, value in pairs}, ""
