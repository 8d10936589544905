"""Settings of hub and agent refuse what would be unsafe or could not work."""

from __future__ import annotations

import pytest

from bridge.model.failure import InvalidError
from bridge.node.settings import AgentSettings, HubSettings, Tls, is_loopback

TLS = Tls("c", "k", "a")


@pytest.mark.parametrize(
    ("listen", "tls", "plaintext", "field"),
    [
        ("0.0.0.0:7000", None, True, "listen"),
        ("127.0.0.1:7000", None, False, "listen"),
        ("127.0.0.1", TLS, False, "listen"),
        ("host:99999", TLS, False, "listen"),
        (":7000", TLS, False, "listen"),
    ],
)
def test_a_hub_that_is_refused(listen: str, tls: Tls | None, plaintext: bool, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        HubSettings(listen, tls, plaintext)
    assert caught.value.field == field


def test_hubs_that_are_fine() -> None:
    HubSettings("0.0.0.0:7000", TLS)
    HubSettings("127.0.0.1:0", plaintext_on_loopback=True)
    HubSettings("[::1]:0", plaintext_on_loopback=True)


@pytest.mark.parametrize("node", ["", "a/b", "n" * 254, "a b", "a\nb", "a:b"])
def test_a_node_name_that_is_refused(node: str) -> None:
    with pytest.raises(InvalidError):
        AgentSettings(node)


def test_an_agent_speaks_plaintext_to_loopback_only() -> None:
    AgentSettings("n", "localhost:1", plaintext_on_loopback=True)
    with pytest.raises(InvalidError, match="without TLS"):
        AgentSettings("n", "hub.example:1", plaintext_on_loopback=True)
    with pytest.raises(InvalidError, match="absolute"):
        AgentSettings("n", paths=("csi.sock",))


def test_what_is_loopback() -> None:
    assert is_loopback("127.9.9.9:1")
    assert not is_loopback("127.0.0.1.example:1")
    assert not is_loopback("10.0.0.1:1")
