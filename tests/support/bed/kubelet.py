"""kubelet: a real node agent on our own containerd. Needs root.

Its port cannot be on loopback (the API server refuses loopback node addresses), so it asks every
caller for a client certificate of the control plane's own authority.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from tests.support.bed import apiserver, build, containerd, paths, ports, process


class Kubelet(process.Process):
    """A running kubelet, registered as node `node_name`."""

    def __init__(self, server: apiserver.ApiServer, runtime: containerd.Containerd, node_name: str) -> None:
        self.node_name = node_name
        self.address = own_address()
        folder = paths.fresh("kubelet")
        self.root_dir = folder / "r"
        self._server = server
        self._health = f"http://127.0.0.1:{(health_port := ports.free())}/healthz"
        serving = server.authority.serving(node_name, [self.address, node_name])
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "port": ports.free(self.address),
            "healthzPort": health_port,
            "healthzBindAddress": "127.0.0.1",
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(server.certificate_authority)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{runtime.socket}",
            "podLogsDir": str(folder / "pod-logs"),
            "volumePluginDir": str(folder / "volume-plugins"),
            **_SETTINGS,
        }
        config_file = folder / "config.json"
        config_file.write_text(json.dumps(config, indent=1), encoding="utf-8")
        super().__init__(
            process.Launch(
                name="kubelet",
                argv=[
                    build.binary("kubelet"),
                    f"--config={config_file}",
                    f"--kubeconfig={server.admin.kubeconfig}",
                    f"--root-dir={self.root_dir}",
                    f"--cert-dir={folder}",
                    f"--hostname-override={node_name}",
                    f"--node-ip={self.address}",
                ],
                log=folder / "log",
                ready=self._registered,
                ready_seconds=60,
            )
        )

    @property
    def folder(self) -> Path:
        return self.root_dir.parent

    def _registered(self) -> bool:
        with urllib.request.urlopen(self._health, timeout=3) as answer:
            healthy = answer.status == 200
        return healthy and self._server.admin.request("GET", f"/api/v1/nodes/{self.node_name}")[0] == 200


_SETTINGS: dict[str, object] = {
    "failCgroupV1": False,
    "cgroupDriver": "cgroupfs",
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "makeIPTablesUtilChains": False,
    "failSwapOn": False,
    "resolvConf": "",
    # A full disk of the machine must not evict the tests' pods.
    "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    "imageGCHighThresholdPercent": 100,
    "syncFrequency": "10s",
    "nodeStatusUpdateFrequency": "5s",
}


def own_address() -> str:
    """An IPv4 address of this machine that is not loopback. Raises MissingServerError without one."""
    previous = ""
    for line in Path("/proc/net/fib_trie").read_text(encoding="utf-8").splitlines():
        word = line.split()[-1]
        if line.strip() == "/32 host LOCAL" and not previous.startswith("127."):
            return previous
        previous = word
    raise process.MissingServerError(
        "this machine has no IPv4 address but loopback, and a node needs one: "
        "ip link add dummy0 type dummy && ip addr add 198.51.100.1/32 dev dummy0 && ip link set dummy0 up"
    )
