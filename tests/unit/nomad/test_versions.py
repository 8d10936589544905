"""Every difference between Nomad's versions: where it begins, where it ends, and that the page tells of it."""

from __future__ import annotations

import pytest

from adapters.nomad import versions
from adapters.nomad.versions import Trait
from tests.support.bed import paths

PAGE = paths.REPOSITORY / "docs" / "nomad" / "operate.md"

EDGES: list[tuple[Trait, list[str], list[str]]] = [
    (Trait.TOO_OLD, ["1.3.0", "1.5.17"], ["1.6.0", "2.0.6"]),
    (Trait.PARALLEL_CALLS, ["1.6.0"], ["1.6.1", "1.8.4", "2.0.6"]),
    (Trait.NO_IDENTITIES, ["1.6.5"], ["1.7.0", "1.8.0"]),
    (Trait.NO_LOCKS, ["1.6.5"], ["1.7.0", "1.8.0"]),
    (Trait.NO_ACTIONS, ["1.6.5"], ["1.7.0", "2.0.0"]),
    (Trait.SYSTEM_JOBS_DO_NOT_SCALE, ["1.6.5", "1.8.4"], ["1.9.7", "1.10.0"]),
    (Trait.NO_PLUGIN_EVENTS, ["1.6.5", "1.8.4", "1.9.7"], ["1.10.0", "1.11.0", "2.0.0"]),
    (Trait.NO_VOLUME_EVENTS, ["1.10.0", "1.10.3", "1.10.5", "1.11.0"], ["1.9.7", "1.10.6", "1.11.1", "2.0.0"]),
    (Trait.NO_VARIABLE_EVENTS, ["1.6.5", "1.10.5", "1.11.3"], ["2.0.0", "2.0.6"]),
    (Trait.DELETE_WITHOUT_SECRETS, ["1.6.5", "1.8.0", "1.10.1"], ["1.10.2", "1.11.0"]),
    (Trait.STREAM_REFUSED_BY_STATUS, ["1.6.5", "1.10.5", "1.11.1"], ["1.11.2", "2.0.0"]),
    (Trait.STREAM_UNREADABLE, ["1.11.2"], ["1.11.1", "1.11.3", "2.0.0"]),
    (Trait.BLOCKED_EVALUATIONS_STAY, ["1.6.5", "1.10.5", "2.0.4"], ["2.0.5", "2.0.6"]),
]


def test_every_row_is_named_here_and_no_other() -> None:
    assert {trait for trait, _, _ in EDGES} == set(Trait) == {row.trait for row in versions.TABLE}


@pytest.mark.parametrize(("trait", "have", "lack"), EDGES, ids=[trait.value for trait, _, _ in EDGES])
def test_where_a_difference_begins_and_ends(trait: Trait, have: list[str], lack: list[str]) -> None:
    for text in have:
        assert versions.Agent(versions.parse(text)).has(trait), text
    for text in lack:
        assert not versions.Agent(versions.parse(text)).has(trait), text


@pytest.mark.parametrize("row", versions.TABLE, ids=[f"{row.trait}-{row.last}" for row in versions.TABLE])
def test_a_row_is_whole_and_on_the_page(row: versions.Row) -> None:
    assert row.first <= row.last
    assert row.what
    assert row.remedy
    assert row.issue == "" or row.issue.startswith("GH-")
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    for part in (row.what, row.remedy, row.issue):
        assert part in text


def test_a_current_version_has_none_of_them_and_neither_has_an_unknown_one() -> None:
    assert versions.traits((2, 0, 6)) == frozenset()
    assert versions.traits(None) == frozenset()
    assert versions.rows(None) == []


def test_a_difference_is_explained_with_its_issue() -> None:
    agent = versions.Agent((1, 11, 2))
    assert agent.explain(Trait.STREAM_UNREADABLE) == (
        "Nomad 1.11.2: the event stream's status line is HTTP/0.0 (GH-27586); blocking queries on the jobs instead"
    )
    assert agent.explain(Trait.NO_LOCKS) == ""
    assert versions.Agent().text() == "unknown"


def test_volume_events_are_never_asked_for() -> None:
    for text in ("1.6.5", "1.8.0", "1.10.0", "1.10.5", "1.11.0", "1.11.2", "2.0.6"):
        topics = versions.topics(versions.parse(text))
        assert "Job" in topics
        assert not {"CSIVolume", "*"} & set(topics)
    assert versions.topics(versions.parse("1.9.9")) == ("Job",)
    assert versions.topics(None) == ("Job", "CSIPlugin")


def test_the_version_of_an_agent() -> None:
    assert versions.of_agent({"config": {"Version": {"Version": "2.0.6", "VersionPrerelease": "dev"}}}) == (2, 0, 6)
    assert versions.of_agent({"config": {}}) is None
    assert versions.parse("main") is None
