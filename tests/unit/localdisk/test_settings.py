"""The options: their defaults, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.localdisk import settings
from adapters.localdisk.settings import Mode, SettingsError, Topology


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSI_ENDPOINT", "unix:///run/csi.sock")
    found = settings.parse(["--state-dir", "/srv/disk", "--node-id", "n"])
    assert found.endpoint == "unix:///run/csi.sock"
    assert found.state_dir == Path("/srv/disk")
    assert (found.mode, found.topology) == (Mode.AUTO, Topology.VOLUMES)
    assert found.durable


@pytest.mark.parametrize(("endpoint", "path"), [("unix:///a/b.sock", "/a/b.sock"), ("unix:/a/b.sock", "/a/b.sock")])
def test_endpoints(endpoint: str, path: str) -> None:
    assert settings.socket_path(endpoint) == Path(path)


@pytest.mark.parametrize("endpoint", ["", "/a/b.sock", "unix:", "unix://a/b.sock", "tcp://[::1]:1", "unix:a"])
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="--endpoint"):
        settings.socket_path(endpoint)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--driver-name", "under_score"], "--driver-name"),
        (["--driver-name", "a" * 64], "--driver-name"),
        (["--node-id", "ä" * 32], "--node-id"),
        (["--threads", "0"], "--threads"),
        (["--freeze-deadline", "-1"], "--freeze-deadline"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], option: str) -> None:
    whole = ["--endpoint", "unix:///a.sock", "--state-dir", "/srv", "--node-id", "n", *arguments]
    with pytest.raises(SettingsError, match=option):
        settings.parse(whole)
