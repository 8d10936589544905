"""What job files ask for, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.nomad.decide import hooks
from bridge.model.snapshot import DeletionPolicy

Row = dict[str, Any]


def csi(source: str, *, per_alloc: bool = False, type_: str = "csi") -> Row:
    return {"Type": type_, "Source": source, "PerAlloc": per_alloc}


def group(name: str = "g", *, meta: Row | None = None, volumes: Row | None = None, count: int = 1) -> Row:
    volumes = {"data": csi("web-data")} if volumes is None else volumes
    return {"Name": name, "Count": count, "Meta": meta, "Volumes": volumes, "Tasks": []}


def job(meta: Row | None = None, groups: list[Row] | None = None, **more: Any) -> Row:
    return {
        "ID": "web", "Namespace": "default", "Version": 3, "JobModifyIndex": 107, "SubmitTime": 5, "Stop": False,
        "Meta": meta, "TaskGroups": [group()] if groups is None else groups, **more,
    }  # fmt: skip


ON = {"snapbridge_volumes": "data", "snapbridge_on_deploy": "true"}


def test_a_job_without_our_keys_says_nothing() -> None:
    plan = hooks.plan("east", job({"owner": "me"}))
    assert not plan.asks
    assert plan.wanted == ()
    assert plan.problems == ()
    assert (plan.index, plan.version) == (107, 3)


def test_a_deploy_asks_for_one_snapshot_per_volume() -> None:
    groups = [group(volumes={"data": csi("web-data"), "logs": csi("web-logs"), "tmp": csi("x", type_="host")})]
    plan = hooks.plan("east", job({**ON, "snapbridge_volumes": "data, logs"}, groups))
    assert plan.problems == ()
    assert [wanted.volume for wanted in plan.wanted] == ["web-data", "web-logs"]
    one = plan.wanted[0]
    assert (one.namespace, one.job, one.version, one.groups) == ("default", "web", 3, ("g",))
    assert one.policy is DeletionPolicy.DELETE
    assert one.name == f"web-web-data-v3-{one.uid[:8]}"
    assert len({wanted.uid for wanted in plan.wanted}) == 2


@pytest.mark.parametrize("name", ["data", "web-data", "*", "data data"])
def test_a_volume_may_be_named_by_label_by_id_or_all(name: str) -> None:
    plan = hooks.plan("east", job({**ON, "snapbridge_volumes": name}))
    assert [wanted.volume for wanted in plan.wanted] == ["web-data"]
    assert plan.problems == ()


def test_the_uid_is_the_same_for_the_same_version_and_another_for_any_other() -> None:
    first = hooks.plan("east", job(ON)).wanted[0].uid
    assert hooks.plan("east", job(ON)).wanted[0].uid == first
    others = [
        hooks.plan("west", job(ON)),
        hooks.plan("east", job(ON, Version=4)),
        hooks.plan("east", job(ON, JobModifyIndex=108)),
        hooks.plan("east", job(ON, SubmitTime=6)),
        hooks.plan("east", job(ON, Namespace="prod")),
        hooks.plan("east", job(ON, ID="api")),
        hooks.plan("east", job(ON, [group(volumes={"data": csi("other")})])),
    ]
    uids = {plan.wanted[0].uid for plan in others}
    assert len(uids) == len(others)
    assert first not in uids


def test_group_meta_overrides_job_meta_key_by_key() -> None:
    meta = {**ON, "snapbridge_deletion_policy": "Delete", "snapbridge_parameters": "a=1"}
    groups = [
        group("one", volumes={"data": csi("v1")}, meta={"snapbridge_deletion_policy": "retain"}),
        group("two", volumes={"data": csi("v2")}),
        group("three", volumes={"data": csi("v3")}, meta={"snapbridge_on_deploy": "false"}),
    ]
    plan = hooks.plan("east", job(meta, groups))
    assert [(w.volume, w.policy, dict(w.parameters)) for w in plan.wanted] == [
        ("v1", DeletionPolicy.RETAIN, {"a": "1"}),
        ("v2", DeletionPolicy.DELETE, {"a": "1"}),
    ]
    assert plan.problems == ()


def test_per_alloc_volumes_are_named_by_their_place() -> None:
    groups = [group(volumes={"data": csi("d", per_alloc=True)}, count=3)]
    plan = hooks.plan("east", job(ON, groups))
    assert [wanted.volume for wanted in plan.wanted] == ["d[0]", "d[1]", "d[2]"]
    only = hooks.plan("east", job({**ON, "snapbridge_volumes": "d[1]"}, groups))
    assert [wanted.volume for wanted in only.wanted] == ["d[1]"]


def test_a_volume_that_two_groups_share_is_cut_once() -> None:
    groups = [group("a"), group("b")]
    plan = hooks.plan("east", job(ON, groups))
    assert [(w.volume, w.groups) for w in plan.wanted] == [("web-data", ("a", "b"))]


def test_groups_that_contradict_each_other() -> None:
    groups = [group("a", meta={"snapbridge_deletion_policy": "Retain"}), group("b")]
    plan = hooks.plan("east", job(ON, groups))
    assert plan.wanted[0].policy is DeletionPolicy.RETAIN
    assert "different snapbridge_deletion_policy for 'web-data'; Retain is taken" in plan.problems[0]
    groups = [group("a", meta={"snapbridge_parameters": "x=1"}), group("b")]
    plan = hooks.plan("east", job(ON, groups))
    assert plan.wanted == ()
    assert "different snapbridge_parameters for 'web-data'; none is taken" in plan.problems[0]


@pytest.mark.parametrize(
    ("meta", "groups", "part"),
    [
        ({"snapbridge_volume": "data"}, None, "snapbridge_volume (job) is unknown; did you mean snapbridge_volumes?"),
        ({"snapbridge_colour": "red"}, None, "snapbridge_colour (job) is unknown; known keys are snapbridge_"),
        ({"snapbridge-on-deploy": "true"}, None, "snapbridge-on-deploy (job) is unknown; did you mean snapbridge_"),
        ({"snapbridge.volumes": "data"}, None, "snapbridge.volumes (job) is unknown; did you mean snapbridge_vol"),
        ({"SNAPBRIDGE_ON_STOP": "true"}, None, "SNAPBRIDGE_ON_STOP (job) is unknown; did you mean snapbridge_on"),
        ({**ON, "snapbridge_policy": "two words"}, None, "snapbridge_policy is 'two words'; it is a name"),
        ({"snapbridge_on_stop": "true"}, None, "snapbridge_on_stop is set, but snapbridge_volumes names no volume"),
        ({"snapbridge_volumes": "data", "snapbridge_together": "true"}, None, "snapbridge_together does nothing"),
        ({**ON, "snapbridge_on_stop_wait": "5"}, None, "snapbridge_on_stop_wait does nothing without"),
        ({**ON, "snapbridge_on_stop_wait": "soon"}, None, "it is a number of seconds from 0 to 3600"),
        ({**ON, "snapbridge_on_stop_wait": "nan"}, None, "it is a number of seconds from 0 to 3600"),
        ({"snapbridge_deletion_policy": "Retain"}, None, "snapbridge_deletion_policy does nothing: "),
        ({"snapbridge_on_deploy": "true"}, None, "snapbridge_volumes names no volume"),
        ({"snapbridge_volumes": "data"}, None, 'set snapbridge_on_deploy or snapbridge_on_stop = "true"'),
        ({**ON, "snapbridge_volumes": "nope"}, None, "names 'nope', which no group of the job claims"),
        ({**ON, "snapbridge_volumes": "*"}, [group(volumes={})], "names '*', which no group"),
        ({**ON, "snapbridge_on_deploy": "maybe"}, None, "snapbridge_on_deploy is 'maybe'"),
        ({**ON, "snapbridge_deletion_policy": "Keep"}, None, "snapbridge_deletion_policy is 'Keep'"),
        ({**ON, "snapbridge_parameters": "x"}, None, "snapbridge_parameters is 'x'"),
        ({**ON, "snapbridge_parameters": "x=1,x=2"}, None, "gives a key twice"),
        ({**ON, "snapbridge_parameters": "{bad"}, None, "begins like JSON"),
        ({**ON, "snapbridge_parameters": '{"a": "1", "a": "2"}'}, None, "gives a key twice"),
        ({**ON, "snapbridge_parameters": '{"a": 1}'}, None, "no JSON object of strings"),
        (None, [group(meta={**ON, "snapbridge_volumes": "zzz"})], "group 'g': snapbridge_volumes names 'zzz'"),
        (None, [group(meta={**ON, "snapbridge_volumes": "h"}, volumes={"h": csi("x", type_="host")})],
         "is a 'host' volume; only CSI volumes have snapshots"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(meta: Row | None, groups: list[Row] | None, part: str) -> None:
    plan = hooks.plan("east", job(meta, groups))
    assert plan.asks
    assert any(part in text for text in plan.problems), plan.problems


@pytest.mark.parametrize("broken", ["snapbridge_deletion_policy", "snapbridge_parameters", "snapbridge_on_deploy"])
def test_nothing_is_cut_with_a_setting_that_was_not_understood(broken: str) -> None:
    assert hooks.plan("east", job({**ON, broken: "?!"})).wanted == ()


def test_a_key_in_a_tasks_meta_is_said_to_be_unread() -> None:
    groups = [group() | {"Tasks": [{"Name": "t", "Meta": {"snapbridge_volumes": "data"}}]}]
    plan = hooks.plan("east", job(None, groups))
    assert plan.asks
    assert plan.problems == (
        "snapbridge_volumes in the meta of task 't' is not read; move it to the group or the job",
    )


def test_a_stopped_job_asks_for_nothing_but_what_on_stop_says() -> None:
    plan = hooks.plan("east", job(ON, Stop=True))
    assert plan.asks
    assert plan.stopped
    assert plan.wanted == ()


STOP = {"snapbridge_volumes": "data", "snapbridge_on_stop": "true"}


def test_a_stop_asks_for_quiet_data() -> None:
    assert hooks.plan("east", job(STOP)).wanted == ()
    plan = hooks.plan("east", job(STOP, Stop=True))
    (one,) = plan.wanted
    assert plan.problems == ()
    assert (one.volume, one.moment, one.wait_seconds) == ("web-data", hooks.Moment.STOP, 120.0)
    assert one.why == "stop of the job (version 3)"
    assert one.name == f"web-web-data-v3-stop-{one.uid[:8]}"
    (other,) = hooks.plan("east", job({**STOP, "snapbridge_on_stop_wait": "7.5"}, Stop=True)).wanted
    assert (other.uid, other.wait_seconds) == (one.uid, 7.5)


def test_the_uid_of_a_stop_is_none_of_a_deploy_and_its_own_for_each_stop() -> None:
    both = {**ON, **STOP}
    deployed = hooks.plan("east", job(both)).wanted[0].uid
    purged = hooks.plan("east", job(both), purged=True).wanted[0].uid
    stopped = hooks.plan("east", job(both, Version=4, JobModifyIndex=120, Stop=True)).wanted[0].uid
    again = hooks.plan("east", job(both, Version=6, JobModifyIndex=150, Stop=True)).wanted[0].uid
    assert len({deployed, purged, stopped, again}) == 4
    late = hooks.plan("east", job(both, Version=4, JobModifyIndex=120, Stop=True), purged=True).wanted[0].uid
    assert late == stopped


def test_a_job_that_a_revert_holds_still_is_not_stopped() -> None:
    held = job({**STOP, "paused_by": "snapbridge revert 1234"}, Stop=True)
    plan = hooks.plan("east", held)
    assert (plan.wanted, plan.problems) == ((), ())
    assert plan.notes == ("the job is stopped by a revert: that is no stop of its own, so nothing is cut",)
    assert len(hooks.plan("east", job({**STOP, "paused_by": "me"}, Stop=True)).wanted) == 1
    running = hooks.plan("east", job({**ON, "paused_by": "snapbridge revert 1234"}))
    assert len(running.wanted) == 1


def test_groups_may_differ_in_when() -> None:
    groups = [
        group("a", volumes={"data": csi("v1")}, meta={"snapbridge_on_stop": "true"}),
        group("b", volumes={"data": csi("v2")}, meta={"snapbridge_on_deploy": "true"}),
    ]
    meta = {"snapbridge_volumes": "data"}
    assert [w.volume for w in hooks.plan("east", job(meta, groups)).wanted] == ["v2"]
    assert [w.volume for w in hooks.plan("east", job(meta, groups, Stop=True)).wanted] == ["v1"]


def test_volumes_that_are_cut_together_are_one_group() -> None:
    groups = [
        group("a", volumes={"data": csi("v1"), "logs": csi("v2")}),
        group("b", volumes={"data": csi("v3")}, meta={"snapbridge_together": "false"}),
        group("c", volumes={"data": csi("v4")}, meta={"snapbridge_deletion_policy": "Retain"}),
    ]
    meta = {**ON, "snapbridge_volumes": "*", "snapbridge_together": "true"}
    plan = hooks.plan("east", job(meta, groups))
    assert plan.problems == (
        "snapbridge_together joins volumes with different snapbridge_deletion_policy; Retain is taken",
    )
    joined = [one for one in plan.wanted if one.group_uid]
    assert [one.volume for one in joined] == ["v1", "v2", "v4"]
    assert len({one.group_uid for one in joined}) == 1
    assert len({one.uid for one in plan.wanted}) == 4
    assert {one.policy for one in joined} == {DeletionPolicy.RETAIN}
    assert joined[0].labels["together"] == joined[0].group_name == f"web-v3-all-{joined[0].group_uid[:8]}"
    again = hooks.plan("east", job(meta, groups))
    assert again == plan
    fewer = hooks.plan("east", job(meta, groups[:2]))
    assert {one.uid for one in fewer.wanted}.isdisjoint({one.uid for one in joined})


def test_one_volume_is_cut_alone_also_together() -> None:
    plan = hooks.plan("east", job({**ON, "snapbridge_together": "true"}))
    assert plan.problems == ()
    assert plan.wanted[0].group_uid == ""
    assert plan.wanted[0].uid == hooks.plan("east", job(ON)).wanted[0].uid


def test_a_policy_for_schedules_is_noted_only() -> None:
    plan = hooks.plan("east", job({**ON, "snapbridge_policy": "nightly"}))
    assert plan.problems == ()
    assert plan.notes == ("snapbridge_policy: no policy engine yet: nightly is noted only",)
    assert plan.wanted[0].labels == {"job": "web", "group": "g", "policy": "nightly"}
    alone = hooks.plan("east", job({"snapbridge_volumes": "data", "snapbridge_policy": "nightly"}))
    assert (alone.wanted, alone.problems) == ((), ())


@pytest.mark.parametrize(
    "more", [{"Periodic": {"Enabled": True}}, {"ParameterizedJob": {"Payload": ""}}, {"ParentID": "web"}]
)
def test_runs_of_periodic_and_parameterized_jobs_are_no_deploys(more: Row) -> None:
    plan = hooks.plan("east", job(ON, **more))
    assert plan.wanted == ()
    assert "does nothing for a periodic or parameterized job" in plan.problems[0]


def test_parameters_as_json_keep_their_commas() -> None:
    plan = hooks.plan("east", job({**ON, "snapbridge_parameters": '{"clusterID": "a,b"}'}))
    assert dict(plan.wanted[0].parameters) == {"clusterID": "a,b"}
    plan = hooks.plan("east", job({**ON, "snapbridge_parameters": "clusterID = c1 , x=a=b"}))
    assert dict(plan.wanted[0].parameters) == {"clusterID": "c1", "x": "a=b"}


def test_a_group_of_per_alloc_volumes_that_is_scaled_to_zero_is_no_mistake() -> None:
    groups = [group(volumes={"data": csi("d", per_alloc=True)}, count=0)]
    for name in ("data", "*", "d"):
        plan = hooks.plan("east", job({**ON, "snapbridge_volumes": name}, groups))
        assert (plan.wanted, plan.problems) == ((), ()), name


def test_ids_with_slashes_and_brackets_are_kept_as_they_are() -> None:
    groups = [group(volumes={"data": csi("a/b[0]"), "other": csi("[x]")})]
    plan = hooks.plan("east", job({**ON, "snapbridge_volumes": "*"}, groups))
    assert [wanted.volume for wanted in plan.wanted] == ["[x]", "a/b[0]"]
    named = hooks.plan("east", job({**ON, "snapbridge_volumes": "a/b[0]"}, groups))
    assert [wanted.volume for wanted in named.wanted] == ["a/b[0]"]


def test_the_policy_that_jobs_agree_on_is_retain_when_they_differ() -> None:
    keep, drop = DeletionPolicy.RETAIN, DeletionPolicy.DELETE
    assert hooks.agreed(drop, {}) == (drop, ())
    assert hooks.agreed(drop, {"b": drop}) == (drop, ())
    assert hooks.agreed(drop, {"b": keep, "a": keep}) == (keep, ("a", "b"))
    assert hooks.agreed(keep, {"b": drop}) == (keep, ("b",))


def test_claimed_volumes_of_one_allocation() -> None:
    row = group(volumes={"d": csi("d", per_alloc=True), "s": csi("shared"), "h": csi("x", type_="host")}, count=2)
    assert set(hooks.claimed(row, "web.g[1]")) == {"d[1]", "shared"}
    assert set(hooks.claimed(row)) == {"d[0]", "d[1]", "shared"}
    assert hooks.claimed(row, "no place") == ("shared",)


def test_names_stay_short_and_plain() -> None:
    plan = hooks.plan("east", job(ON, ID="Über/Job " * 30))
    assert len(plan.wanted[0].name) <= 63
    assert plan.wanted[0].name.isascii()
    assert plan.wanted[0].name == plan.wanted[0].name.lower()
