"""How a group's task is held still: the `snapbridge_quiesce*` settings of a job -> two shell texts and a bound.

Pure. The layers are those of settings.py (job meta, group meta, the variable, its lines for the group), key by key.
A setting that was not understood holds nothing still, and unless it is said that it may be missing, cuts nothing.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]

TASK = "snapbridge_quiesce_task"
FREEZE = "snapbridge_quiesce"
THAW = "snapbridge_thaw"
FREEZE_ACTION = "snapbridge_quiesce_action"
THAW_ACTION = "snapbridge_thaw_action"
SECONDS = "snapbridge_quiesce_seconds"
REQUIRED = "snapbridge_quiesce_required"
KEYS = (TASK, FREEZE, THAW, FREEZE_ACTION, THAW_ACTION, SECONDS, REQUIRED)

DEFAULT_SECONDS, LEAST_SECONDS, MOST_SECONDS = 30, 2, 300
_PREFIX = "snapbridge_"
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclasses.dataclass(frozen=True, slots=True)
class Quiesce:
    """How one task is frozen and thawed. Both are texts for /bin/sh -c; thawing twice must do no harm."""

    task: str
    freeze: str
    thaw: str
    seconds: int = DEFAULT_SECONDS
    """The longest time from the beginning of the freeze to the thaw."""
    required: bool = True
    """No snapshot without it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What a group's settings come to. Neither a `quiesce` nor problems: it asks for nothing."""

    quiesce: Quiesce | None = None
    problems: tuple[str, ...] = ()
    required: bool = True


def read(job: Row, group: Row, items: Mapping[str, str] | None = None) -> Reading:
    """One group's settings. `items` are those of the job's variable."""
    given = _merged(job, group, items or {})
    if not any(given.get(key, "").strip() for key in KEYS):
        return Reading()
    if _is_anothers(job, group, items or {}, given.get(TASK, "").strip()):
        return Reading()
    problems: list[str] = []
    seconds = _seconds(given.get(SECONDS, ""), problems)
    required = _flag(given.get(REQUIRED, ""), problems)
    task = _task(given.get(TASK, "").strip(), group, problems)
    freeze, thaw = _texts(given, task, problems)
    if problems or task is None:
        return Reading(None, tuple(problems), required)
    return Reading(Quiesce(str(task["Name"]), freeze, thaw, seconds, required), (), required)


def problems(job: Row, items: Mapping[str, str] | None = None) -> Iterator[str]:
    """Everything that is wrong in a job, group by group."""
    for group in job.get("TaskGroups") or ():
        for text in read(job, group, items).problems:
            yield f"group {group.get('Name')!r}: {text}"
        for task in group.get("Tasks") or ():
            for key in sorted(set(KEYS) & set(task.get("Meta") or {})):
                yield f"{key} in the meta of task {task.get('Name')!r} is not read; move it to the group or the job"


def _is_anothers(job: Row, group: Row, items: Mapping[str, str], task: str) -> bool:
    """Whether settings of the whole job name a task of another group: they are not for this one."""
    line = f"group.{group.get('Name')}."
    own = any(key in KEYS for key in group.get("Meta") or {}) or any(key.startswith(line) for key in items)
    if own or not task or _has(group, task):
        return False
    return any(_has(other, task) for other in job.get("TaskGroups") or ())


def _has(group: Row, task: str) -> bool:
    return any(one.get("Name") == task for one in group.get("Tasks") or ())


def _merged(job: Row, group: Row, items: Mapping[str, str]) -> dict[str, str]:
    whole = {_full(key): text for key, text in items.items() if not key.startswith("group.")}
    line = f"group.{group.get('Name')}."
    own = {_full(key.removeprefix(line)): text for key, text in items.items() if key.startswith(line)}
    merged = {**(job.get("Meta") or {}), **(group.get("Meta") or {}), **whole, **own}
    return {key: str(text) for key, text in merged.items() if key in KEYS}


def _full(key: str) -> str:
    return key if key.startswith(_PREFIX) else _PREFIX + key


def _seconds(text: str, problems: list[str]) -> int:
    text = text.strip().removesuffix("s")
    if not text:
        return DEFAULT_SECONDS
    if text.isascii() and text.isdigit() and LEAST_SECONDS <= int(text) <= MOST_SECONDS:
        return int(text)
    problems.append(f"{SECONDS} is {text[:20]!r}; it is a whole number of seconds, {LEAST_SECONDS} to {MOST_SECONDS}")
    return DEFAULT_SECONDS


def _flag(text: str, problems: list[str]) -> bool:
    value = text.strip().lower()
    if value in _FALSE:
        return False
    if value and value not in _TRUE:
        problems.append(f'{REQUIRED} is {text[:20]!r}; it is "true" or "false"')
    return True


def _task(name: str, group: Row, problems: list[str]) -> Row | None:
    """The task by its name; without one the only task that is no lifecycle hook."""
    tasks = list(group.get("Tasks") or ())
    if not name:
        main = [task for task in tasks if not (task.get("Lifecycle") or {}).get("Hook")]
        if len(main) == 1:
            return dict(main[0])
        problems.append(f"which task is to be quiesced is not clear; set {TASK}")
        return None
    for task in tasks:
        if task.get("Name") == name:
            return dict(task)
    known = ", ".join(str(task.get("Name")) for task in tasks)
    problems.append(f"{TASK} names {name!r}, which is no task of the group; it has {known}")
    return None


def _texts(given: Mapping[str, str], task: Row | None, problems: list[str]) -> tuple[str, str]:
    """The two shell texts, from commands or from the task's actions, and never from both."""
    commands = [key for key in (FREEZE, THAW) if given.get(key, "").strip()]
    actions = [key for key in (FREEZE_ACTION, THAW_ACTION) if given.get(key, "").strip()]
    if commands and actions:
        problems.append(f"{commands[0]} and {actions[0]} exclude each other; keep the commands or the actions")
        return "", ""
    wanted = (FREEZE_ACTION, THAW_ACTION) if actions else (FREEZE, THAW)
    missing = [key for key in wanted if not given.get(key, "").strip()]
    if len(missing) == 2:
        problems.append(f"nothing says how to quiesce; set {FREEZE} and {THAW}, or {FREEZE_ACTION} and {THAW_ACTION}")
        return "", ""
    if missing:
        there = next(key for key in wanted if key not in missing)
        problems.append(f"{there} is set without {missing[0]}; a freeze needs its thaw, and a thaw its freeze")
        return "", ""
    if not actions:
        return given[FREEZE].strip(), given[THAW].strip()
    return _action(given, FREEZE_ACTION, task, problems), _action(given, THAW_ACTION, task, problems)


def _action(given: Mapping[str, str], key: str, task: Row | None, problems: list[str]) -> str:
    """An action as a shell text: then a program that is missing fails, and does not wedge the task (A3)."""
    if task is None:
        return ""
    name = given[key].strip()
    for action in task.get("Actions") or ():
        if action.get("Name") == name:
            return shlex.join([str(action.get("Command") or ""), *(str(word) for word in action.get("Args") or ())])
    known = ", ".join(str(action.get("Name")) for action in task.get("Actions") or ()) or "none"
    problems.append(f"{key} names {name!r}, which is no action of task {task.get('Name')!r}; it has {known}")
    return ""
