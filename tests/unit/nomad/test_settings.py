"""Settings and event lines: what is taken and what is refused."""

from __future__ import annotations

import json

import pydantic
import pytest

from adapters.nomad import events
from adapters.nomad.settings import Settings


def test_the_defaults_are_valid() -> None:
    settings = Settings()
    assert settings.address == "http://127.0.0.1:4646"
    assert settings.plugin("x").route == "auto"


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"address": "nomad:4646"}, "begins with http://, https:// or unix:///"),
        ({"namespaces": []}, "name a namespace"),
        ({"namespaces": ["*", "default"]}, "already means every namespace"),
        ({"namespaces": ["a", "a"]}, "named twice"),
        ({"made_namespace": "*"}, "one existing namespace"),
        ({"namespaces": ["prod"], "made_namespace": "default"}, "is none of namespaces"),
        ({"token_file": "/t", "token_env": "T"}, "exclude each other"),
        ({"tls": {"cert_file": "/c"}}, "belong together"),
        ({"plugins": {"p": {"route": "socket"}}}, "plugin 'p' wants the socket route"),
        ({"route": "socket"}, "state_dir does not say"),
        ({"route": "both"}, "auto"),
        ({"identity": {"audience": "nomadproject.io"}}, "your own"),
        ({"identity": {"audience": ""}}, "your own"),
        ({"adress": "http://x"}, "adress"),
        ({"connections": 200}, "90"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, object], part: str) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Settings.model_validate(given)
    assert part in str(caught.value)


def test_restored_volumes_are_made_where_we_look() -> None:
    for given, made in ((["*"], "default"), (["prod", "default"], "default"), (["prod", "lab"], "prod")):
        assert Settings(namespaces=given).made_namespace == made
    assert Settings(namespaces=["prod", "lab"], made_namespace="lab").made_namespace == "lab"


def test_plugin_settings_win_over_the_general_route() -> None:
    plugins = {"a": {"route": "api"}, "c": {"secret": "env:S"}, "d": {"route": "auto"}}
    settings = Settings(state_dir="/s", route="socket", plugins=plugins)  # type: ignore[arg-type]
    assert [settings.plugin(name).route for name in "abcd"] == ["api", "socket", "socket", "auto"]
    assert settings.plugin("c").secret == "env:S"


def test_event_lines() -> None:
    assert list(events.parse(b"{}")) == []
    job = {"Topic": "Job", "Type": "JobRegistered", "Key": "w", "Namespace": "d", "Index": 7, "Payload": {"Job": {}}}
    line = json.dumps({"Index": 7, "Events": [job, {"Topic": "X", "Payload": "(left out)"}]}).encode()
    first, second = events.parse(line)
    assert (first.index, first.topic, first.key) == (7, "Job", "w")
    assert (second.index, second.payload) == (7, {})
    for bad in (b"[]", b"nonsense", b'{"Events": 3}'):
        with pytest.raises((ValueError, TypeError)):
            events.parse(bad)
