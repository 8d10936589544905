"""`sidecar`: the driver half, in the place of upstream's csi-snapshotter, beside one driver or on each node."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os

from adapters.kubernetes import election
from adapters.kubernetes.client import open_client
from adapters.kubernetes.decide.election import Scope
from adapters.kubernetes.flags import Flag, Given, Kind
from adapters.kubernetes.metrics import UpstreamMetrics
from adapters.kubernetes.names import Naming
from adapters.kubernetes.roles import gates
from adapters.kubernetes.roles import upstream_flags as upstream
from adapters.kubernetes.sidecar.half import DriverHalf, Ways
from bridge.model.failure import InvalidError
from bridge.model.plugin import Capability, PluginDescription
from bridge.model.plugin import Role as PluginRole
from bridge.ports.adapter import Joined
from bridge.ports.role import Role, RolePlan, RoleSurroundings

log = logging.getLogger(__name__)

CLUSTER = "kubernetes"
SAY_AGAIN_SECONDS = 10.0

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
    *upstream.OWNERS,
    *gates.FLAGS,
    Flag("csi-address", Kind.TEXT, "/run/csi/socket", "The CSI socket of the driver"),
    Flag("timeout", Kind.DURATION, 60.0, "Deadline of a plugin call"),
    Flag("node-deployment", Kind.TRUTH, False, "Serve only the contents of the node $NODE_NAME"),
)


def plan(given: Given) -> RolePlan:
    """The role that these flags ask for."""
    settings = upstream.settings(given, **upstream.naming(given))
    asked = _ways(given, settings.naming)
    socket = given.text("csi-address")

    async def start(lent: RoleSurroundings) -> Role:
        meters = UpstreamMetrics(lent.meters)
        lent.on_call(meters.call_ended)
        await lent.sink.ensure_socket(socket, socket.removeprefix("unix://"))
        driver = await _driver(lent, socket)
        client = await open_client(settings)
        where = election.namespace(settings.lease_namespace, settings.service_account_dir)
        ways = dataclasses.replace(asked, lease_namespace=where, lease_check_seconds=settings.lease_check_seconds)
        half = DriverHalf(driver, client, cluster=CLUSTER, clock=lent.clock, ways=ways)
        if settings.leader_election:
            standing = await election.stand(settings, lent.clock, scope=Scope.DRIVERS, drivers=lambda: (driver,))
            half.elect(standing)
            meters.watch_leases(standing.held)
        joined = Joined(
            half,
            resolvers={"k8s": half.secrets},
            problems=half.problems,
            fence=half.fence,
            groups=half.groups,
        )
        return Role(
            joined=(joined,),
            workers=given.whole("worker-threads"),
            resync_seconds=upstream.resync_seconds(given),
            retry=upstream.Doubling(given),
            pages={"/healthz/leader-election": half.leader_page},
        )

    return RolePlan(
        name="sidecar",
        start=start,
        http_address=upstream.http_address(given),
        metrics_path=given.text("metrics-path"),
        call_timeout_seconds=given.number("timeout"),
        retry_first_seconds=given.number("retry-interval-start"),
        retry_most_seconds=given.number("retry-interval-max"),
        log_level=upstream.log_level(given),
    )


def _ways(given: Given, naming: Naming) -> Ways:
    """What the flags say of names, gates and nodes. InvalidError names a bad one."""
    return Ways(
        naming,
        upstream.group_naming(given),
        gates.read(given)[gates.GROUPS],
        _node(given),
        forget_owners=given.truth("forget-field-owners"),
    )


def _node(given: Given) -> str:
    """The node whose contents are served; empty for all."""
    if not given.truth("node-deployment"):
        return ""
    if given.truth("leader-election"):
        raise InvalidError(
            "every node has a sidecar of its own, which all act at once",
            field="--leader-election",
            hint="Leave it out beside --node-deployment",
        )
    node = os.environ.get("NODE_NAME", "")
    if not node:
        hint = "Set NODE_NAME from the pod's spec.nodeName"
        raise InvalidError("the environment does not say which node this is", field="--node-deployment", hint=hint)
    return node


async def _driver(lent: RoleSurroundings, socket: str) -> str:
    """Wait until the plugin serves, and return its name. InvalidError when it cannot make snapshots."""
    waited = 0.0
    while True:
        row = _controller(lent, socket)
        if row is not None and row.healthy:
            break
        if waited % SAY_AGAIN_SECONDS == 0.0:
            said = [row.sentence for row in lent.plugins.describe() if row.sentence]
            log.info("waiting for the driver", extra={"socket": socket, "sentence": "; ".join(said)})
        await asyncio.sleep(0.1)
        waited = round(waited + 0.1, 1)
    if Capability.CREATE_DELETE_SNAPSHOT not in row.capabilities:
        raise InvalidError(
            f"the driver {row.id.driver!r} cannot make snapshots: it does not announce CREATE_DELETE_SNAPSHOT",
            field="--csi-address",
            hint="Leave this sidecar out beside this driver",
        )
    return row.id.driver


def _controller(lent: RoleSurroundings, socket: str) -> PluginDescription | None:
    rows = [row for row in lent.plugins.describe() if row.id.instance == socket]
    served = [row for row in rows if row.id.role == PluginRole.CONTROLLER.value]
    found = served or rows
    return found[0] if found else None
