"""What a crowd of finished snapshots costs: a start, a new snapshot, memory. Ours at each size, both at one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Callable

from bench import crowd
from bench.kubernetes import NAMESPACE, READY_SECONDS, Bench, Contender
from bench.shapes import Reading
from tests.support import claims, localdisk

CLAIMS = 100
NEW_SNAPSHOTS = 10
QUIET_SECONDS, QUIET_SHARE = 3.0, 0.1
"""The API server is quiet when it uses less than this share of a processor for so long."""
ROUTE = f"/apis/snapshot.storage.k8s.io/v1/namespaces/{NAMESPACE}/volumesnapshots"


class Crowd:
    """The cluster of a bench, filled up step by step."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._number = 0
        self._filled = 0
        self._like = self._finished()
        self._claims = [*bench.claims, *(f"crowd-{number}" for number in range(CLAIMS - len(bench.claims)))]
        objects = []
        for name in self._claims[len(bench.claims) :]:
            objects += claims.claim(NAMESPACE, name, localdisk.NAME, f"vol-{name}")
        bench.plane.admin.apply(objects)

    def read(self, side: str, existing: int) -> Reading:
        """Fill up to `existing`, start that side, and measure."""
        if existing > self._filled:
            crowd.fill(self._bench.plane, self._like, self._claims, range(self._filled, existing))
            self._filled = existing
            self._let_it_digest()
        start: Callable[[], contextlib.AbstractContextManager[Contender]]
        start = self._bench.ours if side == "ours" else self._bench.theirs
        waiting = self._name(side)
        body = claims.snapshot(NAMESPACE, waiting, self._bench.claims[0])
        self._bench.plane.admin.request("POST", ROUTE, body)
        began = time.monotonic()
        with start() as contender:
            claims.until("the first one is ready", lambda: self._is_ready(waiting), READY_SECONDS)
            first = time.monotonic() - began
            time.sleep(2)
            start_cpu = contender.cpu_seconds()
            seconds, names = [], []
            for _ in range(NEW_SNAPSHOTS):
                names.append(self._name(side))
                making = self._bench.cluster.create(names[-1:], self._bench.claims, claims.CLASS)
                seconds.append(asyncio.run(making))
            time.sleep(2)
            new_cpu = contender.cpu_seconds() - start_cpu
            memory = contender.rss_bytes()
            asyncio.run(self._bench.cluster.delete([waiting, *names]))
        return Reading(
            side,
            existing,
            first,
            start_cpu * 1000,
            statistics.median(seconds),
            new_cpu * 1000 / NEW_SNAPSHOTS,
            memory / 2**20,
        )

    def _let_it_digest(self) -> None:
        """Wait until the API server has read what went past it into its store: that is no part of a start."""
        apiserver = self._bench.plane.apiserver

        def is_quiet() -> bool:
            before = apiserver.cpu_seconds()
            time.sleep(QUIET_SECONDS)
            return apiserver.cpu_seconds() - before < QUIET_SECONDS * QUIET_SHARE

        claims.until("the API server is quiet", is_quiet, READY_SECONDS)

    def _finished(self) -> tuple[crowd.Object, crowd.Object]:
        """A pair as the API server stores it, managedFields and all."""
        admin = self._bench.plane.admin
        with self._bench.ours():
            asyncio.run(self._bench.cluster.create(["template"], self._bench.claims, claims.CLASS))
            time.sleep(2)
            snapshot = json.loads(admin.request("GET", f"{ROUTE}/template")[1])
            called = snapshot["status"]["boundVolumeSnapshotContentName"]
            content = json.loads(admin.request("GET", f"{claims.GROUP}/volumesnapshotcontents/{called}")[1])
            asyncio.run(self._bench.cluster.delete(["template"]))
        return snapshot, content

    def _name(self, side: str) -> str:
        self._number += 1
        return f"new-{side}-{self._number}"

    def _is_ready(self, name: str) -> bool:
        return claims.is_ready(self._bench.plane.admin, NAMESPACE, name)
