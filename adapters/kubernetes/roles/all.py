"""`all`: both upstream halves in one process. No handshake writes, one event, the fewest requests."""

from __future__ import annotations

from adapters.kubernetes import adapter
from adapters.kubernetes.flags import Flag, Given, Kind
from adapters.kubernetes.metrics import UpstreamMetrics
from adapters.kubernetes.operations import Operations
from adapters.kubernetes.reflector import patient
from adapters.kubernetes.roles import gates
from adapters.kubernetes.roles import upstream_flags as upstream
from bridge.model.failure import InvalidError
from bridge.ports.role import Role, RolePlan, RoleSurroundings

CLUSTER = "kubernetes"
"""The cluster's name in keys: a role serves one."""

APART = ("enable-distributed-snapshotting", "node-deployment")
"""Flags of upstream's that make no sense in one process."""

FLAGS = (
    *upstream.CLIENT,
    *upstream.WORK,
    *upstream.LEADER,
    *upstream.SIDECAR,
    *upstream.HTTP,
    *upstream.LOGGING,
    *upstream.VERSION,
    *upstream.NAMING,
    *upstream.GROUP_NAMING,
    *upstream.CONTENTS,
    *upstream.OWNERS,
    *gates.FLAGS,
    Flag("csi-address", Kind.TEXTS, (), "The CSI socket of a driver; repeat it for several"),
    Flag("timeout", Kind.DURATION, 60.0, "Deadline of a plugin call"),
    *(Flag(name, Kind.TRUTH, False, "Refused: it takes two halves, `controller` and `sidecar`") for name in APART),
)


def plan(given: Given) -> RolePlan:
    """The role that these flags ask for."""
    settings = upstream.settings(
        given, **upstream.naming(given), forget_field_owners=given.truth("forget-field-owners")
    )
    ways = _ways(given)
    sockets = given.texts("csi-address") or ("/run/csi/socket",)

    async def start(lent: RoleSurroundings) -> Role:
        for socket in sockets:
            await lent.sink.ensure_socket(socket, socket.removeprefix("unix://"))
        cluster = await adapter.build(
            settings,
            cluster=CLUSTER,
            clock=lent.clock,
            serves=lambda driver: lent.plugins.view(driver).known,
            ways=ways,
        )
        meters = UpstreamMetrics(lent.meters)
        lent.on_call(meters.call_ended)
        operations = Operations(cluster.world, lent.clock.now, meters.operation, lambda: not cluster.fence(""))
        meters.watch_in_flight(operations.in_flight)
        if cluster.election is not None:
            meters.watch_leases(cluster.election.held)
        return Role(
            joined=(cluster.joined(),),
            workers=given.whole("worker-threads"),
            resync_seconds=upstream.resync_seconds(given),
            retry=upstream.Doubling(given),
            pages={"/healthz/leader-election": cluster.leader_page},
        )

    return RolePlan(
        name="all",
        start=start,
        http_address=upstream.http_address(given),
        metrics_path=given.text("metrics-path"),
        call_timeout_seconds=given.number("timeout"),
        retry_first_seconds=given.number("retry-interval-start"),
        retry_most_seconds=given.number("retry-interval-max"),
        log_level=upstream.log_level(given),
    )


def _ways(given: Given) -> adapter.Ways:
    """What the flags say of groups, modes and patience. InvalidError names a bad one."""
    for name in APART:
        if given.truth(name):
            hint = "Run `controller` and, on each node, `sidecar` with these flags"
            raise InvalidError("one process for all nodes cannot do it", field=f"--{name}", hint=hint)
    return adapter.Ways(
        groups=gates.read(given)[gates.GROUPS],
        group_naming=upstream.group_naming(given),
        source_mode=given.truth("prevent-volume-mode-conversion"),
        pace=patient(given.number("retry-crd-interval-max")),
    )
