"""Snapshots on one API server: ours and the incumbent in turn, on the same driver and the same claims."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import statistics
import time
from collections.abc import Iterator

from bench.cluster import Cluster
from bench.shapes import Batch
from tests.support import claims, holds, localdisk, role, serve
from tests.support.bed import controlplane, incumbent, process, requests

NAMESPACE = "bench"
CLAIMS = 20
IDLE_SNAPSHOTS = 15
SETTLE_SECONDS = 1.5
WORKERS = 32
READY_SECONDS = 180.0
"""With 50,000 snapshots there."""
SNAPSHOT_RESOURCES = frozenset(
    {"volumesnapshots", "volumesnapshotcontents", "volumesnapshotclasses", "persistentvolumeclaims"}
    | {"persistentvolumes", "events", "secrets", "leases"}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """One side: how it is started, and its processes."""

    name: str
    processes: tuple[process.Process, ...]

    def cpu_seconds(self) -> float:
        return sum(one.cpu_seconds() for one in self.processes)

    def rss_bytes(self) -> int:
        return sum(one.rss_bytes() for one in self.processes)


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What has been used so far. The difference of two is what a batch cost."""

    counts: requests.Requests
    apiserver: float
    own: float
    driver: float


class Bench:
    """One control plane, one driver, twenty bound claims."""

    def __init__(self, plane: controlplane.ControlPlane, driver: localdisk.LocalDisk) -> None:
        self.plane = plane
        self.driver = driver
        self.cluster = Cluster(plane, NAMESPACE)
        self.claims = [f"claim-{number}" for number in range(CLAIMS)]

    def prepare(self) -> None:
        """CRDs, class, claims."""
        claims.install(self.plane.admin, localdisk.NAME)
        self.plane.admin.kubectl("create", "namespace", NAMESPACE)
        for name in self.claims:
            volume = self.driver.volume(f"bench-{name}", 1 << 20)
            claims.bound(self.plane.admin, NAMESPACE, name, localdisk.NAME, volume.volume_id)

    @contextlib.contextmanager
    def ours(self, *flags: str) -> Iterator[Contender]:
        """snapbridge in the pair's place, both halves in one process: the role `all`."""
        one = role.role(
            "all",
            f"--csi-address={self.driver.socket}",
            f"--worker-threads={WORKERS}",
            *flags,
            kubeconfig=self.plane.kubeconfig,
            seconds=READY_SECONDS,
        )
        with one:
            yield Contender("ours", (one,))

    @contextlib.contextmanager
    def forgetting(self) -> Iterator[Contender]:
        """The same, which has the API server forget field owners (docs/decisions/0012-field-owners.md)."""
        with self.ours("--forget-field-owners") as contender:
            yield dataclasses.replace(contender, name="forgetting")

    @contextlib.contextmanager
    def admission(self) -> Iterator[Contender]:
        """The same, and the API server puts the finalizers on (docs/decisions/0013-hold-at-create.md)."""
        with holds.in_force(self.plane, holds.PLAIN, claims.CLASS), self.ours() as contender:
            yield dataclasses.replace(contender, name="admission")

    @contextlib.contextmanager
    def admission_forgetting(self) -> Iterator[Contender]:
        """Both: nobody's fields are tracked from the first instant."""
        with holds.in_force(self.plane, holds.FORGETTING, claims.CLASS), self.forgetting() as contender:
            yield dataclasses.replace(contender, name="admission-forgetting")

    @contextlib.contextmanager
    def theirs_with_admission(self) -> Iterator[Contender]:
        """The pair at its best, which finds the finalizers there as ours does."""
        with holds.in_force(self.plane, holds.PLAIN, claims.CLASS), self.theirs() as contender:
            yield dataclasses.replace(contender, name="admission-incumbent")

    @contextlib.contextmanager
    def service(self) -> Iterator[Contender]:
        """The whole of snapbridge with its API and ledger, which does the same for its one cluster."""
        service = serve.service(
            clusters=[{"name": "kube", "kind": "kubernetes", "kubeconfig": str(self.plane.kubeconfig)}],
            plugins=[{"name": "localdisk", "socket": str(self.driver.socket)}],
            service={"workers": WORKERS, "log_level": "warning"},
        )
        with service:
            yield Contender("service", (service.process,))

    @contextlib.contextmanager
    def theirs(self) -> Iterator[Contender]:
        """The pair with its own limits lifted, at its best."""
        with incumbent.running(self.plane.admin, self.driver.socket, incumbent.LIFTED_LIMITS) as pair:
            yield Contender("incumbent", (pair.controller, pair.sidecar))

    @contextlib.contextmanager
    def split(self) -> Iterator[Contender]:
        """Our two halves in the pair's places, started with the same flags."""
        flags = incumbent.LIFTED_LIMITS
        halves = (
            role.role("controller", *flags, kubeconfig=self.plane.kubeconfig),
            role.role("sidecar", f"--csi-address={self.driver.socket}", *flags, kubeconfig=self.plane.kubeconfig),
        )
        with halves[0], halves[1]:
            yield Contender("split", halves)

    def default_rate(self, snapshots: int) -> float:
        """Snapshots per second of the pair as it comes, without a flag."""
        names = [f"default-{number}" for number in range(snapshots)]
        with incumbent.running(self.plane.admin, self.driver.socket):
            return snapshots / asyncio.run(self.cluster.create(names, self.claims, claims.CLASS))

    def alone(self, snapshots: int) -> float:
        """The API server's CPU for one create of the benchmark's own and its watch, in ms: no controller runs."""
        names = [f"alone-{number}" for number in range(snapshots)]
        before = self.plane.apiserver.cpu_seconds()
        asyncio.run(self.cluster.ask(names, self.claims, claims.CLASS))
        time.sleep(SETTLE_SECONDS)
        used = self.plane.apiserver.cpu_seconds() - before
        asyncio.run(self.cluster.delete(names))
        return used * 1000 / snapshots

    def batch(self, contender: Contender, snapshots: int, round_number: int) -> Batch:
        """Create and delete `snapshots` at once, then some one at a time."""
        names = [f"{contender.name}-{round_number}-{number}" for number in range(snapshots)]
        before = self._read(contender)
        create_seconds = asyncio.run(self.cluster.create(names, self.claims, claims.CLASS))
        time.sleep(SETTLE_SECONDS)
        middle = self._read(contender)
        memory = contender.rss_bytes()
        delete_seconds = asyncio.run(self.cluster.delete(names))
        time.sleep(SETTLE_SECONDS)
        after = self._read(contender)
        idle = self._idle(contender, round_number)
        creates, deletes = middle.counts - before.counts, after.counts - middle.counts
        return Batch(
            create_rate=snapshots / create_seconds,
            delete_rate=snapshots / delete_seconds,
            create_writes=_writes(creates, snapshots) - 1,
            create_reads=_reads(creates, snapshots),
            delete_writes=_writes(deletes, snapshots) - 1,
            delete_reads=_reads(deletes, snapshots),
            apiserver_cpu=(middle.apiserver - before.apiserver) * 1000 / snapshots,
            own_cpu=(middle.own - before.own) * 1000 / snapshots,
            driver_cpu=(middle.driver - before.driver) * 1000 / snapshots,
            memory_mib=memory / 2**20,
            idle_latency=idle,
        )

    def _idle(self, contender: Contender, round_number: int) -> float:
        """The median seconds of one snapshot at a time."""
        seconds = []
        for number in range(IDLE_SNAPSHOTS):
            name = f"{contender.name}-idle-{round_number}-{number}"
            seconds.append(asyncio.run(self.cluster.create([name], self.claims, claims.CLASS)))
            asyncio.run(self.cluster.delete([name]))
        return statistics.median(seconds)

    def _read(self, contender: Contender) -> Reading:
        return Reading(
            self.plane.metrics(),
            self.plane.apiserver.cpu_seconds(),
            contender.cpu_seconds(),
            self.driver.process.cpu_seconds(),
        )


def _writes(counts: requests.Requests, snapshots: int) -> float:
    """Writes per snapshot, the benchmark's own one included."""
    return counts.total(verbs=requests.WRITES, resources=SNAPSHOT_RESOURCES) / snapshots


def _reads(counts: requests.Requests, snapshots: int) -> float:
    return counts.total(verbs=requests.READS, resources=SNAPSHOT_RESOURCES) / snapshots
