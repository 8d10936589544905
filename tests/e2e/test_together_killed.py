"""A group cut by a barrier, and the service killed while the calls are out: nothing leaked, doubled or lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import claims, csi_server, csi_thread, serve

VOLUMES = ("v1", "v2", "v3")
CUT_SECONDS = 2.0


class SlowPlugin(csi_server.Plugin):
    """Its cuts begin when they may, take a while, go on when their caller dies; it has no groups of its own."""

    def __init__(self) -> None:
        super().__init__("slow.csi.example")
        self.under_way: set[str] = set()
        self.go = threading.Event()
        self._cuts: set[asyncio.Task[None]] = set()

    async def GroupControllerGetCapabilities(self, _request: Any, _context: Any) -> Any:
        return csi_server.pb.GroupControllerGetCapabilitiesResponse()

    async def CreateSnapshot(self, request: Any, context: Any) -> Any:
        if request.name not in self.store.names:
            self.under_way.add(request.name)
            cut = asyncio.create_task(self._cut_slowly(request, context))
            self._cuts.add(cut)
            await asyncio.shield(cut)
        return await super().CreateSnapshot(request, context)

    async def _cut_slowly(self, request: Any, context: Any) -> None:
        while not self.go.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.02)
        await asyncio.sleep(CUT_SECONDS)
        await super()._cut(request.name, request.source_volume_id, context)
        self.under_way.discard(request.name)


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[SlowPlugin]:
    with csi_thread.serving(SlowPlugin(), tmp_path / "csi.sock") as running:
        assert isinstance(running, SlowPlugin)
        yield running


@pytest.fixture
def service(plugin: SlowPlugin, tmp_path: Path) -> Iterator[serve.Serve]:
    volumes = [{"name": name, "driver": plugin.driver, "handle": f"handle-{name}"} for name in VOLUMES]
    made = serve.service(
        clusters=[{"name": "here", "kind": "standalone", "volumes": volumes}],
        plugins=[{"name": "slow", "socket": str(tmp_path / "csi.sock"), "calls": {"retry_first": "200ms"}}],
    )
    with made as running:
        claims.until(
            "the plugin is up", lambda: [row["healthy"] for row in running.get("/v1/plugins")["items"]] == [True]
        )
        yield running


def ask(service: serve.Serve, **more: str) -> Any:
    status, answer = service.request("POST", "/v1/groups", {"name": "web", "volumes": list(VOLUMES), **more})
    assert status == 202, answer
    return answer["group"]["uid"], answer["operation"]["id"]


def over(service: serve.Serve, operation: str) -> Any:
    """The operation once it has ended."""
    claims.until("over", lambda: service.get(f"/v1/operations/{operation}")["state"] != "running", 60.0)
    return service.get(f"/v1/operations/{operation}")


def kill_while_cutting(service: serve.Serve, plugin: SlowPlugin) -> None:
    claims.until("all calls are out", lambda: len(plugin.under_way) == len(VOLUMES), 60.0)
    service.kill()
    plugin.go.set()
    service.start()


def test_a_group_goes_on_after_a_kill_and_says_how_far_apart_it_may_be(
    service: serve.Serve, plugin: SlowPlugin
) -> None:
    uid, operation = ask(service)
    kill_while_cutting(service, plugin)
    assert over(service, operation)["state"] == "done"
    found = service.get(f"/v1/groups/{uid}")
    assert (found["ready"], found["means"], found["route"]) == (True, "barrier", "socket")
    assert found["skewSeconds"] is not None
    assert {one["handle"] for one in found["members"]} == set(plugin.store.snapshots)
    assert len(plugin.store.snapshots) == len(VOLUMES)
    status, answer = service.request("DELETE", f"/v1/groups/{uid}")
    assert status == 202, answer
    assert over(service, answer["id"])["state"] == "done"
    assert plugin.store.snapshots == {}
    claims.until("no snapshot is shown", lambda: service.get("/v1/snapshots")["items"] == [], 60.0)


def test_a_group_that_was_late_because_of_a_kill_has_failed_and_leaves_nothing(
    service: serve.Serve, plugin: SlowPlugin
) -> None:
    uid, operation = ask(service, maxSkew="10ms")
    kill_while_cutting(service, plugin)
    assert over(service, operation)["failure"]["code"] == "SKEW"
    assert service.get(f"/v1/groups/{uid}")["failed"]
    claims.until("nothing is left", lambda: not plugin.under_way and plugin.store.snapshots == {}, 60.0)
    claims.until("no snapshot is shown", lambda: service.get("/v1/snapshots")["items"] == [], 60.0)
    status, answer = service.request("DELETE", f"/v1/groups/{uid}")
    assert status == 202, answer
    assert over(service, answer["id"])["state"] == "done"
