"""Two replicas on a real API server, as processes: one acts, the other stands by and takes over. A real driver."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.integration.kubernetes import definitions
from tests.support import claims, httpproxy, localdisk, provisioning, serve
from tests.support.bed import access, build, paths, ports, process
from tests.support.bed.controlplane import ControlPlane

CLUSTER_LEASE = "snapshot-controller-leader"
TIMES = {"lease_seconds": 60, "renew_deadline_seconds": 40.0, "retry_seconds": 2.0}
"""Nobody loses it because a machine stands still for a while, and nobody takes it over within a test's patience."""
SHORT = {"lease_seconds": 8, "renew_deadline_seconds": 6.0, "retry_seconds": 0.5}
"""For a take-over without a goodbye."""
SIZE = 8 << 20


class Pair:
    """Two services of one driver, and what the cluster and the backend say of their work."""

    def __init__(self, plane: ControlPlane, namespace: str, driver: localdisk.LocalDisk) -> None:
        self.plane = plane
        self.namespace = namespace
        self.driver = driver
        self.name = driver.identity.GetPluginInfo(pb.GetPluginInfoRequest()).name
        self.driver_lease = f"external-snapshotter-leader-{self.name.replace('.', '-')}"

    def service(
        self, identity: str, kubeconfig: Path | None = None, times: Mapping[str, float] = TIMES
    ) -> serve.Serve:
        cluster = {
            "name": "kube",
            "kind": "kubernetes",
            "kubeconfig": str(kubeconfig or self.plane.kubeconfig),
            "leader_election": True,
            "lease_namespace": self.namespace,
            "identity": identity,
            "lease_check_seconds": 1.0,
            **times,
        }
        return serve.service(clusters=[cluster], plugins=[{"name": "disk", "socket": str(self.driver.socket)}])

    def holder(self, lease: str = CLUSTER_LEASE) -> str:
        found = provisioning.look(self.plane.admin, self._lease(lease)) or {"spec": {}}
        return str(found["spec"].get("holderIdentity") or "").partition("_")[0]

    def _lease(self, name: str) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{name}"

    def until_led_by(self, identity: str, seconds: float = 50.0) -> None:
        claims.until(f"{identity} leads", lambda: self.holder() == identity, seconds)
        claims.until(f"{identity} has the driver", lambda: self.holder(self.driver_lease) == identity, seconds)

    def amend(self, lease: str, **spec: object) -> None:
        """Change a lease as somebody else."""
        merge = "application/merge-patch+json"
        status, answer = self.plane.admin.request("PATCH", self._lease(lease), {"spec": spec}, merge)
        assert status == 200, answer

    def volume(self, name: str) -> None:
        made = self.driver.volume(f"{self.namespace}-{name}", SIZE)
        claims.bound(self.plane.admin, self.namespace, name, self.name, made.volume_id)

    def ask(self, *names: str, volume: str = "data") -> None:
        self.plane.admin.apply([claims.snapshot(self.namespace, name, volume, self.namespace) for name in names])

    def ready(self, *names: str) -> bool:
        path = f"{claims.GROUP}/namespaces/{self.namespace}/volumesnapshots"
        found = (provisioning.look(self.plane.admin, path) or {})["items"]
        ready = {one["metadata"]["name"] for one in found if (one.get("status") or {}).get("readyToUse")}
        return set(names) <= ready

    def cuts(self) -> int:
        listed = self.driver.controller.ListSnapshots(pb.ListSnapshotsRequest())
        return len(listed.entries)

    def contents(self) -> list[dict[str, Any]]:
        return [one for one in claims.contents(self.plane.admin) if one["spec"]["driver"] == self.name]

    def until_ready(self, *names: str) -> None:
        claims.until(f"{', '.join(names)} are ready", lambda: self.ready(*names), 60.0)

    def one_for_each(self, count: int) -> None:
        """As many snapshots on the backend as there are contents, each with a handle of its own."""
        claims.until("as many contents", lambda: len(self.contents()) == count)
        handles = [one["status"]["snapshotHandle"] for one in self.contents()]
        assert len(handles) == len(set(handles)) == count
        assert self.cuts() == count


