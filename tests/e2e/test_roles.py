"""The drop-in roles as processes: upstream's flags, pages for probes, and snapshots that work."""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.test_standalone import backend
from tests.support import claims, localdisk, role
from tests.support.bed import controlplane


def test_all_serves_snapshots_and_says_so_on_its_pages(
    control_plane: controlplane.ControlPlane, namespace: str
) -> None:
    admin = control_plane.admin
    with localdisk.start_localdisk() as driver:
        claims.install(admin, localdisk.NAME)
        volume = driver.volume("role-data", 1 << 20)
        claims.bound(admin, namespace, "data", localdisk.NAME, volume.volume_id)
        address = f"--csi-address={driver.socket}"
        with role.role("all", address, "--leader-election=false", kubeconfig=control_plane.kubeconfig) as running:
            admin.apply(claims.snapshot(namespace, "one", "data"))
            claims.until("ready", lambda: claims.is_ready(admin, namespace, "one"))
            assert len(backend(driver)) == 1
            assert running.page("/healthz") == (200, "ok\n")
            assert running.page("/healthz/leader-election") == (200, "ok\n")
            assert "snapbridge_plugin_rpc_duration_seconds" in running.page("/metrics")[1]
            assert running.page("/nothing")[0] == 404
            admin.kubectl("delete", "volumesnapshot", "one", "-n", namespace, "--timeout=30s")
            assert backend(driver) == []


def test_an_unknown_flag_is_refused_with_the_nearest_name() -> None:
    words = [sys.executable, "-m", "bridge", "kubernetes", "all", "--kube-api-qsp=5"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 2
    assert "Did you mean --kube-api-qps?" in done.stderr
