"""Freezes: the table of their order with a crash after each step, their settings, and their shell lines, run."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.nomad.decide import freeze_lines, hooks, quiesce
from adapters.nomad.decide import quiesce_settings as settings
from adapters.nomad.decide.quiesce import MAY_BE_FROZEN, TABLE, Do, Event, State

DOES = {
    Do.WRITE_NOTE: (Event.DONE, Event.FAILED, Event.STOPPED),
    Do.FREEZE: (Event.DONE, Event.FAILED, Event.STOPPED),
    Do.CUT: (Event.DONE, Event.FAILED, Event.STOPPED),
    Do.THAW: (Event.DONE, Event.FAILED, Event.STOPPED, Event.GONE),
    Do.THAW_LATER: (Event.BEGIN,),
    Do.DROP_NOTE: (Event.DONE, Event.FAILED, Event.STOPPED),
}
"""What each step can come to, in this process."""


class World:
    """One task and one note, as they are outside of the process."""

    def __init__(self) -> None:
        self.frozen = False
        self.note = False
        self.state, self.do = quiesce.step(State.NEW, Event.BEGIN)

    def happens(self, event: Event, late: bool) -> None:
        """The step has this end. `late`: it took effect all the same, though nobody knows."""
        took_effect = event is Event.DONE or (event in (Event.FAILED, Event.STOPPED) and late)
        if self.do is Do.WRITE_NOTE and took_effect:
            self.note = True
        elif self.do is Do.FREEZE and took_effect:
            assert self.note, "a freeze without a note"
            self.frozen = True
        elif self.do is Do.THAW and (took_effect or event is Event.GONE):
            self.frozen = False
        elif self.do is Do.DROP_NOTE and took_effect:
            assert not self.frozen, "the note of a frozen task is forgotten"
            self.note = False
        self.state, self.do = quiesce.step(self.state, event)

    def crash(self) -> None:
        """A new process finds the note, or nothing."""
        assert self.note or not self.frozen, "frozen, and nobody knows"
        self.state, self.do = (State.NEW, Do.NOTHING)
        if self.note:
            self.state, self.do = quiesce.step(State.NEW, Event.FOUND)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=40))
def test_whatever_happens_a_freeze_ends_with_a_thaw(moves: list[tuple[int, bool, bool]]) -> None:
    world = World()
    for choice, late, crashes in moves:
        if world.do is Do.NOTHING:
            break
        events = DOES[world.do]
        world.happens(events[choice % len(events)], late)
        if crashes:
            world.crash()
    for _ in range(20):  # from here on everything works
        if world.do is Do.NOTHING:
            break
        world.happens(Event.BEGIN if world.do is Do.THAW_LATER else Event.DONE, late=False)
    assert world.do is Do.NOTHING
    assert not world.frozen
    assert not (world.note and world.state is State.OVER)


def test_every_step_has_an_answer_to_whatever_it_comes_to() -> None:
    seen, left = set(), deque([quiesce.step(State.NEW, Event.BEGIN), quiesce.step(State.NEW, Event.FOUND)])
    while left:
        state, do = left.popleft()
        if (state, do) in seen:
            continue
        seen.add((state, do))
        if do is not Do.NOTHING:
            left.extend(quiesce.step(state, event) for event in DOES[do])
    assert {state for state, _ in seen} == set(State) - {State.NEW}
    # The freeze that finds its task gone is the only row that no step of this list needs.
    assert {key for key in TABLE if key[0] is not State.NEW} - {
        (state, event) for state, do in seen if do is not Do.NOTHING for event in DOES[do]
    } == {(State.FREEZING, Event.GONE)}


def test_a_note_goes_only_where_nobody_can_be_frozen() -> None:
    for (state, event), (_, do) in TABLE.items():
        if do is Do.DROP_NOTE and state in MAY_BE_FROZEN:
            assert event in (Event.DONE, Event.GONE), (state, event)
            assert state is State.THAWING or event is Event.GONE


# -- settings


def task(name: str = "db", **more: Any) -> dict[str, Any]:
    return {"Name": name, **more}


def group(meta: dict[str, str] | None = None, *tasks: dict[str, Any], name: str = "g") -> dict[str, Any]:
    volumes = {"data": {"Type": "csi", "Source": "v"}}
    return {"Name": name, "Count": 1, "Meta": meta, "Tasks": list(tasks) or [task()], "Volumes": volumes}


def job(*groups: dict[str, Any], **meta: str) -> dict[str, Any]:
    return {"ID": "web", "Meta": meta, "TaskGroups": list(groups)}


BOTH = {settings.FREEZE: "lock", settings.THAW: "unlock"}


def test_commands() -> None:
    row = group(BOTH)
    assert settings.read(job(row), row).quiesce == settings.Quiesce("db", "lock", "unlock", 30, True)


def test_actions_become_shell_texts() -> None:
    actions = [
        {"Name": "freeze", "Command": "/bin/db", "Args": ["lock", "it's"]},
        {"Name": "thaw", "Command": "/bin/db", "Args": None},
    ]
    row = group({settings.FREEZE_ACTION: "freeze", settings.THAW_ACTION: "thaw"}, task(Actions=actions))
    found = settings.read(job(row), row).quiesce
    assert found is not None
    assert (found.freeze, found.thaw) == ("""/bin/db lock 'it'"'"'s'""", "/bin/db")


def test_layers_win_key_by_key() -> None:
    row = group({settings.SECONDS: "60"})
    given = job(row, **BOTH, **{settings.SECONDS: "10"})
    found = settings.read(given, row, {"quiesce_required": "false", "group.g.thaw": "free", "group.x.thaw": "no"})
    assert found.quiesce == settings.Quiesce("db", "lock", "free", 60, False)


def test_settings_of_the_job_for_a_task_of_another_group_are_not_for_this_one() -> None:
    one, other = group(None, task("db"), name="one"), group(None, task("web"), name="other")
    given = job(one, other, **BOTH, **{settings.TASK: "db"})
    assert settings.read(given, one).quiesce is not None
    assert settings.read(given, other) == settings.Reading()
    assert list(settings.problems(given)) == []


@pytest.mark.parametrize(
    ("meta", "tasks", "says"),
    [
        ({settings.FREEZE: "lock"}, (), "snapbridge_quiesce is set without snapbridge_thaw"),
        ({settings.THAW: "unlock"}, (), "snapbridge_thaw is set without snapbridge_quiesce"),
        ({settings.SECONDS: "9"}, (), "nothing says how to quiesce"),
        ({**BOTH, settings.SECONDS: "301"}, (), "snapbridge_quiesce_seconds is '301'; it is a whole number"),
        ({**BOTH, settings.SECONDS: "1"}, (), "snapbridge_quiesce_seconds is '1'"),
        ({**BOTH, settings.SECONDS: "x"}, (), "snapbridge_quiesce_seconds is 'x'"),
        ({**BOTH, settings.REQUIRED: "maybe"}, (), "snapbridge_quiesce_required is 'maybe'"),
        ({**BOTH, settings.TASK: "nope"}, (), "names 'nope', which is no task of the group; it has db"),
        (BOTH, (task("a"), task("b")), "which task is to be quiesced is not clear; set snapbridge_quiesce_task"),
        ({**BOTH, settings.FREEZE_ACTION: "f"}, (), "snapbridge_quiesce and snapbridge_quiesce_action exclude"),
        ({settings.FREEZE_ACTION: "f", settings.THAW_ACTION: "t"}, (), "names 'f', which is no action of task 'db'"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(meta: dict[str, str], tasks: tuple[Any, ...], says: str) -> None:
    row = group(meta, *tasks)
    found = settings.read(job(row), row)
    assert found.quiesce is None
    assert found.required
    assert any(says in text for text in found.problems), found.problems
    assert any(says in text for text in hooks.plan("east", job(row)).problems)


def test_a_hook_task_is_not_the_one_that_is_meant() -> None:
    row = group(BOTH, task("before", Lifecycle={"Hook": "prestart"}), task("db"))
    found = settings.read(job(row), row).quiesce
    assert found is not None
    assert found.task == "db"


def test_keys_in_a_tasks_meta_are_told() -> None:
    row = group(None, task(Meta={settings.FREEZE: "lock"}))
    assert list(settings.problems(job(row))) == [
        "snapbridge_quiesce in the meta of task 'db' is not read; move it to the group or the job"
    ]


def test_the_keys_are_known_to_the_hooks() -> None:
    row = group(BOTH)
    assert hooks.plan("east", job(row)).problems == ()


# -- the lines, run by a real shell


class Shell:
    """A task's directory with a marker that the freeze makes and the thaw removes."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.marker = folder / "frozen"
        self.log = folder / "log"
        self.go = folder / "go"
        self.freeze_text = f"touch '{self.marker}'; echo freeze >> '{self.log}'"
        self.thaw_text = f"rm -f '{self.marker}'; echo thaw >> '{self.log}'"

    def run(self, argv: list[str]) -> int:
        return self._run(argv).returncode

    def said(self, argv: list[str]) -> str:
        return self._run(argv).stdout.decode()

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": os.environ["PATH"], "NOMAD_ALLOC_DIR": str(self.folder)}
        return subprocess.run(argv, env=environment, check=False, timeout=60, capture_output=True)

    def freeze(self, freeze_id: str = "a", seconds: float = 60.0, text: str = "") -> int:
        return self.run(freeze_lines.freeze(freeze_id, text or self.freeze_text, self.thaw_text, seconds))

    def thaw(self, freeze_id: str = "a", text: str = "") -> int:
        return self.run(freeze_lines.thaw(freeze_id, text or self.thaw_text))

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith(".snapbridge"))

    def slow_freeze(self, thaw_text: str) -> subprocess.Popen[bytes]:
        """A freeze that has begun, and that freezes when there is the file `go`."""
        text = f"until [ -e '{self.go}' ]; do sleep 0.05; done; {self.freeze_text}"
        begun = subprocess.Popen(
            freeze_lines.freeze("a", text, thaw_text, 60),
            env={"PATH": os.environ["PATH"], "NOMAD_ALLOC_DIR": str(self.folder)},
        )
        deadline = time.monotonic() + 30
        while not self.files():
            assert time.monotonic() < deadline, "it has not begun"
            time.sleep(0.02)
        return begun

    def until_thawed(self) -> None:
        deadline = time.monotonic() + 30
        while self.marker.exists() or self.files():
            assert time.monotonic() < deadline, "not thawed"
            time.sleep(0.05)


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Shell:
    return Shell(tmp_path)


