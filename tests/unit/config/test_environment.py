"""Nomad's own variables are defaults of a Nomad section; the file wins, and no token is copied."""

from __future__ import annotations

from pathlib import Path

from adapters.catalog import Catalog
from adapters.nomad.settings import Settings
from bridge.app import config

ENVIRON = {"NOMAD_ADDR": "https://nomad.example:4646", "NOMAD_TOKEN": "verysecret", "NOMAD_CACERT": "/ca.pem"}


def settings(tmp_path: Path, section: str) -> Settings:
    file = tmp_path / "a.yaml"
    file.write_text(f"clusters: [{{name: a, kind: nomad{section}}}]\n")
    found = config.load([str(file)], Catalog().sections(), ENVIRON).clusters[0].settings
    assert isinstance(found, Settings)
    return found


def test_what_the_section_leaves_out_comes_from_the_environment(tmp_path: Path) -> None:
    found = settings(tmp_path, "")
    assert (found.address, found.token_env, found.tls.ca_file) == (
        "https://nomad.example:4646",
        "NOMAD_TOKEN",
        "/ca.pem",
    )
    assert "verysecret" not in repr(found)


def test_what_the_section_says_wins(tmp_path: Path) -> None:
    found = settings(tmp_path, ", address: 'http://127.0.0.1:1', token_file: /t, tls: {server_name: s}")
    assert (found.address, found.token_env, found.token_file) == ("http://127.0.0.1:1", "", "/t")
    assert (found.tls.ca_file, found.tls.server_name) == ("", "s")
