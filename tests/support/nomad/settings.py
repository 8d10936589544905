"""The times and sizes of a fake agent, as a real one has them or shorter for tests.

It must not hold state.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds unless the name says otherwise. The real agent's figure stands in the comment where it differs."""

    version: str = "2.0.6-dev"
    node_name: str = "vm"
    region: str = "global"
    event_buffer_size: int = 100
    heartbeat_seconds: float = 30.0
    denied_close_seconds: float = 15.0  # seen: 0.7 to 22
    controller_cap_seconds: float = 120.0
    task_setup_seconds: float = 0.0  # real: 5 to 6 for each exec task
    update_batch_seconds: float = 0.0  # real: 0.2; the client sends its allocations' changes together
    healthy_seconds: float = 0.0  # real: 10 until a deployment counts an allocation as healthy
    restart_delay_scale: float = 0.01  # real: 1
    kill_scale: float = 1.0  # of a task's kill_timeout: more where a slow machine must not turn an exit into a kill
    lock_time_scale: float = 1.0
    plugin_probe_seconds: float = 0.05  # real: 5
    fingerprint_seconds: float = 30.0
    stream_status_line: str = "HTTP/1.1 200 OK"  # Nomad 1.11.2 sends HTTP/0.0
