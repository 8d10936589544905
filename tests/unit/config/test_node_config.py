"""The node agent's configuration: the sample is good, and what is wrong is named with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.app import node_config
from bridge.app.config_problem import ConfigError

SAMPLE = Path(__file__).parents[3] / "configs" / "node" / "node.yaml"


def test_the_sample_is_accepted() -> None:
    document, settings = node_config.load([str(SAMPLE)], "1")
    assert settings.node == document.node.name == "worker-1"
    assert settings.tls is not None
    assert document.node.registration_dir


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
