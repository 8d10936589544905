"""What operators set: `snapbridge_*` meta and the items of a job's variable -> typed settings of each group.

Four layers, the later wins key by key: the job's meta, the group's meta, the variable, the variable's lines for that
group (`group.<name>.<key>`). A key that is unknown, that contradicts another or that stands where nothing reads it
becomes a problem; none is ignored. Values of unknown keys are never repeated: they may be secrets.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from adapters.nomad.decide import quiesce_settings, values
from bridge.model.snapshot import DeletionPolicy

Row = Mapping[str, Any]
T = TypeVar("T")

PREFIX = "snapbridge_"
VOLUMES = "snapbridge_volumes"
ON_DEPLOY = "snapbridge_on_deploy"
ON_STOP = "snapbridge_on_stop"
ON_STOP_WAIT = "snapbridge_on_stop_wait"
DELETION_POLICY = "snapbridge_deletion_policy"
PARAMETERS = "snapbridge_parameters"
TOGETHER = "snapbridge_together"
POLICY = "snapbridge_policy"
KNOWN = (VOLUMES, ON_DEPLOY, ON_STOP, ON_STOP_WAIT, TOGETHER, DELETION_POLICY, PARAMETERS, POLICY)
ELSEWHERE: tuple[str, ...] = quiesce_settings.KEYS
"""Keys of ours that another module reads: they may stand in a job or group meta or in the variable."""

_GROUP_LINE = "group."
_STOP_WAIT_SECONDS = 120.0
_MOST_TEXT = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """One setting as it was written. `place` is for people: where it stands."""

    text: str
    place: str
    of_group: bool
    """It was written for this group alone; else it holds for all groups of the job."""


Layer = Mapping[str, Given]


@dataclasses.dataclass(frozen=True, slots=True)
class GroupSettings:
    """What is wanted of one group's volumes."""

    group: str
    volumes: tuple[str, ...] = ()
    """Labels, ids or `*`, as written."""
    shared_volumes: bool = True
    """The list holds for all groups of the job: a name need not be known in each of them."""
    on_deploy: bool = False
    on_stop: bool = False
    stop_wait_seconds: float = _STOP_WAIT_SECONDS
    together: bool = False
    """Its volumes are cut at one moment with those of the job's other groups that want the same."""
    deletion_policy: DeletionPolicy = DeletionPolicy.DELETE
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    policy: str = ""
    """The name of a policy for schedules: noted, and nothing more."""
    understood: bool = True
    """False when a value was not understood: then nothing is cut for this group."""


