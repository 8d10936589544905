"""Settings of one Nomad cluster. Secrets by reference only. Read by every command: it may import nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import pydantic

from bridge.model.plugin import CallRules, Verb

RouteChoice = Literal["auto", "socket", "api", "node"]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class Tls(_Strict):
    """How the agent proves itself, and how we do. Verification is always on."""

    ca_file: str = ""
    """A PEM file of authorities; empty takes the system's."""
    server_name: str = ""
    """The name in the agent's certificate, where it is not the address (`server.global.nomad`)."""
    cert_file: str = ""
    key_file: str = ""

    @pydantic.model_validator(mode="after")
    def _both_or_none(self) -> Tls:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file belong together; give both or none")
        return self


def _web_address(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^\s?#]+", text):
        raise ValueError(f"{text[:200]!r} is no address: it begins with http:// or https:// and has no query")
    return text.rstrip("/")


WebAddress = Annotated[str, pydantic.AfterValidator(_web_address)]
Seconds = Annotated[float, pydantic.Field(gt=0, le=86400)]


class CallSettings(_Strict):
    """How one plugin is called. What is left out is as in the service's `csi`. Deadlines and concurrency are the
    socket's: through its API, Nomad takes one call at a time and gives it two minutes."""

    concurrency: int | None = pydantic.Field(default=None, ge=1, le=1024)
    timeout_seconds: Seconds | None = None
    """Of the verbs that `timeouts_seconds` does not name."""
    timeouts_seconds: dict[Verb, Seconds] = {}
    """By CSI verb, like `CreateSnapshot: 300`."""
    poll_first_seconds: Seconds | None = None
    poll_most_seconds: Seconds | None = None
    retry_first_seconds: Seconds | None = None
    retry_most_seconds: Seconds | None = None

    @pydantic.model_validator(mode="after")
    def _grow(self) -> CallSettings:
        for word in ("poll", "retry"):
            first, most = getattr(self, f"{word}_first_seconds"), getattr(self, f"{word}_most_seconds")
            if first is not None and most is not None and first > most:
                raise ValueError(f"{word}_first_seconds is longer than {word}_most_seconds; exchange them")
        return self

    def rules(self) -> CallRules:
        """What the plugin registry takes."""
        return CallRules(**self.model_dump())


class PluginSettings(_Strict):
    """What is known of one CSI plugin beside what Nomad says of it. The key in the config is the plugin's id."""

    route: RouteChoice = "auto"
    """`socket`: its socket on this host; `node`: a node agent (the hub); `api`: Nomad's API; `auto`: the socket where
    it is, else a node agent that has it, else the API."""
    backend: str = ""
    """Plugins with the same backend name share snapshots."""
    secret: str = ""
    """Reference of the CSI secrets of its volumes and snapshots. Nomad never shows those that it keeps itself."""
    calls: CallSettings = CallSettings()
    """How it is called, where that differs from the service's `csi`."""
    mount_flags: list[str] = []
    """Mount flags of a restored volume whose source's flags Nomad shows only as [REDACTED]."""
    enabled: bool = True


class IdentitySettings(_Strict):
    """Which workload identities may call our API."""

    enabled: bool = True
    audience: str = "snapbridge"
    """The `aud` that an identity must be made for. Nomad's default identity is never accepted."""
    issuer: str = ""
    """The `iss` that must be there, where the servers have an `oidc_issuer`."""
    require_expiry: bool = False
    """Refuse identities without a `ttl`. The allocation is checked at each call in any case."""
    jwks_seconds: float = pydantic.Field(default=300.0, gt=0, le=86400)
    """For how long the public keys are kept; an unknown key id fetches them earlier."""

    @pydantic.field_validator("audience")
    @classmethod
    def _own_audience(cls, audience: str) -> str:
        if not audience or audience == "nomadproject.io":
            raise ValueError(
                "the audience must be one of your own, not empty and not Nomad's default (nomadproject.io), "
                "which every task has"
            )
        return audience


class HookSettings(_Strict):
    """Hooks in job files."""

    enabled: bool = True
    write_status: bool = True
    """Keep a summary per job in the variable `snapbridge/status/<job>`, where the token may write it."""
    link: WebAddress = ""
    """The address of our API as operators reach it, for links in summaries. Empty: no links."""


class LeadershipSettings(_Strict):
    """One of several replicas acts: the one that holds the lock on a variable."""

    variable: str = pydantic.Field(default="snapbridge/leader", pattern=r"^[a-zA-Z0-9_~/-]{1,128}$")
    namespace: str = "default"
    ttl_seconds: int = pydantic.Field(default=15, ge=10, le=600)
    """How long a leader that is silent keeps the lock at least; the next one leads after twice that and the delay."""
    delay_seconds: int = pydantic.Field(default=1, ge=1, le=600)
    address: WebAddress = ""
    """The address of this replica's API, for whoever asks another replica: `http://10.0.0.1:7717`."""


class Connection(_Strict):
    """How to reach an agent."""

    address: str = "http://127.0.0.1:4646"
    """http://, https:// or unix:///path of an agent (a task's api.sock)."""
    region: str = ""
    """Empty: the agent's own."""
    token_file: str = ""
    """A file with an ACL token or a workload identity; read again when it changes."""
    token_env: str = ""
    """An environment variable with an ACL token."""
    tls: Tls = Tls()
    request_timeout_seconds: float = pydantic.Field(default=30.0, gt=0, le=300)
    connections: int = pydantic.Field(default=32, ge=4, le=90)
    """Most connections to the agent at once; Nomad allows 100 per address by default."""
    plugin_seconds: float = pydantic.Field(default=2.0, ge=0.05, le=60)
    """How often the list of plugins is looked at."""

    @pydantic.field_validator("address")
    @classmethod
    def _known_scheme(cls, address: str) -> str:
        if not address.startswith(("http://", "https://", "unix:///")):
            raise ValueError(f"{address[:200]!r} is no address: it begins with http://, https:// or unix:///")
        return address.rstrip("/")

    @pydantic.model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token_file and self.token_env:
            raise ValueError("token_file and token_env exclude each other; remove one of them")
        return self

    @classmethod
    def environment_defaults(cls, environ: Mapping[str, str], given: Mapping[str, object]) -> dict[str, object]:
        """Nomad's own variables, for what the section leaves out. The token itself stays in the environment."""
        found: dict[str, object] = {}
        if environ.get("NOMAD_ADDR"):
            found["address"] = environ["NOMAD_ADDR"]
        if environ.get("NOMAD_TOKEN") and not given.get("token_file"):
            found["token_env"] = "NOMAD_TOKEN"
        if environ.get("NOMAD_CACERT") and "tls" not in given:
            found["tls"] = {"ca_file": environ["NOMAD_CACERT"]}
        return found


class NodeSettings(Connection):
    """A node agent's section: where the plugins of this client are."""

    state_dir: str = pydantic.Field(min_length=1)
    """The client's `state_dir` (default of Nomad: <data_dir>/client)."""
    ignore: list[str] = []
    """Plugin ids to leave alone."""

    @classmethod
    def environment_defaults(cls, environ: Mapping[str, str], given: Mapping[str, object]) -> dict[str, object]:
        """In a task: its own API socket, and the workload identity that Nomad keeps beside it (`file = true`)."""
        found = super().environment_defaults(environ, given)
        secrets = environ.get("NOMAD_SECRETS_DIR")
        if secrets and "address" not in {*found, *given}:
            found["address"] = f"unix://{secrets}/api.sock"
            if not {"token_file", "token_env"} & set(given):
                found.pop("token_env", None)  # it is not renewed in the environment
                found["token_file"] = f"{secrets}/nomad_token"
        return found

    def whole(self) -> Settings:
        """As settings of the follower of plugins: sockets, and nothing else."""
        shared = {name: getattr(self, name) for name in Connection.model_fields}
        ignored = {name: PluginSettings(route="socket", enabled=False) for name in self.ignore}
        return Settings(**shared, state_dir=self.state_dir, route="socket", plugins=ignored)


class Settings(Connection):
    """How to reach the cluster, and what to do there."""

    namespaces: list[str] = ["*"]
    """The namespaces to look at; `*` for all, which needs a token that may read jobs in each of them."""
    made_namespace: str = "default"
    """Where a restored volume is registered until it gets its name, when it is made through Nomad's API. Left out:
    `default`, or the first of `namespaces` where that is not among them."""
    state_dir: str = ""
    """The client's `state_dir` on this host (default of Nomad: <data_dir>/client). Empty: no sockets here."""
    route: RouteChoice = "auto"
    """For plugins whose own section says nothing of it."""
    api_after_seconds: float = pydantic.Field(default=90.0, ge=0, le=3600)
    """How long a plugin that a node agent carried is waited for before Nomad's API is taken instead: longer than a
    call that may still be under way there."""
    plugins: dict[str, PluginSettings] = {}
    hooks: HookSettings = HookSettings()
    leadership: LeadershipSettings | None = None
    """Given where several replicas of the service run; they share one ledger."""
    identity: IdentitySettings = IdentitySettings()
    resync_seconds: float = pydantic.Field(default=180.0, ge=1, le=86400)
    """How often the jobs are listed although no event came."""
    stream_first_seconds: float = pydantic.Field(default=5.0, gt=0, le=120)
    """A stream without a first heartbeat after this long is a refused one."""
    stream_silence_seconds: float = pydantic.Field(default=75.0, gt=0, le=3600)
    """A stream without a line for this long is dead; Nomad's heartbeat comes each 30 s."""
    backoff_first_seconds: float = pydantic.Field(default=0.5, gt=0, le=60)
    backoff_most_seconds: float = pydantic.Field(default=30.0, gt=0, le=600)

    @pydantic.field_validator("namespaces")
    @classmethod
    def _some_namespace(cls, namespaces: list[str]) -> list[str]:
        if not namespaces:
            raise ValueError('name a namespace, or ["*"] for all')
        if "*" in namespaces and len(namespaces) > 1:
            raise ValueError('"*" already means every namespace; name it alone')
        if len(set(namespaces)) != len(namespaces):
            raise ValueError("a namespace is named twice")
        return namespaces

    @pydantic.field_validator("made_namespace")
    @classmethod
    def _one_namespace(cls, namespace: str) -> str:
        if namespace in ("", "*"):
            raise ValueError("made_namespace is one existing namespace, for example default")
        return namespace

    @pydantic.model_validator(mode="before")
    @classmethod
    def _made_where_we_look(cls, given: object) -> object:
        if isinstance(given, Mapping) and "made_namespace" not in given:
            named = given.get("namespaces")
            if isinstance(named, list) and named and not {"*", "default"} & {str(name) for name in named}:
                return {**given, "made_namespace": named[0]}
        return given

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Settings:
        if not {"*", self.made_namespace} & set(self.namespaces):
            raise ValueError(
                f"made_namespace {self.made_namespace!r} is none of namespaces, so what is made there would stay "
                "there unseen; add it to namespaces, or name one of them"
            )
        wanting = [name for name, plugin in self.plugins.items() if plugin.route == "socket"]
        if not self.state_dir and (wanting or self.route == "socket"):
            who = f"plugin {wanting[0]!r}" if wanting else "route"
            raise ValueError(f"{who} wants the socket route, but state_dir does not say where the sockets are")
        return self

    def plugin(self, plugin_id: str) -> PluginSettings:
        """The settings of this plugin, or the defaults. What it says nothing of its route goes the general one."""
        found = self.plugins.get(plugin_id, PluginSettings())
        return found if "route" in found.model_fields_set else found.model_copy(update={"route": self.route})
