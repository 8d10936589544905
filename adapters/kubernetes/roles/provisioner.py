"""`provisioner`: volumes for claims, empty or filled from a source, and their end: external-provisioner's work."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from adapters.kubernetes.decide import provision, topology
from adapters.kubernetes.flags import Flag, Given, Kind
from adapters.kubernetes.provisioner import service
from adapters.kubernetes.roles import gates
from adapters.kubernetes.roles import upstream_flags as upstream
from bridge.model.failure import InvalidError
from bridge.ports.role import Role, RolePlan, RoleSurroundings

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
SOCKET = "/run/csi/socket"

FLAGS = (
    *upstream.CLIENT,
    *(flag for flag in upstream.WORK if flag.name.startswith("retry-interval")),
    *upstream.LEADER,
    *upstream.SIDECAR,
    *upstream.HTTP,
    *upstream.LOGGING,
    *upstream.VERSION,
    Flag("csi-address", Kind.TEXT, SOCKET, "The CSI socket of the driver"),
    Flag("timeout", Kind.DURATION, 10.0, "Deadline of a plugin call"),
    Flag("worker-threads", Kind.WHOLE, 100, "Claims, and volumes, that are worked on at once"),
    Flag("volume-name-prefix", Kind.TEXT, "pvc", "First part of a volume's name"),
    Flag("volume-name-uuid-length", Kind.WHOLE, -1, "Characters of the claim's uid in the name; -1 takes it whole"),
    Flag("default-fstype", Kind.TEXT, "", "File system where a class names none"),
    Flag("extra-create-metadata", Kind.TRUTH, False, "Tell the driver the names of claim and volume"),
    Flag("strict-topology", Kind.TRUTH, False, "Late binding: name the selected node's place alone"),
    Flag("immediate-topology", Kind.TRUTH, True, "Immediate binding: name the places of all nodes"),
    Flag("prevent-volume-mode-conversion", Kind.TRUTH, True, "Another volume mode needs the content's annotation"),
    Flag("controller-publish-readonly", Kind.TRUTH, False, "Mark volumes of ReadOnlyMany claims as read-only"),
    Flag("cloning-protection-threads", Kind.WHOLE, 1, "Sources whose protection is looked at at once"),
    Flag("snapshot-orphan-sweep-interval", Kind.DURATION, 300.0, "How often to look for left protection; 0: never"),
    Flag("feature-gates", Kind.TEXTS, (), "CrossNamespaceVolumeDataSource=true, VolumeAttributesClass=false"),
    Flag("node-deployment", Kind.TRUTH, False, "Refused: run one central provisioner per driver"),
    Flag("enable-capacity", Kind.TRUTH, False, "Accepted with a warning: no CSIStorageCapacity is written"),
    *(
        Flag(name, kind, default, "", hidden=True)
        for name, kind, default in (
            ("master", Kind.TEXT, ""),
            ("enable-pprof", Kind.TRUTH, False),
            ("capacity-threads", Kind.WHOLE, 1),
            ("capacity-poll-interval", Kind.DURATION, 60.0),
            ("capacity-for-immediate-binding", Kind.TRUTH, False),
            ("capacity-ownerref-level", Kind.WHOLE, 1),
            ("kube-api-capacity-qps", Kind.NUMBER, 1.0),
            ("kube-api-capacity-burst", Kind.WHOLE, 5),
            ("node-deployment-immediate-binding", Kind.TRUTH, True),
            ("node-deployment-base-delay", Kind.DURATION, 20.0),
            ("node-deployment-max-delay", Kind.DURATION, 60.0),
        )
    ),
)
_GATES = {
    "CrossNamespaceVolumeDataSource": False,
    "VolumeAttributesClass": True,
    "Topology": True,
    **dict.fromkeys(("ReleaseLeaderElectionOnExit", "ContextualLogging", "LoggingAlphaOptions"), False),
}
"""The last ones change nothing here."""


def plan(given: Given) -> RolePlan:
    """The role that these flags ask for."""
    settings = upstream.settings(given)
    gate = gates.parse(given.texts("feature-gates"), _GATES)
    if given.truth("node-deployment"):
        raise InvalidError(
            "a provisioner on each node is not served",
            field="--node-deployment",
            hint="Run one provisioner per driver; WaitForFirstConsumer places node-local volumes through its agent",
        )
    length = given.whole("volume-name-uuid-length")
    if length != -1 and not 1 <= length <= 32:
        raise InvalidError(f"{length} is no length", field="--volume-name-uuid-length", hint="Give -1, or 1 to 32")
    if not given.text("volume-name-prefix"):
        raise InvalidError("it may not be empty", field="--volume-name-prefix", hint="Give a prefix such as pvc")
    address = upstream.http_address(given)
    path = given.text("csi-address").removeprefix("unix://")

    async def start(lent: RoleSurroundings) -> Role:
        if given.truth("enable-capacity"):
            log.warning("--enable-capacity: no CSIStorageCapacity objects are written by this provisioner")
        await lent.sink.ensure_socket(path, path)
        driver = await _driver(lent)
        running = await service.build(settings, lent, _wanted(given, driver, gate))
        log.info("provisioning", extra={"driver": driver})
        return Role(
            loops=running.loops,
            tasks=running.tasks(),
            ready=running.ready,
            pages={"/healthz/leader-election": running.lease_page},
        )

    return RolePlan(
        name="provisioner",
        start=start,
        http_address=address,
        metrics_path=given.text("metrics-path"),
        call_timeout_seconds=given.number("timeout"),
        log_level=upstream.log_level(given),
    )


def _wanted(given: Given, driver: str, gate: Mapping[str, bool]) -> service.Wanted:
    return service.Wanted(
        options=provision.Options(
            driver=driver,
            prefix=given.text("volume-name-prefix"),
            uuid_length=given.whole("volume-name-uuid-length"),
            default_fs_type=given.text("default-fstype"),
            extra_metadata=given.truth("extra-create-metadata"),
            across_namespaces=gate["CrossNamespaceVolumeDataSource"],
            guard_mode=given.truth("prevent-volume-mode-conversion"),
            publish_readonly=given.truth("controller-publish-readonly"),
            attributes_classes=gate["VolumeAttributesClass"],
        ),
        rules=topology.Rules(strict=given.truth("strict-topology"), immediate=given.truth("immediate-topology")),
        retry=upstream.Doubling(given),
        slow_seconds=given.number("retry-interval-max"),
        workers=given.whole("worker-threads"),
        source_workers=max(given.whole("cloning-protection-threads"), 1),
        sweep_seconds=given.number("snapshot-orphan-sweep-interval"),
    )


async def _driver(lent: RoleSurroundings) -> str:
    """The driver behind the socket, as soon as it answers."""
    while True:
        for row in lent.plugins.describe():
            if row.healthy and row.id.role == "controller":
                return row.id.driver
        await lent.clock.sleep(LOOK_SECONDS)
