"""How the API listens and what it demands of callers. Plain values; the config section is parsed in app."""

from __future__ import annotations

import dataclasses
import ipaddress

from bridge.model.failure import InvalidError

DEFAULT_PORT = 7717


@dataclasses.dataclass(frozen=True, slots=True)
class ApiSettings:
    """Where to listen, with which credentials, and the limits. Empty paths mean "not used"."""

    host: str = "127.0.0.1"
    """An address or name to bind; empty for no TCP listener."""
    port: int = DEFAULT_PORT
    """0 takes a free one."""
    unix_socket: str = ""
    """Listen on this path too. Its mode is 0600, and who can open it is the caller "local"."""
    token_file: str = ""
    """One caller per line: `TOKEN` or `NAME TOKEN`; `#` starts a comment. Read again when it changes."""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_look_seconds: float = 30.0
    """How often to look whether the certificate was renewed."""
    client_ca_file: str = ""
    """Client certificates of this authority are credentials; the subject is the caller's name."""
    client_names: frozenset[str] = frozenset()
    """Subjects (common names) that may call; empty means every certificate of that authority."""
    authenticated_otherwise: bool = False
    """An authenticator of an adapter is configured (a workload identity)."""
    body_limit_bytes: int = 1 << 20
    request_seconds: float = 30.0
    """The deadline of one call to the service, blocking queries apart."""
    wait_limit_seconds: float = 600.0
    waiters_limit: int = 512
    """Blocking queries at one time; more are answered 429."""
    shutdown_seconds: float = 10.0

    @property
    def on_loopback(self) -> bool:
        """Whether only this host can reach the TCP listener."""
        if self.host in ("", "localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def local_is_trusted(self) -> bool:
        """Whether a caller without a credential is "local": loopback only, and no token was asked for."""
        return self.on_loopback and not self.token_file and not self.client_ca_file

    def check(self) -> None:
        """Refuse settings that would leave the door open. InvalidError names the field and the remedy."""
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise InvalidError(
                "the API's certificate and key go together", field="api.tls", hint="give both files, or none"
            )
        if self.client_ca_file and not self.tls_cert_file:
            raise InvalidError(
                "client certificates need TLS", field="api.client_ca_file", hint="give the API a certificate and key"
            )
        guarded = self.token_file or self.client_ca_file or self.authenticated_otherwise
        if not self.on_loopback and not guarded:
            raise InvalidError(
                f"the API would listen on {self.host} for everybody",
                field="api.host",
                hint="name a token file or a client authority, or listen on 127.0.0.1",
            )
        if not self.host and not self.unix_socket:
            raise InvalidError("the API has no address", field="api.host", hint="give a host or a unix socket")
