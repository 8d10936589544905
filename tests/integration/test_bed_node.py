"""The test bed's node: pods run, exec answers, a restart keeps pods, and nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.bed import access, node, paths

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_a_pod_runs_and_exec_answers(node: node.Node, namespace: str) -> None:
    node.run_pod(pod("first", namespace))
    assert node.exec("first", "echo", "it works", namespace=namespace).stdout == "it works\n"
    data = "line\n" * 10_000
    counted = node.exec("first", "sh", "-c", "cat > /tmp/f; wc -c < /tmp/f", namespace=namespace, stdin=data)
    assert int(counted.stdout) == len(data)
    with pytest.raises(access.KubectlError) as failed:
        node.exec("first", "sh", "-c", "exit 7", namespace=namespace)
    assert failed.value.returncode == 7
    node.delete_pod("first", namespace)


def test_a_pod_outlives_a_restart_of_the_kubelet(node: node.Node, namespace: str) -> None:
    before = node.run_pod(pod("steady", namespace))
    node.kubelet.kill()
    node.kubelet.start()
    node.wait_pod("steady", namespace)
    after = node.plane.admin.get("pod", "steady", f"--namespace={namespace}")
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    node.delete_pod("steady", namespace)


def test_a_killed_run_leaves_no_container_and_no_mount(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import time\n"
        "from tests.support.bed import controlplane, node, paths\n"
        "with controlplane.running(with_controllers=False) as plane, node.running(plane) as handle:\n"
        "    handle.run_pod(node.pod('orphan'))\n"
        "    print(paths.run_folder(), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, script],
        cwd=paths.REPOSITORY,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(paths.REPOSITORY)},
    ) as holder:
        try:
            assert holder.stdout is not None
            folder = Path(holder.stdout.readline().decode().strip())
            assert folder.name.startswith("sb-")
            assert paths.mounts_below(folder)
            assert processes_naming(folder)
        finally:
            holder.kill()
    deadline = time.monotonic() + 60
    while paths.mounts_below(folder) or processes_naming(folder):
        assert time.monotonic() < deadline, (paths.mounts_below(folder), processes_naming(folder))
        time.sleep(0.2)
    with contextlib.suppress(FileNotFoundError):  # a run that begins now removes what abandoned runs left
        paths.remove_tree(folder)


def test_a_folder_with_a_live_mount_is_not_removed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    tree = tmp_path / "tree"
    (tree / "mounted").mkdir(parents=True)
    data.mkdir()
    (data / "precious").write_text("keep me")
    subprocess.run(["mount", "--bind", data, tree / "mounted"], check=True)
    try:
        with pytest.raises(OSError, match="still mounted"):
            paths.remove_tree(tree)
        assert (data / "precious").read_text() == "keep me"
    finally:
        subprocess.run(["umount", tree / "mounted"], check=True)
    paths.remove_tree(tree)
    assert (data / "precious").read_text() == "keep me"


def pod(name: str, namespace: str) -> dict[str, object]:
    return node.pod(name, namespace)


def processes_naming(folder: Path) -> list[str]:
    """Command lines, of any process but ours, that name something in the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(folder) in words:
                found.append(words.replace("\0", " "))
    return found
