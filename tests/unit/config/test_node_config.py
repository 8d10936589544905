"""The node agent's configuration: the sample is good, and what is wrong is named with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.catalog import Catalog
from bridge.app import node_config
from bridge.app.config_problem import ConfigError

NOMAD = Path(__file__).parents[3] / "configs" / "node" / "nomad.yaml"
SECTIONS = Catalog().node_sections()
SAMPLE = Path(__file__).parents[3] / "configs" / "node" / "node.yaml"


def test_the_sample_is_accepted() -> None:
    document, settings = node_config.load([str(SAMPLE)], "1")
    assert settings.node == document.node.name == "worker-1"
    assert settings.tls is not None
    assert document.node.registration_dir


def test_the_sample_for_a_nomad_client_is_accepted() -> None:
    document, settings = node_config.load([str(NOMAD)], "1", SECTIONS)
    assert settings.patterns == ()
    (kind,) = document.finders()
    assert kind == "nomad"
    assert document.finders()[kind].state_dir == "/opt/nomad/data/client"


def test_in_a_task_its_own_socket_and_identity_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("node: {name: n, registration_dir: /r}\nnomad: {state_dir: /s}")
    environ = {"NOMAD_SECRETS_DIR": "/alloc/secrets", "NOMAD_TOKEN": "not renewed"}
    document, _ = node_config.load([str(path)], "1", SECTIONS, environ)
    section = document.finders()["nomad"]
    assert (section.address, section.token_file) == ("unix:///alloc/secrets/api.sock", "/alloc/secrets/nomad_token")
    assert section.token_env == ""
    path.write_text("node: {name: n, registration_dir: /r}\nnomad: {state_dir: /s, address: 'http://h:1'}")
    document, _ = node_config.load([str(path)], "1", SECTIONS, environ)
    assert document.finders()["nomad"].address == "http://h:1"


NOMAD_CASES = [
    ("nomad: {}", "nomad.state_dir"),
    ("nomad: {state_dir: /s, addres: x}", "did you mean address?"),
    ("nomad: {state_dir: /s, address: ftp://x}", "is no address"),
    ("nomad: {state_dir: /s, token_file: a, token_env: b}", "exclude each other"),
    ("nomads: {}", "did you mean nomad?"),
    ("log_level: info", "or give a section nomad:"),
]


@pytest.mark.parametrize(("text", "words"), NOMAD_CASES, ids=[words for _, words in NOMAD_CASES])
def test_what_is_wrong_in_a_nomad_section_is_said(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("node: {name: n, registration_dir: /r}\n" + text)
    with pytest.raises(ConfigError) as raised:
        node_config.load([str(path)], "1", SECTIONS)
    assert words in str(raised.value)


CASES = [
    ("node: {name: n, sockets: [/a/csi.sock]}", "has nothing to do"),
    ("node: {name: n, registration_dir: /r}", "name the plugin sockets"),
    ("node: {name: n, sockets: [/a/csi.sock], hub: 'h:1'}", "mutual TLS"),
    ("node: {name: n, sockets: [a.sock], registration_dir: /r}", "absolute path"),
    ("node: {name: n, socket: [/a/csi.sock], registration_dir: /r}", "did you mean sockets?"),
    ("node: {name: n, sockets: [/a/csi.sock], registration_dir: /r}\nlog_level: loud", "log_level"),
    (
        "node: {name: n, sockets: [/a/csi.sock], hub: nowhere, tls_cert_file: c, tls_key_file: k, hub_ca_file: a}",
        "hub",
    ),
]


@pytest.mark.parametrize(("text", "words"), CASES, ids=[words for _, words in CASES])
def test_what_is_wrong_is_said(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        node_config.load([str(path)], "1")
    assert words in str(raised.value)
    assert str(path) in str(raised.value)
