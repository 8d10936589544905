"""Which job is stopped for a revert, how, and what is refused. Tables over rows as Nomad gives them."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.nomad.decide import workloads
from adapters.nomad.decide.workloads import Memo
from bridge.model.failure import ConflictError, InvalidError, NotFoundError
from bridge.model.revert import Workload, WorkloadState

RULE = {"LTarget": "${attr.nomad.version}", "RTarget": ">= 1.7.0-a", "Operand": "semver"}
"""Nomad adds it to a group whose tasks have identities, once more at every registration."""
A, B = "a" * 36, "b" * 36


def stub(allocation: str, job: str = "web") -> dict[str, Any]:
    return {"ID": allocation, "JobID": job}


def volume(*writers: str, readers: tuple[str, ...] = (), stubs: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {
        "ID": "data",
        "WriteAllocs": dict.fromkeys(writers),
        "ReadAllocs": dict.fromkeys(readers),
        "Allocations": list(stubs),
    }


def group(name: str = "g", count: int = 1, source: str = "data", **more: Any) -> dict[str, Any]:
    task = {"Name": "main", "KillTimeout": 5_000_000_000}
    volumes = {"v": {"Type": "csi", "Source": source}}
    return {"Name": name, "Count": count, "Volumes": volumes, "Tasks": [task], **more}


def job(*groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    row = {"ID": "web", "Type": "service", "Version": 3, "JobModifyIndex": 70, "CreateIndex": 10, "Stop": False}
    return {**row, "TaskGroups": list(groups) or [group()], **more}


def noted(row: dict[str, Any], target: dict[str, Any] | None = None, *volumes: str) -> Workload:
    found = workloads.workload(row, volumes or ("data",), "op", target)
    assert found is not None
    return found


def test_who_uses_it() -> None:
    assert workloads.users([volume()], "") == ""
    assert workloads.users([volume()], "web") == "web"
    assert workloads.users([volume(A, stubs=(stub(A),)), volume(readers=(A,), stubs=(stub(A),))], "") == "web"


@pytest.mark.parametrize(
    ("rows", "name", "words"),
    [
        ([volume(A)], "", "in no list"),
        ([volume(A, B, stubs=(stub(A), stub(B)))], "", "2 allocations write"),
        ([volume(A, readers=(B,), stubs=(stub(A), stub(B, "reports")))], "", "several jobs use it: reports, web"),
        ([volume(A, stubs=(stub(A),))], "other", "several jobs"),
    ],
)
def test_claims_that_would_lose_data_or_cannot_be_given_back(
    rows: list[dict[str, Any]], name: str, words: str
) -> None:
    with pytest.raises(ConflictError, match=words):
        workloads.users(rows, name)


@pytest.mark.parametrize(
    ("row", "mode"),
    [
        (job(), "scale"),
        (job(group(), group("side", source="other")), "scale"),
        (job(group(), group("h")), "stop"),
        (job(group(Scaling={"Min": 1})), "stop"),
        (job(group(Scaling={"Min": 0})), "scale"),
        (job(Type="system"), "stop"),
    ],
)
def test_how_it_is_stopped(row: dict[str, Any], mode: str) -> None:
    memo = Memo.of(noted(row))
    assert (memo.mode, memo.version, memo.index, memo.created) == (mode, 3, 70, 10)
    assert memo == Memo.of(Workload("", "", "", "", memo.text()))


def test_the_words_for_people() -> None:
    found = noted(job())
    assert (found.name, found.words) == ("job web", "job web: group g (1)")
    assert (found.pause, found.resume) == ("scale group g of the job web to 0", "scale it to 1 again")
    assert found.downtime_seconds == 15.0


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (job(Type="batch"), "batch job"),
        (job(Periodic={"Spec": "@daily"}), "periodic job"),
        (job(ParentID="cron", Type="batch"), "dispatched job"),
        (job(Multiregion={"Regions": []}), "multiregion"),
        (job(group(source="other")), "does not mount data"),
    ],
)
def test_a_job_that_is_not_stopped_for_this(row: dict[str, Any], words: str) -> None:
    with pytest.raises(ConflictError, match=words):
        noted(row)


@pytest.mark.parametrize("row", [job(Stop=True), job(group(count=0))])
def test_a_job_without_instances_is_nobody(row: dict[str, Any]) -> None:
    assert workloads.workload(row, ("data",), "op", None) is None


def test_a_version_is_asked_for_by_number_and_by_the_job_that_it_was_of() -> None:
    rows = [job(Version=3), job(Version=2)]
    assert workloads.version(rows, "web", "2") is rows[1]
    assert workloads.version(rows, "web", "2@10") is rows[1]
    with pytest.raises(ConflictError, match="made anew"):
        workloads.version(rows, "web", "2@9")
    with pytest.raises(NotFoundError, match="no version 1 of the job 'web' any more"):
        workloads.version(rows, "web", "1")
    with pytest.raises(InvalidError):
        workloads.version(rows, "web", "last")


def test_an_undo_stops_the_job_and_starts_the_version() -> None:
    target = job(Version=2, Meta={"release": "1"})
    found = noted(job(), target)
    assert (Memo.of(found).mode, Memo.of(found).target) == ("stop", 2)
    assert found.resume == "start its version 2 instead of 3"
    older = noted(job(), job(Version=0, Meta={"release": "0"}))
    assert older.resume == "start its version 0 instead of 3, past the 2 in between"


@pytest.mark.parametrize(
    ("row", "target", "volumes", "words"),
    [
        (job(), job(Version=2), ("data",), "nothing to undo"),
        (
            job(group(Constraints=[RULE, RULE])),
            job(group(Constraints=[RULE]), Version=2),
            ("data",),
            "nothing to undo",
        ),
        (job(), job(group(), group("h", source="logs"), Version=2), ("data",), "mounts logs too"),
        (job(), job(group(source="logs"), Version=2), ("data", "logs"), "does not mount data"),
        (job(Stop=True), job(Version=2, Meta={}), ("data",), "is stopped"),
    ],
)
def test_an_undo_that_would_meet_other_data_is_refused(
    row: dict[str, Any], target: dict[str, Any], volumes: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConflictError, match=words):
        workloads.workload(row, volumes, "op", target)


def allocation(state: str = "running", *, version: int = 4, client: str = "running") -> dict[str, Any]:
    states = {"main": {"State": state}}
    return {
        "TaskGroup": "g", "DesiredStatus": "run", "ClientStatus": client, "JobVersion": version, "TaskStates": states
    }  # fmt: skip


SCALE = Memo("web", 3, 70, 10, "scale", {"g": 1}, "op")
STOP = Memo("web", 3, 70, 10, "stop", {"g": 1}, "op")
MARKED = {workloads.MARK: "snapbridge revert op"}


@pytest.mark.parametrize(
    ("memo", "row", "allocations", "state"),
    [
        (SCALE, None, [], WorkloadState.HALTED),
        (SCALE, job(CreateIndex=99), [], WorkloadState.HALTED),
        (SCALE, job(Stop=True), [], WorkloadState.HALTED),
        (SCALE, job(group(count=0), Version=4), [], WorkloadState.PAUSED),
        (STOP, job(Stop=True, Meta=MARKED, Version=4), [], WorkloadState.PAUSED),
        (STOP, job(Stop=True, Meta={}, Version=4), [], WorkloadState.HALTED),
        (STOP, job(group(count=0), Version=4), [], WorkloadState.HALTED),
        (SCALE, job(Version=4), [], WorkloadState.STARTING),
        (SCALE, job(Version=4), [allocation("pending")], WorkloadState.STARTING),
        (SCALE, job(Version=4), [allocation(client="pending")], WorkloadState.STARTING),
        (SCALE, job(Version=4), [allocation(version=3)], WorkloadState.STARTING),
        (SCALE, job(Version=4), [allocation()], WorkloadState.RUNNING),
        (SCALE, job(group(count=2), Version=4), [allocation()], WorkloadState.STARTING),
        (STOP, job(Version=4, Type="system"), [allocation(), allocation()], WorkloadState.RUNNING),
        (STOP, job(Version=4, Type="system"), [allocation(), allocation("pending")], WorkloadState.STARTING),
    ],
)
def test_how_it_stands(
    memo: Memo, row: dict[str, Any] | None, allocations: list[dict[str, Any]], state: WorkloadState
) -> None:
    assert workloads.state(memo, row, allocations) is state
