"""The standalone door, as a user walks through it: the CLI, a real driver, real bytes, and nothing left."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import claims, localdisk, serve

SIZE = 32 << 20


@pytest.fixture
def driver() -> Iterator[localdisk.LocalDisk]:
    with localdisk.start_localdisk() as running:
        yield running


@pytest.fixture
def service(driver: localdisk.LocalDisk) -> Iterator[serve.Serve]:
    volume = driver.volume("data", SIZE)
    made = serve.service(
        clusters=[{"name": "here", "kind": "standalone", "volumes": [_volume("data", volume.volume_id)]}],
        plugins=[{"name": "localdisk", "socket": str(driver.socket)}],
    )
    with made as running:
        yield running


def _volume(name: str, handle: str) -> dict[str, Any]:
    return {"name": name, "driver": localdisk.NAME, "handle": handle, "capacity": "32MiB"}


def checksum(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        whole.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def backend(driver: localdisk.LocalDisk) -> list[str]:
    answer = driver.controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=30, wait_for_ready=True)
    return [entry.snapshot.snapshot_id for entry in answer.entries]


def test_cut_damage_restore_delete(driver: localdisk.LocalDisk, service: serve.Serve) -> None:
    (source,) = service.cli_json("volume", "list")["items"]
    mounted = driver.publish(source["handle"])
    (mounted / "a.bin").write_bytes(os.urandom(3 << 20))
    (mounted / "b.txt").write_text("before\n")
    before = checksum(mounted)
    service.cli("snapshot", "create", "data", "one", "--wait")
    (row,) = service.cli_json("snapshot", "list")["items"]
    assert row["ready"] is True
    assert backend(driver) == [row["handle"]]
    (mounted / "a.bin").write_bytes(b"damaged")
    assert checksum(mounted) != before
    service.cli("snapshot", "restore", row["uid"], "--as", "copy", "--wait")
    restored = next(one for one in service.cli_json("volume", "list")["items"] if one["name"] == "copy")
    copy = driver.publish(restored["handle"])
    assert checksum(copy) == before
    service.cli("snapshot", "delete", row["uid"], "--yes", "--wait")
    assert backend(driver) == []
    assert service.cli_json("snapshot", "list")["items"] == []


def test_what_is_wrong_is_said_with_its_exit_code(driver: localdisk.LocalDisk, service: serve.Serve) -> None:
    cases = [
        (("snapshot", "create", "missing", "x"), 4, "missing"),
        (("snapshot", "create", "data", "n" * 1000), 2, "name"),
        (("snapshot", "describe", "no-such-uid"), 4, "no-such-uid"),
        (("snapshot", "delete", "no-such-uid", "--yes"), 4, "no-such-uid"),
        (("snapshot", "create", "data", "x", "--cluster", "nowhere"), 4, "nowhere"),
    ]
    for words, code, text in cases:
        done = service.cli(*words, check=False)
        assert done.returncode == code, (words, done.returncode, done.stderr)
        assert text in done.stderr
        assert "Traceback" not in done.stderr
    assert backend(driver) == []
    service.cli("snapshot", "create", "data", "one", "--wait")
    assert service.cli("snapshot", "create", "data", "one", check=False).returncode == 5
    assert len(backend(driver)) == 1


def test_a_second_service_on_the_same_data_is_refused(service: serve.Serve) -> None:
    second = serve.service(
        clusters=[{"name": "here", "kind": "standalone"}],
        plugins=[],
        service={"data_dir": str(service.folder / "data")},
    )
    argv = [str(word) for word in second.process.launch.argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 11, done.stderr
    assert "ledger" in done.stderr


def test_the_driver_restarts_and_work_goes_on(driver: localdisk.LocalDisk, service: serve.Serve) -> None:
    driver.kill()
    service.cli("snapshot", "create", "data", "late")
    driver.start()
    service.cli("snapshot", "create", "data", "later", "--wait=60s")

    def ready() -> list[str]:
        return sorted(row["name"] for row in service.get("/v1/snapshots")["items"] if row["ready"])

    claims.until("both are ready", lambda: ready() == ["late", "later"], 60.0)
    assert len(backend(driver)) == 2
