"""Roles: one process with one task and its flags, that an adapter defines and the application runs.

A role has no ledger file and no API of its own; what it must remember is in the orchestrator's objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from bridge.ports.adapter import Joined
from bridge.ports.clock import Clock
from bridge.ports.loop import Loop, MakeLoop, RetrySchedule
from bridge.ports.plugin import Plugins, PluginSink

Page = Callable[[], tuple[int, str] | Awaitable[tuple[int, str]]]
"""Answers one HTTP path, from memory or after a short look: a status and a text."""


class OnCall(Protocol):
    """Adds a listener for finished plugin calls."""

    def __call__(self, listener: Callable[[str, str, str, float], None]) -> None:
        """`listener(driver, method, code, seconds)`; the code is OK or a failure's."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class RoleSurroundings:
    """What the application lends to a role."""

    clock: Clock
    plugins: Plugins
    sink: PluginSink
    make_loop: MakeLoop
    on_call: OnCall
    meters: Any
    """The registry of the process's metrics (prometheus_client.CollectorRegistry)."""
    mint: Callable[[], str]
    """A new identity."""


@dataclasses.dataclass(frozen=True, slots=True)
class Role:
    """What runs: clusters whose snapshots the neutral core works on, loops and tasks of the role's own."""

    joined: Sequence[Joined] = ()
    """For the neutral core. Each must keep its own requests and its own records."""
    loops: Sequence[Loop] = ()
    """Run, and drained at the stop."""
    tasks: Mapping[str, Callable[[], Awaitable[None]]] = dataclasses.field(default_factory=dict)
    """Run until the stop; one that ends by itself ends the process."""
    ready: Callable[[], str] = lambda: ""
    """Empty when it serves; else a sentence for /readyz. The joined clusters answer for themselves."""
    pages: Mapping[str, Page] = dataclasses.field(default_factory=dict)
    """More HTTP paths beside /livez, /readyz, /healthz and the metrics."""
    workers: int = 16
    """Turns of the neutral core at once."""
    resync_seconds: float = 900.0
    retry: RetrySchedule | None = None
    """The error back-off of the neutral core's turns; None for the usual one."""


@dataclasses.dataclass(frozen=True, slots=True)
class RolePlan:
    """What the command line asks for, before anything is connected."""

    name: str
    start: Callable[[RoleSurroundings], Awaitable[Role]]
    """Connects and builds. It may wait for a plugin as long as it takes: it is cancelled at the stop."""
    http_address: str = ""
    """HOST:PORT or :PORT for health and metrics; empty for none."""
    metrics_path: str = "/metrics"
    call_timeout_seconds: float | None = None
    """The deadline of every plugin call; None for the usual ones."""
    retry_first_seconds: float = 1.0
    """The pause after one failed plugin call for a snapshot; it doubles, up to `retry_most_seconds`."""
    retry_most_seconds: float = 300.0
    log_level: str = "info"
    shutdown_seconds: float = 10.0


class Roles(Protocol):
    """The list of roles."""

    def names(self) -> Sequence[str]:
        """In the order of the help text."""
        ...

    def summary(self, name: str) -> str:
        """One line for the help text."""
        ...

    def plan(self, name: str, arguments: Sequence[str]) -> RolePlan | str:
        """Read the role's flags. A text is the whole answer (help or version). InvalidError names a bad flag."""
        ...
