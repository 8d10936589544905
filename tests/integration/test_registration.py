"""Registration sockets, seen from the kubelet's side: what it asks, and who may hold a socket."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio

from adapters.kubernetes.registration.announcer import KubeletAnnouncer, RegistrationSettings
from bridge.model.failure import ConflictError, InvalidError, UnavailableError
from bridge.pb.pluginregistration.v1 import registration_pb2 as pb
from bridge.pb.pluginregistration.v1 import registration_pb2_grpc
from tests.support.csi_server import RealClock, until

ENDPOINT = "/plugins/a/csi.sock"


def announcer(folder: Path) -> KubeletAnnouncer:
    return KubeletAnnouncer(RegistrationSettings(str(folder), check_interval_seconds=0.05), RealClock())


@pytest_asyncio.fixture
async def ours(tmp_path: Path) -> AsyncIterator[KubeletAnnouncer]:
    ours = announcer(tmp_path)
    task = asyncio.create_task(ours.run())
    yield ours
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert os.listdir(tmp_path) == []


async def info(path: Path) -> pb.PluginInfo:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        stub = registration_pb2_grpc.RegistrationStub(channel)
        return await stub.GetInfo(pb.InfoRequest(), timeout=30)  # type: ignore[misc]


async def notify(path: Path, registered: bool, error: str = "") -> None:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        stub = registration_pb2_grpc.RegistrationStub(channel)
        status = pb.RegistrationStatus(plugin_registered=registered, error=error)
        await stub.NotifyRegistrationStatus(status, timeout=30)  # type: ignore[misc]


async def test_several_drivers_from_one_process(ours: KubeletAnnouncer, tmp_path: Path) -> None:
    for driver in ("a.example", "b.example"):
        await ours.announce(driver, f"/plugins/{driver}/csi.sock")
        await ours.announce(driver, f"/plugins/{driver}/csi.sock")
    assert sorted(os.listdir(tmp_path)) == ["a.example-reg.sock", "b.example-reg.sock"]
    mode = (tmp_path / "a.example-reg.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) & 0o077 == 0
    found = await info(tmp_path / "b.example-reg.sock")
    assert (found.type, found.name, found.endpoint) == ("CSIPlugin", "b.example", "/plugins/b.example/csi.sock")
    assert list(found.supported_versions) == ["1.0.0"]
    await notify(tmp_path / "b.example-reg.sock", True)
    await notify(tmp_path / "a.example-reg.sock", False, "no handler")
    first, second = ours.announcements()
    assert (first.registered, second.registered) == (False, True)
    assert "no handler" in first.sentence
    await ours.withdraw("a.example")
    await ours.withdraw("never.example")
    assert os.listdir(tmp_path) == ["b.example-reg.sock"]
    await ours.announce("b.example", "/elsewhere/csi.sock")
    assert (await info(tmp_path / "b.example-reg.sock")).endpoint == "/elsewhere/csi.sock"


async def test_a_socket_that_answers_is_never_touched(ours: KubeletAnnouncer, tmp_path: Path) -> None:
    path = tmp_path / "a.example-reg.sock"
    other = announcer(tmp_path)
    await other.announce("a.example", ENDPOINT)
    before = path.stat().st_ino
    with pytest.raises(ConflictError, match="answers on"):
        await ours.announce("a.example", ENDPOINT)
    assert path.stat().st_ino == before
    assert (await info(path)).endpoint == ENDPOINT
    await other.withdraw("a.example")
    await ours.announce("a.example", ENDPOINT)


async def test_a_listener_that_accepts_nothing_counts_as_alive(ours: KubeletAnnouncer, tmp_path: Path) -> None:
    path = tmp_path / "a.example-reg.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen(0)
        with pytest.raises(ConflictError):
            await ours.announce("a.example", ENDPOINT)
        assert path.exists()
    path.unlink()
    path.write_text("a file")
    with pytest.raises(ConflictError, match="not a socket"):
        await ours.announce("a.example", ENDPOINT)
    assert path.read_text() == "a file"
    path.unlink()


async def test_what_a_killed_registrar_left_is_taken_over(ours: KubeletAnnouncer, tmp_path: Path) -> None:
    path = tmp_path / "a.example-reg.sock"
    script = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
        "print('up', flush=True); time.sleep(60)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    with pytest.raises(ConflictError):
        await ours.announce("a.example", ENDPOINT)
    process.kill()
    await process.wait()
    assert path.exists()
    await ours.announce("a.example", ENDPOINT)
    assert (await info(path)).name == "a.example"


async def test_a_name_that_was_taken_away_comes_back(ours: KubeletAnnouncer, tmp_path: Path) -> None:
    path = tmp_path / "a.example-reg.sock"
    await ours.announce("a.example", ENDPOINT)
    path.unlink()
    await until(path.exists)
    assert (await info(path)).endpoint == ENDPOINT


async def test_an_announcement_broken_off_in_the_middle_leaves_no_name_behind(tmp_path: Path) -> None:
    """As a SIGTERM does that comes while the socket gets its name."""
    path = tmp_path / "a.example-reg.sock"
    for _ in range(20):
        asking = asyncio.create_task(announcer(tmp_path).announce("a.example", ENDPOINT))
        while not path.exists():
            assert not asking.done()
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert os.listdir(tmp_path) == []


async def test_a_name_that_another_live_process_took_is_left_to_it(ours: KubeletAnnouncer, tmp_path: Path) -> None:
    path = tmp_path / "a.example-reg.sock"
    await ours.announce("a.example", ENDPOINT)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as thief:
        thief.bind(str(path))
        thief.listen()
        await until(lambda: "answers on" in ours.announcements()[0].sentence)
        taken = path.stat().st_ino
        await asyncio.sleep(0.2)
        assert path.stat().st_ino == taken
    await until(lambda: ours.announcements()[0].sentence == "no kubelet has asked yet")
    assert (await info(path)).endpoint == ENDPOINT


@pytest.mark.parametrize(
    ("driver", "endpoint", "field"),
    [
        ("Upper.example", ENDPOINT, "driver"),
        ("under_score", ENDPOINT, "driver"),
        ("../escape", ENDPOINT, "driver"),
        ("", ENDPOINT, "driver"),
        ("d" * 64, ENDPOINT, "driver"),
        ("a.example", "unix:///plugins/csi.sock", "endpoint"),
        ("a.example", "plugins/csi.sock", "endpoint"),
    ],
)
async def test_what_a_kubelet_would_refuse_is_refused_here(
    ours: KubeletAnnouncer, driver: str, endpoint: str, field: str
) -> None:
    with pytest.raises(InvalidError) as caught:
        await ours.announce(driver, endpoint)
    assert caught.value.field == field


async def test_directories_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="kubelet"):
        await announcer(tmp_path / "missing").announce("a.example", ENDPOINT)
    with pytest.raises(InvalidError, match="longer than 100 bytes"):
        await announcer(tmp_path / ("x" * 90)).announce("a.example", ENDPOINT)