def test_freeze_and_thaw(shell: Shell) -> None:
    assert shell.freeze() == 0
    assert shell.marker.exists()
    assert shell.thaw() == 0
    assert not shell.marker.exists()
    assert shell.files() == []
    assert shell.log.read_text().split() == ["freeze", "thaw"]


def test_the_dead_mans_switch_thaws_alone(shell: Shell) -> None:
    assert shell.freeze(seconds=2) == 0
    shell.until_thawed()


def test_the_switch_of_an_earlier_freeze_does_not_end_a_later_one(shell: Shell) -> None:
    assert shell.freeze("a", seconds=2) == 0
    assert shell.thaw("a") == 0
    assert shell.freeze("b", seconds=60) == 0
    time.sleep(2.5)  # the first switch has had its moment; nothing else can tell that it did nothing
    assert shell.marker.exists()
    assert shell.thaw("b") == 0


def test_a_freeze_that_ends_after_its_thaw_thaws_itself(shell: Shell) -> None:
    slow = shell.slow_freeze(shell.thaw_text)
    assert shell.thaw() == 0
    shell.go.touch()
    assert slow.wait(30) == freeze_lines.LATE
    assert not shell.marker.exists()
    assert shell.files() == []


def test_a_freeze_that_outlasts_its_time_thaws_itself(shell: Shell) -> None:
    slow = f"until grep -q thaw '{shell.log}'; do sleep 0.05; done; {shell.freeze_text}"  # until the switch thaws
    assert shell.freeze(seconds=1, text=slow) == freeze_lines.LATE
    assert not shell.marker.exists()


