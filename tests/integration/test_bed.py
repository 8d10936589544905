"""The test bed itself: its servers start, count, fail, come back, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.bed import access, controlplane, paths, process, requests


def config_map(name: str, namespace: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"answer": "42"},
    }


def test_an_applied_object_is_counted_and_outlives_the_api_server(
    own_control_plane: controlplane.ControlPlane,
) -> None:
    plane = own_control_plane
    plane.kubectl("create", "namespace", "counted")
    plane.kubectl("get", "secrets", "--namespace=counted")
    before = plane.metrics()
    for number in range(3):
        plane.admin.request("POST", "/api/v1/namespaces/counted/secrets", {"metadata": {"name": f"s{number}"}})
    made = requests.Request("POST", "secrets", "", 201)
    deadline = time.monotonic() + 30
    while (came := plane.metrics() - before)[made] < 3:  # a request is counted a moment after its answer
        assert time.monotonic() < deadline, came
        time.sleep(0.05)
    assert came[made] == 3
    assert came.total(requests.WRITES, {"secrets"}) == 3
    plane.admin.apply(config_map("kept", "counted"))
    cpu_seconds = plane.apiserver.cpu_seconds()

    plane.apiserver.kill()
    with pytest.raises(OSError):
        plane.metrics()
    plane.apiserver.start()

    assert plane.admin.get("configmap", "kept", "--namespace=counted")["data"] == {"answer": "42"}
    assert plane.apiserver.cpu_seconds() > cpu_seconds
    assert plane.apiserver.rss_bytes() > 50_000_000


def test_a_service_account_may_do_what_its_rules_say_and_no_more(
    control_plane: controlplane.ControlPlane, namespace: str
) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]}]
    account = control_plane.service_account("writer", rules, namespace=namespace)
    account.kubectl("create", "configmap", "mine", "--from-literal=a=b")
    assert account.get("configmap", "mine")["data"] == {"a": "b"}
    with pytest.raises(access.KubectlError, match="cannot delete resource"):
        account.kubectl("delete", "configmap", "mine")
    assert account.request("GET", "/api/v1/secrets")[0] == 403


def test_claims_are_bound_by_the_controller_manager(control_plane: controlplane.ControlPlane, namespace: str) -> None:
    size = {"storage": "64Mi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-data"},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": "data"},
            "csi": {"driver": "bed.test", "volumeHandle": "v1"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "volumeName": f"{namespace}-data",
            "resources": {"requests": size},
        },
    }
    control_plane.admin.apply([volume, claim])
    control_plane.kubectl(
        "wait", "pvc/data", f"--namespace={namespace}", "--for=jsonpath={.status.phase}=Bound", "--timeout=30s"
    )
    control_plane.kubectl("delete", "pvc/data", f"--namespace={namespace}")
    control_plane.kubectl("delete", f"pv/{namespace}-data")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    launch = process.Launch(
        name="broken",
        argv=["/bin/sh", "-c", "echo the disk is full; exit 3"],
        log=tmp_path / "log",
        ready=lambda: False,
    )
    with pytest.raises(process.ServerError, match=r"ended with 3 while starting\nthe disk is full"):
        process.Process(launch).start()


def test_servers_die_with_a_killed_run(tmp_path: Path) -> None:
    """SIGKILL of the process that holds the servers leaves no server running."""
    script = tmp_path / "run.py"
    script.write_text(
        "import time\n"
        "from pathlib import Path\n"
        "from tests.support.bed import process\n"
        f"launch = process.Launch(name='s', argv=['sleep', '600'], log=Path({str(tmp_path / 'log')!r}),\n"
        "                        ready=lambda: True)\n"
        "server = process.Process(launch)\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, script], cwd=paths.REPOSITORY, stdout=subprocess.PIPE, env=_env()
    ) as holder:
        try:
            assert holder.stdout is not None
            pid = int(holder.stdout.readline())
            deadline = time.monotonic() + 30
            while "sleep" not in _command(pid):  # between fork and exec it has no command line of its own
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.02)
        finally:
            holder.kill()
    deadline = time.monotonic() + 30
    while "sleep" in _command(pid):
        assert time.monotonic() < deadline, "the server outlived its run by 30 s"
        time.sleep(0.05)


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(paths.REPOSITORY)}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
