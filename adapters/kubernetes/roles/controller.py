"""`controller`: the cluster half, in the place of upstream's snapshot-controller. It talks to no driver."""

from __future__ import annotations

from adapters.kubernetes import election
from adapters.kubernetes.client import open_client
from adapters.kubernetes.controller.half import ClusterHalf, Ways
from adapters.kubernetes.controller.turns import Rules
from adapters.kubernetes.decide.election import Scope
from adapters.kubernetes.flags import Flag, Given, Kind
from adapters.kubernetes.metrics import UpstreamMetrics
from adapters.kubernetes.operations import Operations
from adapters.kubernetes.reflector import patient
from adapters.kubernetes.roles import gates
from adapters.kubernetes.roles import upstream_flags as upstream
from bridge.ports.loop import Loop, Turn
from bridge.ports.role import Role, RolePlan, RoleSurroundings

FLAGS = (
    *upstream.CLIENT,
    *upstream.WORK,
    *upstream.LEADER,
    *upstream.HTTP,
    *upstream.LOGGING,
    *upstream.VERSION,
    *upstream.CONTENTS,
    *upstream.OWNERS,
    *gates.FLAGS,
    Flag(
        "enable-distributed-snapshotting",
        Kind.TRUTH,
        False,
        "Label new contents with the node that their volume belongs to, for driver halves on every node",
    ),
)


def plan(given: Given) -> RolePlan:
    """The role that these flags ask for."""
    settings = upstream.settings(given, forget_field_owners=given.truth("forget-field-owners"))
    groups = gates.read(given)[gates.GROUPS]
    rules = Rules(
        source_mode=given.truth("prevent-volume-mode-conversion"),
        distributed=given.truth("enable-distributed-snapshotting"),
    )
    pace = patient(given.number("retry-crd-interval-max"))
    workers, retry = given.whole("worker-threads"), upstream.Doubling(given)

    async def start(lent: RoleSurroundings) -> Role:
        meters = UpstreamMetrics(lent.meters)

        def make_queue(name: str, turn: Turn) -> Loop:
            queue = meters.queue(name)
            return queue.watched(lent.make_loop(name, queue.timed(turn), workers=workers, retry=retry))

        client = await open_client(settings)
        half = ClusterHalf(
            settings,
            client,
            make_queue,
            lent.clock,
            Ways(rules, groups, pace, resync_seconds=upstream.resync_seconds(given)),
        )
        if settings.leader_election:
            standing = await election.stand(settings, lent.clock, scope=Scope.CLUSTER)
            half.elect(standing)
            meters.watch_leases(standing.held)
        operations = Operations(half.world, lent.clock.now, meters.operation, lambda: half.acting)
        meters.watch_in_flight(operations.in_flight)
        pages = {"/healthz/leader-election": half.leader_page}
        return Role(loops=half.loops, tasks={"cluster": half.run}, ready=half.ready, pages=pages)

    return RolePlan(
        name="controller",
        start=start,
        http_address=given.text("http-endpoint"),
        metrics_path=given.text("metrics-path"),
        log_level=upstream.log_level(given),
    )