def test_a_thaw_that_fails_leaves_the_switch_on(shell: Shell) -> None:
    assert shell.freeze(seconds=4) == 0
    assert shell.thaw(text="exit 9") == 9
    assert shell.marker.exists()
    shell.until_thawed()


def test_a_missing_program_is_an_exit_code(shell: Shell) -> None:
    assert shell.freeze(seconds=2, text="/no/such/program") == 127
    shell.until_thawed()


def test_a_freeze_needs_a_place_for_its_file(shell: Shell) -> None:
    argv = freeze_lines.freeze("a", shell.freeze_text, shell.thaw_text, 5)
    environment = {"PATH": os.environ["PATH"], "NOMAD_ALLOC_DIR": str(shell.folder / "none")}
    done = subprocess.run(argv, env=environment, check=False, timeout=60, capture_output=True)
    assert done.returncode != 0
    assert not shell.marker.exists()


def test_quotes_and_newlines_arrive_as_they_are(shell: Shell) -> None:
    out = shell.folder / "out"
    assert shell.freeze(text=f"""printf '%s' "it's $((1+1))" > '{out}'\ntrue""") == 0
    assert out.read_text() == "it's 2"
    assert shell.thaw() == 0


def test_a_freeze_that_ends_while_its_switch_thaws_does_not_stay(shell: Shell) -> None:
    """Nobody else thaws here: the bridge is gone."""
    thaw = f"echo begun >> '{shell.log}'; rm -f '{shell.marker}'; sleep 2"
    freeze = f"while ! test -s '{shell.log}'; do sleep 0.05; done; sleep 0.5; touch '{shell.marker}'"
    shell.run(freeze_lines.freeze("a", freeze, thaw, 1))
    shell.until_thawed()


