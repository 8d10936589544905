"""The settings variable of a job: which layer wins, what its lines may be called, what is wrong with them."""

from __future__ import annotations

import re

import pytest

from adapters.nomad.decide import hooks, paths, settings
from bridge.model.snapshot import DeletionPolicy
from tests.unit.nomad.test_hooks import ON, csi, group, job

PATH = "snapbridge/web"


def two() -> list[dict[str, object]]:
    return [group("a", volumes={"data": csi("v1")}), group("a.b", volumes={"data": csi("v2")})]


def read(items: dict[str, str], meta: dict[str, str] | None = None, **more: object) -> settings.JobSettings:
    return settings.read(job(meta, two(), **more), items, PATH)


def test_without_any_key_nothing_is_given() -> None:
    assert not settings.read(job(), None, PATH).given
    assert not settings.read(job(), {}, PATH).given


@pytest.mark.parametrize("prefix", ["", "snapbridge_"])
def test_the_variable_alone_is_enough(prefix: str) -> None:
    found = read({f"{prefix}volumes": "data", f"{prefix}on_deploy": "true"})
    assert found.given
    assert found.problems == ()
    assert [(g.group, g.volumes, g.on_deploy) for g in found.groups] == [
        ("a", ("data",), True),
        ("a.b", ("data",), True),
    ]


def test_the_variable_wins_over_meta_key_by_key_and_its_group_lines_over_the_rest() -> None:
    groups = [group("a", meta={"snapbridge_deletion_policy": "Delete"}), group("a.b")]
    row = job({**ON, "snapbridge_deletion_policy": "Delete", "snapbridge_parameters": "x=1"}, groups)
    items = {"deletion_policy": "Retain", "group.a.b.deletion_policy": "Delete", "group.a.on_deploy": "false"}
    first, second = settings.read(row, items, PATH).groups
    assert (first.deletion_policy, first.on_deploy, dict(first.parameters)) == (
        DeletionPolicy.RETAIN, False, {"x": "1"},
    )  # fmt: skip
    assert (second.deletion_policy, second.on_deploy) == (DeletionPolicy.DELETE, True)


def test_a_change_in_the_variable_changes_no_uid() -> None:
    before = hooks.plan("east", job(ON)).wanted[0]
    after = hooks.plan("east", job(ON), {"deletion_policy": "Retain"}).wanted[0]
    assert before.uid == after.uid
    assert after.policy is DeletionPolicy.RETAIN


@pytest.mark.parametrize(
    ("items", "part"),
    [
        ({"on_deplyo": "true"}, "on_deplyo (variable snapbridge/web) is unknown; did you mean snapbridge_on_deploy?"),
        ({"password": "hunter2"}, "password (variable snapbridge/web) is unknown; known keys are"),
        ({"group.zzz.on_stop": "true"}, "group.zzz.on_stop (variable snapbridge/web) names no group of the job"),
        ({"group.a.colour": "red"}, "group.a.colour (variable snapbridge/web) is unknown"),
        (
            {"on_stop": "true", "snapbridge_on_stop": "false"},
            "is there twice, with and without snapbridge_",
        ),
        ({"on_stop": "perhaps"}, "snapbridge_on_stop (variable snapbridge/web) is 'perhaps'; it is"),
    ],
)
def test_what_is_wrong_in_the_variable_is_said(items: dict[str, str], part: str) -> None:
    found = read(items)
    assert found.given
    assert any(part in text for text in found.problems), found.problems
    assert "hunter2" not in str(found.problems)


def test_nothing_is_cut_with_a_line_that_contradicts_itself() -> None:
    items = {"on_deploy": "true", "snapbridge_on_deploy": "false"}
    plan = hooks.plan("east", job(ON), items)
    assert plan.wanted == ()
    same = {"on_deploy": "true", "snapbridge_on_deploy": "true"}
    assert len(hooks.plan("east", job(ON), same).wanted) == 1


@pytest.mark.parametrize(
    ("job_id", "segment"),
    [("web", "web"), ("status", "status"), ("a/b c", "a~2Fb~20c"), ("ä~b", "~C3~A4~7Eb"), ("status/x", "status~2Fx")],
)
def test_settings_and_summary_never_take_each_others_place(job_id: str, segment: str) -> None:
    own, told = paths.settings_path(job_id), paths.status_path(job_id)
    assert (own, told) == (f"snapbridge/{segment}", f"snapbridge/status/{segment}")
    assert paths.is_settings(own)
    assert not paths.is_status(own)
    assert paths.is_status(told)
    assert not paths.is_settings(told)


def test_long_names_stay_apart_and_fit() -> None:
    for path in (paths.settings_path, paths.status_path):
        long = [path("x" * 200 + end) for end in "ab"]
        assert long[0] != long[1]
        assert all(len(one) <= 128 for one in long)


def test_no_name_is_written_as_a_long_one_is_cut() -> None:
    """Else a job could be named so that it has another job's settings."""
    for number in range(100):
        cut = paths.settings_path("x" * 200 + str(number)).removeprefix(paths.ROOT)
        read_back = re.sub("~([0-9A-Fa-f]{2})", lambda code: chr(int(code[1], 16)), cut)
        assert paths.settings_path(read_back) != paths.ROOT + cut, read_back
