"""The configuration of a node agent: one small file, or a directory of them. Checked like the service's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic

from bridge.app import config_errors
from bridge.app.config import read_document
from bridge.app.config_problem import ConfigError, Problem, dotted
from bridge.app.config_sections import AbsolutePath, CsiSection, Name, Section
from bridge.model.failure import InvalidError
from bridge.node.settings import AgentSettings, Tls


class NodeSection(Section):
    """This host: its name, where plugin sockets are, whom to tell of them."""

    name: Name
    sockets: list[AbsolutePath] = []
    """Glob patterns of plugin sockets, like `/var/lib/kubelet/plugins/*/csi.sock`."""
    registration_dir: AbsolutePath | Literal[""] = ""
    """Announce each driver there (a kubelet's plugins_registry directory). Empty: announce nothing."""
    announce_below: list[AbsolutePath] = ["/"]
    """Only drivers whose socket is below one of these are announced."""
    hub: str = ""
    """HOST:PORT of the service's hub, or of each of its replicas, separated by commas. Empty: carry no calls."""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    hub_ca_file: str = ""
    hub_server_name: str = ""
    topology: dict[str, str] = {}

    @pydantic.model_validator(mode="after")
    def _has_work(self) -> NodeSection:
        if not self.hub and not self.registration_dir:
            raise ValueError("has nothing to do: name a hub, a registration_dir, or both")
        files = (self.tls_cert_file, self.tls_key_file, self.hub_ca_file)
        if self.hub and not all(files):
            raise ValueError("the hub wants mutual TLS: give tls_cert_file, tls_key_file and hub_ca_file")
        return self

    def settings(self, version: str) -> AgentSettings:
        """What the agent takes. InvalidError as it says."""
        tls = Tls(self.tls_cert_file, self.tls_key_file, self.hub_ca_file, self.hub_server_name) if self.hub else None
        return AgentSettings(
            node=self.name,
            hub=self.hub,
            tls=tls,
            version=version,
            topology=self.topology,
            patterns=tuple(self.sockets),
            announce_under=tuple(self.announce_below),
        )


class NodeDocument(Section):
    """The whole file, but for the sections of orchestrators (`load` adds them)."""

    node: NodeSection
    csi: CsiSection = CsiSection()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    def finders(self) -> Mapping[str, Any]:
        """By kind, the settings of each orchestrator that is to be asked for sockets."""
        own = NodeDocument.model_fields
        found = {name: getattr(self, name) for name in type(self).model_fields if name not in own}
        return {name: settings for name, settings in found.items() if settings is not None}


def _sockets(sections: Mapping[str, Any]) -> str:
    kinds = "".join(f", or give a section {kind}:" for kind in sorted(sections))
    return f"like sockets: [/var/lib/kubelet/plugins/*/csi.sock]{kinds}"


def load(
    paths: Sequence[str], version: str, sections: Mapping[str, Any] = {}, environ: Mapping[str, str] = {}
) -> tuple[NodeDocument, AgentSettings]:
    """Read and check. `sections` are the orchestrators' models by kind. ConfigError lists every problem."""
    document, _ = read_document(paths)
    extra: dict[str, Any] = {kind: (model | None, None) for kind, model in sections.items()}
    model: type[NodeDocument] = pydantic.create_model("NodeDocument", __base__=NodeDocument, **extra)
    data = dict(document.data)
    for kind, section in sections.items():
        defaults = getattr(section, "environment_defaults", None)
        if defaults is not None and isinstance(data.get(kind), dict):
            data[kind] = {**defaults(environ, data[kind]), **data[kind]}
    try:
        read = model.model_validate(data)
    except pydantic.ValidationError as error:
        raise ConfigError(
            [
                Problem(document.place(inner), dotted(inner), message, hint)
                for inner, message, hint in config_errors.explain(error, model)
            ]
        ) from None
    if not read.node.sockets and not read.finders():
        place = document.place(("node",))
        raise ConfigError([Problem(place, "node.sockets", "name the plugin sockets", _sockets(sections))])
    try:
        return read, read.node.settings(version)
    except InvalidError as error:
        where = ("node", error.field) if error.field else ("node",)
        raise ConfigError([Problem(document.place(where), dotted(where), error.message, error.hint)]) from None
