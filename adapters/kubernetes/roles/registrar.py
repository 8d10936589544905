"""`registrar`: instead of node-driver-registrar. It needs two directories of the host and no right in the cluster."""

from __future__ import annotations

import os

from adapters.kubernetes.flags import Flag, Given, Kind
from adapters.kubernetes.registrar.registrar import Options, Plugin, Registrar
from adapters.kubernetes.roles import upstream_flags as upstream
from bridge.model.failure import InvalidError
from bridge.ports.role import Role, RolePlan, RoleSurroundings

SOCKET = "/run/csi/socket"
REGISTER, PROBE = "registration", "kubelet-registration-probe"

FLAGS = (
    Flag("csi-address", Kind.TEXTS, (), f"The CSI socket of a driver (default {SOCKET}); repeat it for several"),
    Flag("kubelet-registration-path", Kind.TEXTS, (), "The same socket's path on the host; one per csi-address"),
    Flag("plugin-registration-path", Kind.TEXT, "/registration", "The kubelet's plugins_registry directory"),
    Flag("timeout", Kind.DURATION, 1.0, "Deadline of a call to the driver"),
    Flag("http-endpoint", Kind.TEXT, "", "HOST:PORT or :PORT for /healthz and metrics; empty for none"),
    Flag("metrics-path", Kind.TEXT, "/metrics", "Path of the metrics"),
    Flag("health-port", Kind.WHOLE, 0, "Deprecated: as http-endpoint with :PORT"),
    Flag("mode", Kind.TEXT, REGISTER, f"{REGISTER}, or {PROBE}, which does nothing and succeeds"),
    Flag("enable-pprof", Kind.TRUTH, False, "", hidden=True),
    Flag("connection-timeout", Kind.DURATION, 0.0, "", hidden=True),
    *upstream.LOGGING,
    *upstream.VERSION,
)


def plan(given: Given) -> RolePlan | str:
    """The role that these flags ask for; a text when there is nothing to run. InvalidError names a bad flag."""
    mode = given.text("mode")
    if mode not in (REGISTER, PROBE):
        raise InvalidError(f"{mode!r} is no mode", field="--mode", hint=f"Write {REGISTER} or leave it out")
    if mode == PROBE:
        # Old manifests have it as the exec command of a livenessProbe.
        return "the mode kubelet-registration-probe does nothing; use the page /healthz of --http-endpoint"
    if given.number("timeout") <= 0:
        hint = "Give a duration above 0, such as 1s"
        raise InvalidError(f"{given.number('timeout'):g} is too little", field="--timeout", hint=hint)
    options = Options(
        plugins=_plugins(given),
        registry=given.text("plugin-registration-path"),
        call_seconds=given.number("timeout"),
    )

    async def start(lent: RoleSurroundings) -> Role:
        # As upstream: what this process makes is its user's alone.
        os.umask(0o077)
        registrar = Registrar(options, lent.clock)
        return Role(tasks=registrar.tasks(), ready=registrar.ready, pages={"/healthz": registrar.healthz})

    return RolePlan(
        name="registrar",
        start=start,
        http_address=_http_address(given),
        metrics_path=given.text("metrics-path"),
        log_level=upstream.log_level(given),
    )


def _plugins(given: Given) -> tuple[Plugin, ...]:
    sockets = given.texts("csi-address") or (SOCKET,)
    endpoints = given.texts("kubelet-registration-path")
    field = "--kubelet-registration-path"
    if not endpoints:
        raise InvalidError(
            "the flag is needed", field=field, hint="Give the path of the driver's socket as the kubelet sees it"
        )
    if len(endpoints) != len(sockets):
        counts = f"{len(sockets)} of --csi-address and {len(endpoints)} of --kubelet-registration-path"
        raise InvalidError(f"the flags come in pairs, and there are {counts}", field=field, hint="Give one for each")
    for endpoint in endpoints:
        if not endpoint.startswith("/"):
            hint = "A kubelet dials the text literally"
            raise InvalidError(f"{endpoint!r} is not an absolute path", field=field, hint=hint)
    found = tuple(Plugin(_path(one), other) for one, other in zip(sockets, endpoints, strict=True))
    if len({plugin.socket for plugin in found}) != len(found):
        raise InvalidError("a socket is named twice", field="--csi-address", hint="Name each driver's socket once")
    return found


def _path(address: str) -> str:
    path = address.removeprefix("unix://").removeprefix("unix:")
    if not path.startswith("/"):
        raise InvalidError(f"{address!r} is no unix socket", field="--csi-address", hint="Give an absolute path")
    return path


def _http_address(given: Given) -> str:
    port, address = given.whole("health-port"), given.text("http-endpoint")
    if port > 0 and address:
        raise InvalidError(
            "http-endpoint is given too", field="--health-port", hint="Leave out --health-port: it is deprecated"
        )
    return f":{port}" if port > 0 else address
