"""The registry on real sockets: discovery of what a plugin is, health with a sentence, restarts, choice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from bridge.csi.registry import Registry
from bridge.csi.settings import CallSettings, Deadlines, RegistrySettings
from bridge.model.outcome import Done
from bridge.model.plugin import Capability, InstanceId, PluginDescription, Role, Route
from tests.support import csi_server
from tests.support.csi_server import Plugin, RealClock, until

DRIVER = "test.csi.example"
SETTINGS = RegistrySettings(
    calls=CallSettings(deadlines=Deadlines(default_seconds=30, by_verb={})), probe_interval_seconds=0.2
)
HASTY = RegistrySettings(
    calls=CallSettings(deadlines=Deadlines(default_seconds=5, by_verb={"GetPluginInfo": 0.5})),
    probe_interval_seconds=0.2,
    connect_timeout_seconds=0.5,
)
"""For what does not answer. A machine that stands still looks the same, so what follows must be waited for."""


@pytest_asyncio.fixture
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    registry = Registry(getattr(request, "param", SETTINGS), RealClock())
    task = asyncio.create_task(registry.run())
    await asyncio.sleep(0)
    yield registry
    assert not task.done(), "the registry's run ended by itself"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def row(registry: Registry, instance: str = "one") -> PluginDescription:
    return next(row for row in registry.describe() if row.id.instance == instance)


async def test_a_plugin_is_learnt_and_called(registry: Registry, tmp_path: Path) -> None:
    plugin = Plugin(node_id="node-7")
    async with csi_server.serving(plugin, tmp_path / "a.sock"):
        await registry.ensure_socket("one", str(tmp_path / "a.sock"), backend="pool", node="worker")
        await until(lambda: registry.controller(DRIVER))
        view = registry.view(DRIVER)
        assert (view.known, view.healthy) == (True, True)
        assert view.can(Capability.CREATE_DELETE_SNAPSHOT)
        assert view.can(Capability.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT)
        assert [r.id for r in registry.describe()] == [
            InstanceId(DRIVER, "controller", "one"),
            InstanceId(DRIVER, "node", "one"),
        ]
        found = row(registry)
        assert (found.vendor_version, found.backend, found.node, found.route) == (
            "1.0", "pool", "worker", Route.SOCKET,
        )  # fmt: skip
        calls = registry.controller(DRIVER)
        assert calls is not None
        assert calls.id == InstanceId(DRIVER, Role.CONTROLLER.value, "one")
        made = await calls.create_snapshot(name="s", volume_handle="v", parameters={}, secrets={})
        assert isinstance(made, Done)
        node = registry.node(DRIVER, "worker")
        assert node is not None
        info = await node.node.info()
        assert isinstance(info, Done)
        assert info.value.node_id == "node-7"
        before = dict(plugin.calls)
        await registry.ensure_socket("one", str(tmp_path / "a.sock"), backend="pool", node="worker")
        assert registry.controller(DRIVER) is calls
        assert plugin.calls["GetPluginInfo"] == before["GetPluginInfo"] == 1
    await until(lambda: registry.controller(DRIVER) is None)
    assert registry.view(DRIVER).known
    assert "check that the plugin is running" in await sentence_with(registry, "running")


async def sentence_with(registry: Registry, text: str) -> str:
    await until(lambda: text in row(registry).sentence)
    return row(registry).sentence


@pytest.mark.parametrize("downtime", [0.0, 3.0], ids=["at once", "after three seconds"])
async def test_a_restarted_plugin_is_back_within_two_seconds(
    registry: Registry, tmp_path: Path, downtime: float
) -> None:
    path = tmp_path / "a.sock"
    await registry.ensure_socket("one", str(path))

    async def restart(number: int) -> float:
        version = f"{number}.2"
        server = await csi_server.start(Plugin(version=f"{number}.1"), path)
        await until(lambda: registry.view(DRIVER).can(Capability.LIST_SNAPSHOTS) and registry.view(DRIVER).healthy)
        await server.stop(grace=None)
        await asyncio.sleep(downtime)
        new = Plugin(version=version, controller=(csi_server.CONTROLLER.CREATE_DELETE_SNAPSHOT,))
        async with csi_server.serving(new, path):
            took = await until(lambda: registry.view(DRIVER).healthy and row(registry).vendor_version == version)
            assert not registry.view(DRIVER).can(Capability.LIST_SNAPSHOTS)
        return took

    await csi_server.soon(restart, 2.0)


async def test_a_socket_file_taken_over_by_another_process_is_followed(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    await registry.ensure_socket("one", str(path))

    async def take_over(number: int) -> float:
        before, after = f"{number}.1", f"{number}.2"
        async with csi_server.serving(Plugin(version=before), path):
            await until(lambda: registry.controller(DRIVER) and row(registry).vendor_version == before)
            async with csi_server.serving(Plugin(version=after), path):
                return await until(lambda: row(registry).vendor_version == after)

    await csi_server.soon(take_over, 2.0)


async def test_a_restart_may_bring_another_driver(registry: Registry, tmp_path: Path) -> None:
    changes: list[str] = []
    stop = registry.on_change(changes.append)
    path = tmp_path / "a.sock"
    async with csi_server.serving(Plugin("first.example"), path):
        await registry.ensure_socket("one", str(path))
        await until(lambda: registry.controller("first.example"))
    async with csi_server.serving(Plugin("second.example"), path):
        await until(lambda: registry.controller("second.example"))
        assert registry.controller("first.example") is None
        assert not registry.view("first.example").known
        assert {"first.example", "second.example"} <= set(changes)
        stop()
        count = len(changes)
    await until(lambda: registry.controller("second.example") is None)
    assert len(changes) == count


@pytest.mark.parametrize("registry", [HASTY], indirect=True, ids=["hasty"])
async def test_paths_that_cannot_work_say_why(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "file.sock").write_text("")
    (tmp_path / "dir.sock").mkdir()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead.sock"))
    dead.close()
    mute = socket.socket(socket.AF_UNIX)
    mute.bind(str(tmp_path / "mute.sock"))
    mute.listen()
    expected = {
        "none": "there is no socket",
        "file": "is not a socket but a file",
        "dir": "is not a socket but a directory",
        "dead": "nobody answers on the socket",
        "mute": "does not speak gRPC",
        "x" * 150: "longer than 107 bytes",
    }
    with contextlib.closing(mute):
        for name in expected:
            await registry.ensure_socket(name, str(tmp_path / f"{name}.sock"))
        for name, text in expected.items():
            await until(lambda name=name, text=text: text in row(registry, name).sentence)  # type: ignore[misc]
            assert not row(registry, name).healthy
            assert row(registry, name).id.driver == ""


@pytest.mark.parametrize("registry", [HASTY], indirect=True, ids=["hasty"])
async def test_a_plugin_that_never_answers_and_one_that_is_starting(registry: Registry, tmp_path: Path) -> None:
    plugin = Plugin()
    event = plugin.hang("GetPluginInfo")
    plugin.ready = False
    async with csi_server.serving(plugin, tmp_path / "a.sock"):
        await registry.ensure_socket("one", str(tmp_path / "a.sock"))
        await sentence_with(registry, "does not answer GetPluginInfo")
        plugin.script.clear()
        event.set()
        await sentence_with(registry, "is starting")
        assert row(registry).id.driver == DRIVER
        assert registry.controller(DRIVER) is None
        plugin.ready = True
        await until(lambda: registry.controller(DRIVER))
        plugin.refuse("Probe", grpc.StatusCode.FAILED_PRECONDITION, "the pool is offline")
        assert "the pool is offline" in await sentence_with(registry, "pool is offline")
        assert registry.controller(DRIVER) is None
        plugin.script.clear()
        await until(lambda: registry.controller(DRIVER))


async def test_nonsense_from_a_plugin_is_a_sentence(registry: Registry, tmp_path: Path) -> None:
    plugin = Plugin("", controller=())
    async with csi_server.serving(plugin, tmp_path / "a.sock"):
        await registry.ensure_socket("one", str(tmp_path / "a.sock"))
        await sentence_with(registry, "gives no driver name")
        plugin.driver = DRIVER
        await sentence_with(registry, "neither the Controller nor the Node service")
        plugin.controller = csi_server.ALL_CONTROLLER
        plugin.refuse("ControllerGetCapabilities", grpc.StatusCode.INTERNAL, "boom")
        await sentence_with(registry, "boom")
        plugin.script.clear()
        await until(lambda: registry.controller(DRIVER))


async def test_two_sockets_of_one_driver_are_two_instances(registry: Registry, tmp_path: Path) -> None:
    a, b = tmp_path / "a.sock", tmp_path / "b.sock"
    async with csi_server.serving(Plugin(), a) as first, csi_server.serving(Plugin(), b):
        await registry.ensure_socket("b", str(tmp_path / "b.sock"))
        await registry.ensure_socket("a", str(tmp_path / "a.sock"))
        await until(lambda: all(r.healthy for r in registry.describe()))
        assert [r.id.instance for r in registry.describe()] == ["a", "b"]
        chosen = {c.id.instance for c in (registry.controller(DRIVER) for _ in range(5)) if c}
        assert chosen == {"a"}
        await first.stop(grace=None)
        await until(lambda: (c := registry.controller(DRIVER)) is not None and c.id.instance == "b")
        await registry.ensure_no_instance("b")
        await registry.ensure_no_instance("never-there")
        assert registry.controller(DRIVER) is None
        assert registry.view(DRIVER).known


async def test_calls_given_ready_made(registry: Registry, tmp_path: Path) -> None:
    async with csi_server.serving(Plugin(), tmp_path / "a.sock"):
        other = Registry(SETTINGS, RealClock())
        await registry.ensure_socket("one", str(tmp_path / "a.sock"))
        await until(lambda: registry.controller(DRIVER))
        calls = registry.controller(DRIVER)
        assert calls is not None
        able = frozenset({Capability.CREATE_DELETE_SNAPSHOT})
        await other.ensure_calls(calls, able, endpoint="http://there", sentence="the API does not answer")
        assert other.controller(DRIVER) is None
        assert other.view(DRIVER).sentence == "the API does not answer"
        await other.ensure_calls(calls, able, endpoint="http://there")
        assert other.controller(DRIVER) is calls
        assert other.view(DRIVER).capabilities == able
        await other.ensure_no_instance("one")
        assert not other.view(DRIVER).known


async def test_a_call_in_flight_across_a_restart_is_unsure_and_the_rest_goes_on(
    registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "a.sock"
    plugin = Plugin()
    server = await csi_server.start(plugin, path)
    await registry.ensure_socket("one", str(path))
    await until(lambda: registry.controller(DRIVER))
    calls = registry.controller(DRIVER)
    assert calls is not None
    plugin.hang("CreateSnapshot")
    pending = asyncio.create_task(calls.create_snapshot(name="s", volume_handle="v", parameters={}, secrets={}))
    await until(lambda: plugin.calls.get("CreateSnapshot"))
    assert row(registry).in_flight == 1
    await server.stop(grace=None)
    outcome = await asyncio.wait_for(pending, 30)
    assert not isinstance(outcome, Done)
    assert outcome.failure.kind.value == "unsure"
    await until(lambda: registry.controller(DRIVER) is None)
    async with csi_server.serving(Plugin(store=plugin.store), path):
        await until(lambda: registry.controller(DRIVER))
        again = await calls.create_snapshot(name="s", volume_handle="v", parameters={}, secrets={})
        assert isinstance(again, Done)


async def test_one_late_probe_is_forgiven_and_two_are_not(registry: Registry, tmp_path: Path) -> None:
    """Late by the plugin's own word, which comes through as the code of a deadline does: no time is measured."""
    plugin = Plugin()

    async def late_once(_request: Any, context: Any) -> None:
        plugin.script.clear()
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "late")

    async with csi_server.serving(plugin, tmp_path / "a.sock"):
        await registry.ensure_socket("one", str(tmp_path / "a.sock"))
        await until(lambda: registry.controller(DRIVER))
        sentences: list[str] = []
        registry.on_change(lambda _driver: sentences.append(row(registry).sentence))
        count = plugin.calls["Probe"]
        plugin.script["Probe"] = late_once
        await until(lambda: plugin.calls["Probe"] > count + 2)
        assert sentences == []
        assert "Probe" not in plugin.script
        plugin.refuse("Probe", grpc.StatusCode.DEADLINE_EXCEEDED)
        assert "does not answer Probe" in await sentence_with(registry, "does not answer Probe")
        assert registry.controller(DRIVER) is None
        plugin.script.clear()
        await until(lambda: registry.controller(DRIVER))
