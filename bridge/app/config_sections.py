"""The sections of the configuration that are the service's own. Each orchestrator's section is its adapter's.

Pydantic models, strict and closed; the values of durations and sizes carry their units (`10s`, `64MiB`).
"""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from bridge.api.settings import DEFAULT_PORT, ApiSettings
from bridge.csi.settings import CallSettings, Deadlines, RegistrySettings
from bridge.model import quantity
from bridge.model.failure import InvalidError
from bridge.model.plugin import CallRules, Verb
from bridge.node.settings import HubSettings, Tls

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,61}[a-z0-9])?", re.ASCII)
_LONGEST_SOCKET_PATH = 107
HUB_PORT = 7718


def _duration(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError("want a duration with its unit, like 10s, 5m or 1h30m")  # noqa: TRY004 - pydantic's way
    return quantity.parse_duration(value)


def _positive_duration(value: Any) -> float:
    seconds = _duration(value)
    if seconds <= 0:
        raise ValueError("must be longer than nothing")
    return seconds


def _size(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError("want a size with its unit, like 512MiB or 10GiB")  # noqa: TRY004 - pydantic's way
    return quantity.parse_size(value)


def _absolute(value: str) -> str:
    if not posixpath.isabs(value):
        raise ValueError("want an absolute path")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("want 1 to 63 lower-case letters, digits, '-' or '.', with a letter or digit at both ends")
    return value


def _socket(value: str) -> str:
    path = value.removeprefix("unix://")
    if not posixpath.isabs(path):
        raise ValueError("want the absolute path of a unix socket, like /run/csi/csi.sock")
    if len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"is longer than the {_LONGEST_SOCKET_PATH} bytes that a unix socket's path may have")
    return path


Duration = Annotated[
    float,
    pydantic.BeforeValidator(_positive_duration),
    pydantic.WithJsonSchema({"type": "string", "pattern": f"^{quantity.DURATION_PATTERN}$", "examples": ["10s"]}),
]
Size = Annotated[
    int,
    pydantic.BeforeValidator(_size),
    pydantic.WithJsonSchema({"type": "string", "pattern": f"^{quantity.SIZE_PATTERN}$", "examples": ["10GiB"]}),
]
AbsolutePath = Annotated[str, pydantic.AfterValidator(_absolute)]
Name = Annotated[str, pydantic.AfterValidator(_name)]
Socket = Annotated[str, pydantic.AfterValidator(_socket)]
OptionalSocket = Annotated[str, pydantic.AfterValidator(lambda value: _socket(value) if value else "")]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(pydantic.BaseModel):
    """A section: closed, strict, never changed after it was read."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class ServiceSection(Section):
    """The process: where it keeps its data, how it works and how it logs."""

    data_dir: str = Field(default="/var/lib/snapbridge", min_length=1)
    """The directory of the ledger; made if it is missing."""
    ledger: str = ""
    """`sqlite:///PATH` or `sqlite://` (memory, for a trial). Empty: `ledger.db` in `data_dir`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    workers: int = Field(default=64, ge=1, le=512)
    """Requests worked on at once. What waits for a plugin's free slot takes none."""
    resync_interval: Duration = 300.0
    """How often every unfinished request is looked at although no event came."""
    shutdown_timeout: Duration = 25.0
    """How long a stop waits for the turns under way."""

    @property
    def ledger_url(self) -> str:
        """The ledger's URL, whichever way it was given."""
        return self.ledger or f"sqlite:///{self.data_dir.rstrip('/')}/ledger.db"


class ApiSection(Section):
    """The HTTP API. On loopback it trusts local callers; anywhere else it demands a token or a certificate."""

    host: str = "127.0.0.1"
    """An address or name to listen on; empty for none (then `unix_socket` is needed)."""
    port: Port = DEFAULT_PORT
    unix_socket: OptionalSocket = ""
    token_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    client_ca_file: str = ""
    client_names: list[str] = []
    body_limit: Size = 1 << 20
    request_timeout: Duration = 30.0
    wait_limit: Duration = 600.0
    shutdown_timeout: Duration = 10.0

    def settings(self, *, authenticated_otherwise: bool = False) -> ApiSettings:
        """What the API takes. `authenticated_otherwise`: an adapter checks its workloads' identities."""
        return ApiSettings(
            host=self.host,
            port=self.port,
            unix_socket=self.unix_socket,
            token_file=self.token_file,
            tls_cert_file=self.tls_cert_file,
            tls_key_file=self.tls_key_file,
            client_ca_file=self.client_ca_file,
            client_names=frozenset(self.client_names),
            authenticated_otherwise=authenticated_otherwise,
            body_limit_bytes=self.body_limit,
            request_seconds=self.request_timeout,
            wait_limit_seconds=self.wait_limit,
            shutdown_seconds=self.shutdown_timeout,
        )


class HubSection(Section):
    """Where node agents dial in. Mutual TLS: whoever may dial in carries every CSI call of its node."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: Port = HUB_PORT
    tls_cert_file: str = ""
    tls_key_file: str = ""
    client_ca_file: str = ""
    """Node agents show a certificate of this authority."""
    plaintext_on_loopback: bool = False
    """For a trial on one host: no certificates, and no address but loopback."""

    @pydantic.model_validator(mode="after")
    def _guarded(self) -> HubSection:
        files = {name: getattr(self, name) for name in ("tls_cert_file", "tls_key_file", "client_ca_file")}
        missing = [name for name, file in files.items() if not file]
        if missing and (len(missing) < len(files) or not self.plaintext_on_loopback):
            raise ValueError(f"{missing[0]} is missing: node agents dial in with certificates only")
        try:
            self.settings()
        except InvalidError as error:
            raise ValueError(str(error)) from error
        return self

    def settings(self, *, version: str = "") -> HubSettings:
        """What the hub takes."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        tls = Tls(self.tls_cert_file, self.tls_key_file, self.client_ca_file) if self.tls_cert_file else None
        return HubSettings(
            f"{host}:{self.port}", tls, plaintext_on_loopback=self.plaintext_on_loopback, version=version
        )


class CsiSection(Section):
    """How plugins are called: deadlines, concurrency, probing, polling."""

    controller_concurrency: int = Field(default=32, ge=1, le=1024)
    """Calls at once on one controller instance."""
    node_concurrency: int = Field(default=8, ge=1, le=1024)
    default_timeout: Duration = 60.0
    timeouts: dict[Verb, Duration] = {}
    """By CSI verb, like `CreateSnapshot: 5m`."""
    connect_timeout: Duration = 5.0
    probe_interval: Duration = 3.0
    poll_first: Duration = 0.25
    """The first look whether a cut snapshot is ready; then ever longer, up to `poll_most`."""
    poll_most: Duration = 10.0
    restored_volumes_share_blocks: list[str] = []
    """Drivers whose restored volumes live on the snapshot's blocks: it is not deleted while one is registered."""

    @pydantic.model_validator(mode="after")
    def _poll_grows(self) -> CsiSection:
        if self.poll_first > self.poll_most:
            raise ValueError("poll_first is longer than poll_most; exchange them")
        return self

    def settings(self) -> RegistrySettings:
        """What the plugin registry takes."""
        deadlines = Deadlines(
            self.default_timeout,
            dict(Deadlines().by_verb) | {str(verb): seconds for verb, seconds in self.timeouts.items()},
        )
        calls = CallSettings(
            deadlines=deadlines,
            controller_concurrency=self.controller_concurrency,
            node_concurrency=self.node_concurrency,
        )
        return RegistrySettings(
            calls=calls,
            connect_timeout_seconds=self.connect_timeout,
            probe_interval_seconds=self.probe_interval,
            poll_first_seconds=self.poll_first,
            poll_most_seconds=self.poll_most,
        )


class CallsSection(Section):
    """How one plugin is called. What is left out is as in `csi`."""

    concurrency: int | None = Field(default=None, ge=1, le=1024)
    """Calls at once on its controller."""
    timeout: Duration | None = None
    """Of the verbs that `timeouts` does not name."""
    timeouts: dict[Verb, Duration] = {}
    """By CSI verb, like `CreateSnapshot: 5m`."""
    poll_first: Duration | None = None
    """The first look whether a cut snapshot is ready; then ever longer, up to `poll_most`."""
    poll_most: Duration | None = None
    retry_first: Duration | None = None
    """The pause after a failed call; it doubles with each further one, up to `retry_most`."""
    retry_most: Duration | None = None

    @pydantic.model_validator(mode="after")
    def _grow(self) -> CallsSection:
        for word in ("poll", "retry"):
            first, most = getattr(self, f"{word}_first"), getattr(self, f"{word}_most")
            if first is not None and most is not None and first > most:
                raise ValueError(f"{word}_first is longer than {word}_most; exchange them")
        return self

    def rules(self) -> CallRules:
        """What the plugin registry takes."""
        return CallRules(
            concurrency=self.concurrency,
            timeout_seconds=self.timeout,
            timeouts_seconds={str(verb): seconds for verb, seconds in self.timeouts.items()},
            poll_first_seconds=self.poll_first,
            poll_most_seconds=self.poll_most,
            retry_first_seconds=self.retry_first,
            retry_most_seconds=self.retry_most,
        )


class PluginSection(Section):
    """A CSI plugin on this host that no orchestrator tells of."""

    name: Name
    """What we call this instance; unique."""
    socket: Socket
    backend: str = ""
    """Plugins that name the same backend share snapshots."""
    node: str = ""
    """The node that it serves, for a plugin with the Node service."""
    calls: CallsSection = CallsSection()
    """How it is called, where that differs from `csi`."""


class SecretsSection(Section):
    """Which places secret references may point to. Callers of the API can give references, so this is a fence."""

    directories: list[AbsolutePath] = ["/etc/snapbridge/secrets", "/run/secrets", "/run/credentials"]
    """`file:` references must be in one of these."""
    environment: list[str] = ["SNAPBRIDGE_SECRET_*", "CSI_SECRET_*"]
    """`env:` references must match one of these names; `*` stands for any rest."""
    timeout: Duration = 10.0