@dataclasses.dataclass(frozen=True, slots=True)
class JobSettings:
    """All groups of a job, and what is wrong. `given` is false for a job without any key of ours."""

    given: bool
    groups: tuple[GroupSettings, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read(job: Row, items: Mapping[str, str] | None = None, path: str = "") -> JobSettings:
    """The settings of one job. `items` are those of its variable at `path`, None where there is none."""
    in_groups = [_meta(group, f"group {group.get('Name')!r}", of_group=True) for group in _groups(job)]
    in_job = _meta(job, "job", of_group=False)
    problems = list(_misplaced(job))
    for layer in (in_job, *in_groups):
        problems.extend(_unknown(layer))
    in_variable, in_lines, said = _variable(job, items or {}, path)
    problems.extend(said)
    if not (in_job or problems or in_variable or in_lines or any(in_groups) or items):
        return JobSettings(given=False)
    found = []
    notes: list[str] = []
    for group, own in zip(_groups(job), in_groups, strict=True):
        name = str(group.get("Name") or "")
        layer = {**in_job, **own, **in_variable, **in_lines.get(name, {})}
        settings, said = _group(name, layer)
        problems.extend(f"group {name!r}: {text}" for text in said)
        if settings.policy:
            notes.append(f"{POLICY}: no policy engine yet: {settings.policy} is noted only")
        found.append(settings)
    if not found:
        problems.append("the job has no group")
    unique = tuple(dict.fromkeys(problems))
    return JobSettings(True, tuple(found), unique, tuple(dict.fromkeys(notes)))


def _groups(job: Row) -> tuple[Row, ...]:
    return tuple(job.get("TaskGroups") or ())


def _meta(row: Row, place: str, *, of_group: bool) -> dict[str, Given]:
    """Our keys of one meta block, and those that are meant to be ours: `snapbridge-volumes` is told as unknown."""
    ours = {str(k): str(v) for k, v in (row.get("Meta") or {}).items() if _plain(str(k)).startswith(PREFIX)}
    return {key: Given(text, place, of_group) for key, text in ours.items()}


def _plain(key: str) -> str:
    return key.lower().replace("-", "_").replace(".", "_")


def _misplaced(job: Row) -> Iterator[str]:
    for group in _groups(job):
        for task in group.get("Tasks") or ():
            for key in _meta(task, "", of_group=True):
                if key not in ELSEWHERE:
                    place = f"task {task.get('Name')!r}"
                    yield f"{key} in the meta of {place} is not read; move it to the group or the job"


def _unknown(layer: Layer) -> Iterator[str]:
    for key, given in layer.items():
        if key not in KNOWN and key not in ELSEWHERE:
            yield f"{key} ({given.place}) is unknown; {_advice(key)}"


def _advice(key: str) -> str:
    every = {known.removeprefix(PREFIX): known for known in (*KNOWN, *ELSEWHERE)}
    near = difflib.get_close_matches(_plain(key).removeprefix(PREFIX), every, n=1)
    return f"did you mean {every[near[0]]}?" if near else f"known keys are {', '.join(every.values())}"


def _variable(
    job: Row, items: Mapping[str, str], path: str
) -> tuple[dict[str, Given], dict[str, dict[str, Given]], list[str]]:
    """The variable's keys for the whole job, those for single groups, and what is wrong with them."""
    whole: dict[str, Given] = {}
    lines: dict[str, dict[str, Given]] = {}
    problems: list[str] = []
    place = f"variable {path}"
    groups = sorted((str(group.get("Name") or "") for group in _groups(job)), key=len, reverse=True)
    for item, text in items.items():
        into, key, of_group = whole, item, False
        if item.startswith(_GROUP_LINE):
            rest = item.removeprefix(_GROUP_LINE)
            group = next((name for name in groups if rest.startswith(f"{name}.")), None)
            if group is None:
                problems.append(
                    f"{item} ({place}) names no group of the job; write {_GROUP_LINE}NAME.KEY with one of: "
                    f"{', '.join(sorted(groups))}"
                )
                continue
            into, key, of_group = lines.setdefault(group, {}), rest.removeprefix(f"{group}."), True
        full = key if key.startswith(PREFIX) else PREFIX + key
        if full not in KNOWN and full not in ELSEWHERE:
            problems.append(f"{item} ({place}) is unknown; {_advice(full)}")
        elif full in into and into[full].text != str(text):
            problems.append(
                f"{item} ({place}) is there twice, with and without {PREFIX}, and they differ; remove one"
            )
            into[full] = Given(_CONTRADICTION, place, of_group)
        else:
            into[full] = Given(str(text), place, of_group)
    return whole, lines, problems


_CONTRADICTION = "\0"
"""Stands for a value that is written twice and differently: no parser takes it."""


def _group(name: str, layer: Layer) -> tuple[GroupSettings, list[str]]:
    """One group's settings from its merged layer, and what is wrong with them."""
    problems: list[str] = []
    failed = False

    def value(key: str, parse: Callable[[str], T], default: T) -> T:
        nonlocal failed
        given = layer.get(key)
        if given is None:
            return default
        if given.text == _CONTRADICTION:
            failed = True
            return default
        try:
            return parse(given.text)
        except values.NotUnderstoodError as error:
            failed = True
            where = f" ({given.place})" if given.place.startswith("variable") else ""
            problems.append(f"{key}{where} is {given.text[:_MOST_TEXT]!r}; {error}")
            return default

    given_volumes = layer.get(VOLUMES)
    settings = GroupSettings(
        group=name,
        volumes=value(VOLUMES, values.names, ()),
        shared_volumes=given_volumes is None or not given_volumes.of_group,
        on_deploy=value(ON_DEPLOY, values.flag, False),
        on_stop=value(ON_STOP, values.flag, False),
        stop_wait_seconds=value(ON_STOP_WAIT, values.seconds, _STOP_WAIT_SECONDS),
        together=value(TOGETHER, values.flag, False),
        deletion_policy=value(DELETION_POLICY, values.deletion_policy, DeletionPolicy.DELETE),
        parameters=value(PARAMETERS, values.parameters, {}),
        policy=value(POLICY, values.name, ""),
    )
    if not failed:
        problems.extend(_contradictions(settings, layer))
    return dataclasses.replace(settings, understood=not failed), problems


def _contradictions(settings: GroupSettings, layer: Layer) -> Iterator[str]:
    """Settings that are each well written and make no sense together."""
    on = [key for key, there in ((ON_DEPLOY, settings.on_deploy), (ON_STOP, settings.on_stop)) if there]
    if on and not settings.volumes:
        yield f"{' and '.join(on)} is set, but {VOLUMES} names no volume"
    said_when = ON_DEPLOY in layer or ON_STOP in layer or settings.policy
    if settings.volumes and not said_when:
        yield f'{VOLUMES} is set, but nothing says when; set {ON_DEPLOY} or {ON_STOP} = "true"'
    if ON_STOP_WAIT in layer and not settings.on_stop:
        yield f"{ON_STOP_WAIT} does nothing without {ON_STOP}"
    if settings.together and not on:
        yield f"{TOGETHER} does nothing without {ON_DEPLOY} or {ON_STOP}"
    if not settings.volumes and not on:
        idle = [key for key in (DELETION_POLICY, PARAMETERS, POLICY) if key in layer and layer[key].text.strip()]
        if idle:
            yield f"{' and '.join(idle)} does nothing: {VOLUMES} names no volume"