def test_a_late_freeze_thaws_itself_until_it_works(shell: Shell) -> None:
    tries = shell.folder / "tries"
    thaw = f"echo x >> '{tries}'; test $(wc -l < '{tries}') -ge 2 && rm -f '{shell.marker}'"
    slow = shell.slow_freeze(thaw)
    assert shell.thaw() == 0  # before anything was frozen, so its note is gone
    shell.go.touch()
    assert slow.wait(30) == freeze_lines.LATE
    assert not shell.marker.exists()


def test_a_thaw_does_not_depend_on_a_place_for_its_own_file(shell: Shell) -> None:
    assert shell.freeze() == 0
    (shell.folder / ".snapbridge-freeze-a.stop").mkdir()  # as a full disk: it cannot be written
    shell.thaw()
    assert not shell.marker.exists()


def test_a_thaw_tells_that_an_earlier_late_freeze_has_thawed_before(shell: Shell) -> None:
    slow = subprocess.Popen(
        freeze_lines.freeze("a", f"while ! test -e '{shell.marker}'; do sleep 0.05; done", shell.thaw_text, 60),
        env={"PATH": os.environ["PATH"], "NOMAD_ALLOC_DIR": str(shell.folder)},
    )
    while not shell.files():
        time.sleep(0.02)
    assert shell.thaw("a") == 0
    assert shell.freeze("b") == 0
    assert slow.wait(30) == freeze_lines.LATE
    assert not shell.marker.exists()
    assert freeze_lines.LOST in shell.said(freeze_lines.thaw("b", shell.thaw_text))


def test_a_thaw_tells_that_the_switch_was_first(shell: Shell) -> None:
    assert shell.freeze(seconds=2) == 0
    shell.until_thawed()
    assert freeze_lines.LOST in shell.said(freeze_lines.thaw("a", shell.thaw_text))
    assert shell.freeze("b") == 0
    assert freeze_lines.LOST not in shell.said(freeze_lines.thaw("b", shell.thaw_text))


def test_a_thaw_of_another_process_is_told_too(shell: Shell) -> None:
    """A leader that was stopped in its freeze wakes up while its successor cuts."""
    assert shell.freeze("a") == 0
    assert shell.freeze("b") == 0
    assert freeze_lines.LOST not in shell.said(freeze_lines.thaw("a", shell.thaw_text))
    assert freeze_lines.LOST in shell.said(freeze_lines.thaw("b", shell.thaw_text))
