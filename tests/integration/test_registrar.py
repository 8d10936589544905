"""The registrar role with CSI plugins beside it, seen from the kubelet's side; as a process, by its exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from adapters.kubernetes.registrar import registrar
from adapters.kubernetes.registrar.registrar import Options, Registrar
from adapters.kubernetes.registration import place
from bridge.model.failure import ConflictError, UnavailableError
from bridge.pb.pluginregistration.v1 import registration_pb2 as pb
from bridge.pb.pluginregistration.v1 import registration_pb2_grpc
from tests.support import csi_server
from tests.support.bed import paths
from tests.support.csi_server import Plugin, RealClock, until


@pytest.fixture
def folder() -> Path:
    """A short path: the names of sockets are added to it."""
    return paths.fresh("rg")


@pytest.fixture
def registry(folder: Path) -> Path:
    (folder / "reg").mkdir()
    return folder / "reg"


def plugin(folder: Path, name: str) -> registrar.Plugin:
    return registrar.Plugin(str(folder / f"{name}.sock"), f"/plugins/{name}/csi.sock")


def made(registry: Path, *plugins: registrar.Plugin, connect_seconds: float = 30.0) -> Registrar:
    options = Options(tuple(plugins), str(registry), call_seconds=20, connect_seconds=connect_seconds)
    return Registrar(options, RealClock())


@contextlib.asynccontextmanager
async def running(ours: Registrar, part: str = "") -> AsyncIterator[list[asyncio.Task[None]]]:
    """Its tasks, or those with `part` in their names; after the block no registration socket is left."""
    tasks = [asyncio.create_task(_run(work), name=name) for name, work in ours.tasks().items() if part in name]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _run(work: registrar.Callable[[], registrar.Awaitable[None]]) -> None:
    await work()


async def info(path: Path) -> pb.PluginInfo:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        return await registration_pb2_grpc.RegistrationStub(channel).GetInfo(pb.InfoRequest(), timeout=30)  # type: ignore[misc]


async def notify(path: Path, registered: bool, error: str = "") -> None:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        status = pb.RegistrationStatus(plugin_registered=registered, error=error)
        await registration_pb2_grpc.RegistrationStub(channel).NotifyRegistrationStatus(status, timeout=30)  # type: ignore[misc]


def inode(path: Path) -> int:
    """Which file is there; 0 while there is none."""
    identity = place.identity_of(path)
    return 0 if identity is None else identity[1]


async def healthy(ours: Registrar) -> None:
    """Wait until every driver is announced, and its socket answers."""
    await until(lambda: ours.ready() == "")
    async with asyncio.timeout(30):
        while await ours.healthz() != (200, "ok"):  # noqa: ASYNC110 - what is looked at rings no bell
            await asyncio.sleep(0.01)


async def test_the_socket_appears_when_the_driver_answers_and_the_page_says_so(folder: Path, registry: Path) -> None:
    ours = made(registry, plugin(folder, "late"))
    path = registry / "late.example-reg.sock"
    async with running(ours):
        assert (await ours.healthz())[0] == 404
        await asyncio.sleep(0.2)
        assert os.listdir(registry) == []
        assert "late.sock" in ours.ready()
        async with csi_server.serving(Plugin("late.example"), folder / "late.sock"):
            await until(path.exists)
            found = await info(path)
            assert (found.type, found.name, found.endpoint) == ("CSIPlugin", "late.example", "/plugins/late/csi.sock")
            assert list(found.supported_versions) == ["1.0.0"]
            await healthy(ours)
            await notify(path, True)
        assert await ours.healthz() == (200, "ok"), "as upstream: the page is about the registration socket"
    assert os.listdir(registry) == []


async def test_the_page_tells_a_socket_that_is_missing_from_one_that_serves_another(
    folder: Path, registry: Path
) -> None:
    ours = made(registry, plugin(folder, "one"))
    async with csi_server.serving(Plugin("one.example"), folder / "one.sock"), running(ours):
        path = registry / "one.example-reg.sock"
        await healthy(ours)
        path.unlink()
        assert (await ours.healthz())[0] == 404
        async with csi_server.serving(Plugin("thief"), path):
            status, text = await ours.healthz()
            assert (status, str(path) in text) == (500, True)
        await healthy(ours)


async def test_without_any_answer_it_ends_and_names_the_socket(folder: Path, registry: Path) -> None:
    ours = made(registry, plugin(folder, "deaf"), connect_seconds=0.2)
    async with running(ours) as (_, attending):
        with pytest.raises(UnavailableError, match=r"deaf\.sock"):
            await asyncio.wait_for(attending, 30)


async def test_of_two_drivers_the_deaf_one_does_not_take_the_other_with_it(folder: Path, registry: Path) -> None:
    ours = made(registry, plugin(folder, "good"), plugin(folder, "deaf"))
    good, deaf = Plugin("good.example"), Plugin("deaf.example")
    async with (
        csi_server.serving(good, folder / "good.sock"),
        running(ours, "registration-sockets") as first,
        running(ours, "good.sock") as second,
    ):
        await until((registry / "good.example-reg.sock").exists)
        # Only from here on so short: the good one's own answer is not what it is to limit.
        ours._options = dataclasses.replace(ours._options, connect_seconds=0.3)
        async with running(ours, "deaf.sock") as third:
            await asyncio.sleep(0.8)
            assert not [task for task in (*first, *second, *third) if task.done()]
            assert "deaf.sock" in ours.ready()
            async with csi_server.serving(deaf, folder / "deaf.sock"):
                await until((registry / "deaf.example-reg.sock").exists)
                await healthy(ours)


async def test_a_refusal_ends_it_when_there_is_one_driver(folder: Path, registry: Path) -> None:
    ours = made(registry, plugin(folder, "one"))
    async with csi_server.serving(Plugin("one.example"), folder / "one.sock"), running(ours) as (_, attending):
        await until((registry / "one.example-reg.sock").exists)
        await notify(registry / "one.example-reg.sock", False, "no such version")
        with pytest.raises(UnavailableError, match="no such version"):
            await asyncio.wait_for(attending, 30)
        assert os.listdir(registry) == []


async def test_of_two_drivers_the_refused_one_is_offered_again(folder: Path, registry: Path) -> None:
    ours = made(registry, plugin(folder, "one"), plugin(folder, "two"))
    one, two = registry / "one.example-reg.sock", registry / "two.example-reg.sock"
    async with (
        csi_server.serving(Plugin("one.example"), folder / "one.sock"),
        csi_server.serving(Plugin("two.example"), folder / "two.sock"),
        running(ours) as tasks,
    ):
        await until(lambda: one.exists() and two.exists())
        kept = one.stat().st_ino
        await notify(two, False, "not today")
        await until(lambda: not two.exists())
        await until(lambda: "not today" in ours.ready())
        await until(lambda: two.exists() and ours.ready() == "")
        assert one.stat().st_ino == kept
        assert not [task for task in tasks if task.done()]


async def test_two_sockets_of_one_driver_are_a_mistake_that_is_told(folder: Path, registry: Path) -> None:
    ours = made(registry, plugin(folder, "one"), plugin(folder, "same"))
    async with (
        csi_server.serving(Plugin("one.example"), folder / "one.sock"),
        csi_server.serving(Plugin("one.example"), folder / "same.sock"),
        running(ours),
    ):
        path = registry / "one.example-reg.sock"
        await until(lambda: "the same name" in ours.ready() and path.exists())
        assert (await info(path)).name == "one.example"


async def test_another_live_registrar_of_the_driver_is_left_alone(folder: Path, registry: Path) -> None:
    path = registry / "one.example-reg.sock"
    first, second = (made(registry, plugin(folder, "one")) for _ in range(2))
    async with csi_server.serving(Plugin("one.example"), folder / "one.sock"), running(first):
        await until(path.exists)
        before = path.stat().st_ino
        async with running(second) as (_, attending):
            with pytest.raises(ConflictError, match="another process answers"):
                await asyncio.wait_for(attending, 30)
        assert path.stat().st_ino == before
        assert (await info(path)).name == "one.example"


async def _spawn(registry: Path, socket: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "kubernetes", "registrar",
        f"--csi-address={socket}", "--kubelet-registration-path=/plugins/p/csi.sock",
        f"--plugin-registration-path={registry}", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_the_process_ends_with_0_when_told_to_and_with_1_when_refused(folder: Path, registry: Path) -> None:
    path = registry / "p.example-reg.sock"
    async with csi_server.serving(Plugin("p.example"), folder / "p.sock"):
        process = await _spawn(registry, folder / "p.sock")
        await until(path.exists)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        process.kill()
        await process.wait()
        assert path.exists()
        stale = path.stat().st_ino
        process = await _spawn(registry, folder / "p.sock")
        await until(lambda: inode(path) not in (0, stale))
        process.send_signal(signal.SIGTERM)
        assert (await asyncio.wait_for(process.wait(), 30), os.listdir(registry)) == (0, [])
        process = await _spawn(registry, folder / "p.sock")
        await until(path.exists)
        await notify(path, False, "no handler")
        _, words = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, os.listdir(registry)) == (1, [])
        assert b"snapbridge: the driver p.example: the kubelet refuses it: no handler" in words
        assert b"Traceback" not in words
