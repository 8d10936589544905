"""Settings of the hub and of the node agent. Plain values; reads no environment. Wrong ones are refused here."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping

from bridge.model.failure import InvalidError

_PLAINTEXT_HINT = "Give certificates, or use a loopback address together with plaintext_on_loopback"


@dataclasses.dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files: our certificate with its key, and the authorities of the other side's certificate."""

    certificate: str
    key: str
    authorities: str
    server_name: str = ""
    """Agent only: the name in the hub's certificate where it differs from the dialled one."""


@dataclasses.dataclass(frozen=True, slots=True)
class HubSettings:
    """Where the hub listens and how patient it is. Port 0 takes a free one."""

    listen: str
    tls: Tls | None = None
    plaintext_on_loopback: bool = False
    version: str = ""
    silence_seconds: float = 15.0
    hello_timeout_seconds: float = 10.0
    most_message_bytes: int = 16 << 20
    most_waiting_chunks: int = 1024
    """Parts of one streamed answer that may wait for a slow reader before the call is given up."""
    forget_after_seconds: float = 86_400.0
    """How long a node that went away stays in the list."""

    def __post_init__(self) -> None:
        check_address(self.listen, field="listen")
        check_plaintext(self.listen, self.tls, self.plaintext_on_loopback, field="listen")


@dataclasses.dataclass(frozen=True, slots=True)
class AgentSettings:
    """Which node this is, which hub it dials (empty: none), and where plugin sockets are found.

    `hub` may name several addresses, separated by commas: those of a service's replicas, of which one listens.
    `patterns` are glob patterns (`DIR/*/csi.sock`) that are looked at again and again; `paths` are fixed sockets.
    """

    node: str
    hub: str = ""
    tls: Tls | None = None
    plaintext_on_loopback: bool = False
    version: str = ""
    topology: Mapping[str, str] = dataclasses.field(default_factory=dict)
    patterns: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    scan_interval_seconds: float = 0.5
    gone_after_seconds: float = 10.0
    """A socket file that is missing for so long is gone; a plugin that restarts is back before."""
    announce_under: tuple[str, ...] = ("/",)
    """Only drivers whose socket lies below one of these directories are announced on this host."""
    retry_first_seconds: float = 0.1
    retry_most_seconds: float = 2.0
    dial_timeout_seconds: float = 10.0
    most_message_bytes: int = 16 << 20
    most_calls: int = 512

    @property
    def hubs(self) -> tuple[str, ...]:
        """The addresses to try, one after the other."""
        return tuple(part.strip() for part in self.hub.split(",")) if self.hub else ()

    def __post_init__(self) -> None:
        check_node_name(self.node)
        for hub in self.hubs:
            check_address(hub, field="hub")
            check_plaintext(hub, self.tls, self.plaintext_on_loopback, field="hub")
        for path in (*self.patterns, *self.paths):
            if not path.startswith("/"):
                raise InvalidError(f"{path!r} is not an absolute path", field="paths")


def check_node_name(name: str) -> None:
    """Raises InvalidError for a name that no orchestrator would give a node."""
    if not name or len(name) > 253 or not name.isprintable() or set(name) & set("/: "):
        raise InvalidError(
            f"{name[:80]!r} is not a node name", field="node", hint="Up to 253 characters, no '/', ':' or blank"
        )


def check_address(address: str, *, field: str) -> None:
    """Raises InvalidError for anything but HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise InvalidError(f"{address!r} is not HOST:PORT", field=field)


def check_plaintext(address: str, tls: Tls | None, allowed: bool, *, field: str) -> None:
    """Raises InvalidError when calls, which carry secrets, would cross a network unencrypted."""
    if tls is None and not (allowed and is_loopback(address)):
        raise InvalidError(f"{address} would be spoken to without TLS", field=field, hint=_PLAINTEXT_HINT)


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT stays on this host."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