@pytest.fixture
def pair(control_plane: ControlPlane, namespace: str) -> Iterator[Pair]:
    definitions.install(control_plane)
    with localdisk.start_localdisk(driver_name=f"e{os.getpid()}.{namespace}.test") as driver:
        made = Pair(control_plane, namespace, driver)
        claims.install(control_plane.admin, made.name, name=namespace)
        made.volume("data")
        yield made


def test_one_acts_the_other_is_ready_and_says_that_it_stands_by(pair: Pair) -> None:
    with pair.service("first") as first:
        pair.until_led_by("first")
        with pair.service("second") as second:
            pair.ask("one")
            pair.until_ready("one")
            pair.one_for_each(1)
            said = verbose(second)
            assert "standing by" in said
            assert "leader is first_" in said
            assert "standing by" not in verbose(first)
            create = ("snapshot", "create", "data", "two", "-n", pair.namespace)
            for words in (create, ("snapshot", "list"), ("snapshot", "list", "--cluster", "kube")):
                refused = second.cli(*words, check=False)
                assert refused.returncode != 0, words
                assert "leader is first_" in refused.stdout + refused.stderr
            assert "one" in first.cli("snapshot", "list").stdout
            assert pair.cuts() == 1


def test_after_a_crash_the_other_takes_over_in_time_and_finishes_what_was_begun(pair: Pair) -> None:
    names = [f"batch-{number}" for number in range(24)]
    times = {"lease_seconds": 4, "renew_deadline_seconds": 2.5, "retry_seconds": 0.5}
    with pair.service("first", times=times) as first:
        pair.until_led_by("first")
        with pair.service("second", times=times):
            pair.ask(*names)
            claims.until("the first has begun", lambda: pair.cuts() >= 2)
            first.kill()
            died = time.monotonic()
            pair.until_led_by("second")
            took = time.monotonic() - died
            pair.until_ready(*names)
            pair.one_for_each(len(names))
            print(f"take-over after kill -9: {took:.1f} s of a lease of {times['lease_seconds']} s")


def test_after_a_graceful_stop_the_other_takes_over_at_once(pair: Pair) -> None:
    times = {**TIMES, "lease_seconds": 3600}
    with pair.service("first", times=times) as first:
        pair.until_led_by("first")
        with pair.service("second", times=times):
            first.process.stop()
            stopped = time.monotonic()
            assert pair.holder() in ("", "second")
            pair.ask("one")
            pair.until_ready("one")
            took = time.monotonic() - stopped
            assert pair.holder() == "second", "though the first one's lease would have an hour to go"
            print(f"take-over after a graceful stop: {took:.1f} s")


