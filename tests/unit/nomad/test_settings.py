"""Settings, versions and event lines: what is taken and what is refused."""

from __future__ import annotations

import json

import pydantic
import pytest

from adapters.nomad import events, versions
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


def test_plugin_settings_win_over_the_general_route() -> None:
    settings = Settings(state_dir="/s", route="socket", plugins={"a": {"route": "api"}})  # type: ignore[dict-item]
    assert (settings.plugin("a").route, settings.plugin("b").route) == ("api", "socket")


@pytest.mark.parametrize(
    ("text", "traits"),
    [
        ("2.0.6-dev", set()),
        ("1.11.3", set()),
        ("1.11.2", {versions.STREAM_UNREADABLE}),
        ("1.11.1", set()),
        ("1.11.0", {versions.NO_VOLUME_EVENTS}),
        ("1.10.6", set()),
        ("1.10.5", {versions.NO_VOLUME_EVENTS}),
        ("1.10.0", {versions.NO_VOLUME_EVENTS, versions.DELETE_WITHOUT_SECRETS}),
        ("1.9.7", {versions.NO_PLUGIN_EVENTS, versions.DELETE_WITHOUT_SECRETS}),
        ("1.6.5", {versions.NO_PLUGIN_EVENTS, versions.NO_IDENTITIES, versions.DELETE_WITHOUT_SECRETS}),
    ],
)
def test_what_versions_can_do(text: str, traits: set[str]) -> None:
    assert versions.traits(versions.parse(text)) == traits


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
