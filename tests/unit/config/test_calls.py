"""Rules of calls for one plugin: a socket's in `plugins`, a Nomad plugin's in its cluster. Defaults stay defaults."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from adapters.nomad.settings import Settings
from bridge.app.config_sections import CsiSection, PluginSection
from bridge.csi.settings import RegistrySettings
from bridge.model.plugin import NO_RULES, CallRules

SOCKET = {"name": "one", "socket": "/run/csi.sock"}


def nomad(**calls: Any) -> CallRules:
    return Settings.model_validate({"plugins": {"rbd": {"calls": calls}}}).plugin("rbd").calls.rules()


def test_nothing_given_changes_nothing() -> None:
    assert PluginSection.model_validate(SOCKET).calls.rules() == NO_RULES
    assert nomad() == NO_RULES
    assert Settings.model_validate({}).plugin("any").calls.rules() == NO_RULES
    settings = CsiSection().settings()
    assert settings.under(NO_RULES) == settings


def test_both_sections_say_the_same() -> None:
    wanted = CallRules(
        concurrency=8, timeout_seconds=90.0, timeouts_seconds={"CreateSnapshot": 300.0}, poll_first_seconds=1.0,
        poll_most_seconds=30.0, retry_first_seconds=2.0, retry_most_seconds=60.0,
    )  # fmt: skip
    calls = {
        "concurrency": 8, "timeout": "90s", "timeouts": {"CreateSnapshot": "5m"}, "poll_first": "1s",
        "poll_most": "30s", "retry_first": "2s", "retry_most": "1m",
    }  # fmt: skip
    assert PluginSection.model_validate({**SOCKET, "calls": calls}).calls.rules() == wanted
    assert wanted == nomad(
        concurrency=8, timeout_seconds=90.0, timeouts_seconds={"CreateSnapshot": 300.0}, poll_first_seconds=1.0,
        poll_most_seconds=30.0, retry_first_seconds=2.0, retry_most_seconds=60.0,
    )  # fmt: skip


def test_rules_replace_what_they_name_and_nothing_else() -> None:
    before = RegistrySettings()
    after = before.under(CallRules(concurrency=4, timeouts_seconds={"CreateSnapshot": 7.0}, poll_first_seconds=20.0))
    assert after.calls.controller_concurrency == 4
    assert after.calls.deadlines.seconds("CreateSnapshot") == 7.0
    assert after.calls.deadlines.seconds("DeleteSnapshot") == before.calls.deadlines.seconds("DeleteSnapshot")
    assert (after.poll_first_seconds, after.poll_most_seconds) == (20.0, 20.0), "the longest is never the shorter"
    assert after.call_retry_first_seconds == before.call_retry_first_seconds


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ({"poll_first": "9s", "poll_most": "1s"}, "exchange them"),
        ({"retry_first": "9s", "retry_most": "1s"}, "exchange them"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"timeouts": {"CutSnapshot": "1s"}}, "CreateSnapshot"),
        ({"timeout": 5}, "duration with its unit"),
        ({"speed": 1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(calls: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        PluginSection.model_validate({**SOCKET, "calls": calls})


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ({"poll_first_seconds": 9.0, "poll_most_seconds": 1.0}, "exchange them"),
        ({"timeouts_seconds": {"CutSnapshot": 1.0}}, "CreateSnapshot"),
        ({"concurrency": 2000}, "less than or equal to 1024"),
        ({"timeout_seconds": 0.0}, "greater than 0"),
    ],
)
def test_what_cannot_be_is_refused_for_a_nomad_plugin(calls: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        nomad(**calls)
