"""The job that runs a CSI driver as a Nomad plugin: a system job with the raw_exec driver (test-bed.md 4).

It must work on a real agent and on the fake alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.support.nomad.state import Row


def plugin_job(plugin_id: str, argv: Sequence[str], state_dir: str, env: Mapping[str, str] | None = None) -> Row:
    """The body of `PUT /v1/jobs`. `argv` may hold `${CSI_ENDPOINT}`; `state_dir` is the client's state directory.

    The staging base must be the host's own path, as raw_exec sees no other (nomad-verified.md D).
    """
    task = {
        "Name": "plugin",
        "Driver": "raw_exec",
        "Config": {"command": argv[0], "args": list(argv[1:])},
        "Env": dict(env or {}),
        "CSIPluginConfig": {
            "ID": plugin_id, "Type": "monolith", "MountDir": "/csi",
            "StagePublishBaseDir": f"{state_dir}/csi/monolith/{plugin_id}", "HealthTimeout": 60_000_000_000,
        },
        "Resources": {"CPU": 100, "MemoryMB": 128},
    }  # fmt: skip
    group = {"Name": "g", "Count": 1, "Tasks": [task]}
    job = {"ID": f"csi-{plugin_id}", "Name": f"csi-{plugin_id}", "Type": "system", "Datacenters": ["*"]}
    return {"Job": {**job, "TaskGroups": [group]}}