async def test_a_stopped_leader_that_wakes_up_changes_nothing(pair: Pair) -> None:
    """Its requests go through a proxy of its own, which sees what becomes of its writes.

    One that was half on the wire when it was stopped may still arrive. It carries a precondition: it is refused.
    An event has none, and changes nothing.
    """
    async with httpproxy.running(pair.plane.url, str(pair.plane.certificate_authority)) as proxy:
        through = access.write_kubeconfig(
            paths.fresh("election") / "kubeconfig",
            proxy.url,
            pair.plane.token,
            pair.plane.certificate_authority,
        )
        first, second = pair.service("first", through.kubeconfig, SHORT), pair.service("second", times=SHORT)
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, first)
            await asyncio.to_thread(pair.until_led_by, "first")
            await asyncio.to_thread(stack.enter_context, second)
            begun, later = [f"a{n}" for n in range(12)], [f"b{n}" for n in range(6)]
            await asyncio.to_thread(pair.ask, *begun)
            await asyncio.to_thread(claims.until, "the first has begun", lambda: pair.cuts() >= 2)
            os.kill(first.process.pid, signal.SIGSTOP)
            try:
                await asyncio.to_thread(pair.until_led_by, "second")
                await asyncio.to_thread(pair.ask, *later)
                await asyncio.to_thread(pair.until_ready, *begun, *later)
                gone = begun[:6]
                words = ["delete", "volumesnapshot", *gone, "-n", pair.namespace]
                await asyncio.to_thread(pair.plane.kubectl, *words)
                await asyncio.sleep(0.5)
                before = len(proxy.answers)
            finally:
                os.kill(first.process.pid, signal.SIGCONT)
            await asyncio.to_thread(claims.until, "it knows", lambda: "standing by" in verbose(first))
            await asyncio.sleep(2.5)
            late = [one for one in proxy.answers[before:] if one.method in httpproxy.WRITES]
            taken = [one for one in late if one.status < 300 and not {"leases", "events"} & set(one.path.split("/"))]
            assert taken == []
            assert await asyncio.to_thread(pair.holder) == "second"
            await asyncio.to_thread(pair.one_for_each, len(begun) + len(later) - len(gone))
            await asyncio.to_thread(stack.close)


def test_a_lease_that_is_taken_by_hand_stops_us_at_once_and_we_say_so(pair: Pair) -> None:
    with pair.service("first") as first:
        pair.until_led_by("first")
        for name, lease in (("during-one", CLUSTER_LEASE), ("during-two", pair.driver_lease)):
            pair.amend(lease, holderIdentity="somebody", leaseDurationSeconds=3600)
            claims.until("it is said", lambda: "leader is somebody" in verbose(first), 30.0)
            pair.ask(name)
            time.sleep(1.5)
            before = pair.cuts()
            assert not pair.ready(name)
            # It is over a second after this was seen.
            pair.amend(lease, leaseDurationSeconds=1)
            pair.until_ready(name)
            assert pair.cuts() == before + 1
        assert "the lease is lost" in first.process.log.read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("upstream_pair")
def test_upstreams_replicas_with_leader_election_stand_by_beside_us(pair: Pair) -> None:
    with pair.service("first"):
        pair.until_led_by("first")
        with (
            upstream(pair, "snapshot-controller") as controller,
            upstream(pair, "csi-snapshotter", f"--csi-address={pair.driver.socket}") as sidecar,
        ):
            pair.ask("one", "two")
            pair.until_ready("one", "two")
            time.sleep(4.0)
            pair.one_for_each(2)
            for other in (controller, sidecar):
                assert other.running
                assert "successfully acquired lease" not in other.log.read_text().lower()
            writers = {entry["manager"] for one in pair.contents() for entry in one["metadata"]["managedFields"]}
            assert writers == {"snapbridge"}


@contextlib.contextmanager
def upstream(pair: Pair, name: str, *flags: str) -> Iterator[process.Process]:
    """One of upstream's, which stands for election in our namespace."""
    port = ports.free()
    argv: list[str | Path] = [
        build.binary(name),
        f"--kubeconfig={pair.plane.kubeconfig}",
        "--leader-election=true",
        f"--leader-election-namespace={pair.namespace}",
        f"--http-endpoint=127.0.0.1:{port}",
        "--leader-election-retry-period=1s",
        *flags,
    ]
    log = paths.fresh("upstream") / "log"

    def tried() -> bool:
        return log.exists() and "attempting to acquire leader lease" in log.read_text().lower()

    with process.Process(process.Launch(name=name, argv=argv, log=log, ready=tried, ready_seconds=60)) as running:
        yield running


def verbose(service: serve.Serve) -> str:
    """What the readiness probe tells people; it must be ready."""
    with urllib.request.urlopen(service.url + "/readyz?verbose", timeout=30) as answer:
        assert answer.status == 200
        return str(answer.read().decode())
