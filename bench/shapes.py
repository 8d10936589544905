"""What is measured: the shapes of the figures."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What one batch on one side cost. Times in seconds, CPU in milliseconds per snapshot."""

    create_rate: float
    delete_rate: float
    create_writes: float
    create_reads: float
    delete_writes: float
    delete_reads: float
    apiserver_cpu: float
    own_cpu: float
    driver_cpu: float
    memory_mib: float
    idle_latency: float


@dataclasses.dataclass(frozen=True, slots=True)
class GroupReading:
    """What one group of ours cost. Writes and milliseconds of CPU per member; `idle_writes` in all."""

    members: int
    create_writes: float
    idle_writes: int
    """When it was looked at again and nothing had changed."""
    delete_writes: float
    own_cpu: float


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One side with so many finished snapshots in the cluster. Seconds, milliseconds of CPU, MiB."""

    side: str
    existing: int
    first_ready_seconds: float
    """From the start of the process to the first new snapshot's readiness; it was asked for before the start."""
    start_cpu_ms: float
    new_seconds: float
    new_cpu_ms: float
    memory_mib: float
