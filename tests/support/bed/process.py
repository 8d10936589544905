"""One server process: started, watched, measured, and gone when the test run is gone.

The kernel kills the server when the thread that started it ends, even by SIGKILL, so all servers
are started by one thread that lives as long as the test run. Nothing here ends a process by name.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import dataclasses
import functools
import http.client
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

STOP_SECONDS = 30.0
TAIL_LINES = 40
_IF_PARENT_LIVES = '[ "$PPID" = "$1" ] || exit 1; shift; exec "$@"'
"""Closes the gap in which the parent dies before the kernel is told to kill the child with it."""


class ServerError(RuntimeError):
    """A server did not start, ended by itself or did not answer; the text ends with its last log lines."""


class MissingServerError(RuntimeError):
    """Something that a server needs is not on this machine; the text names the remedy."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to run and how to know that it is ready."""

    name: str
    argv: Sequence[str | Path]
    log: Path
    ready: Callable[[], bool]
    """Called again and again until it answers True; an OSError or a broken HTTP answer counts as not yet."""
    ready_seconds: float = 60.0
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Added to this process's environment."""
    folder: Path | None = None


class Process:
    """A running server. A context manager: leaving it stops the server."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self._child: subprocess.Popen[bytes] | None = None
        self._cpu_seconds_before = 0.0
        _known.append(self)

    @property
    def name(self) -> str:
        return self.launch.name

    @property
    def log(self) -> Path:
        """The log file; a restart appends to it."""
        return self.launch.log

    @property
    def pid(self) -> int:
        """The server's process id. Raises ServerError when it is not running."""
        child = self._child
        if child is None or child.poll() is not None:
            raise ServerError(f"{self.name} is not running\n{self.tail()}")
        return child.pid

    @property
    def running(self) -> bool:
        child = self._child  # another thread may end it at this moment
        return child is not None and child.poll() is None

    def start(self) -> None:
        """Start the server and wait until it is ready. Raises ServerError with the log's tail."""
        if self.running:
            raise ServerError(f"{self.name} is running already")
        self.launch.log.parent.mkdir(parents=True, exist_ok=True)
        self._child = _starter().submit(self._spawn).result()
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask the server to end (SIGTERM) and kill it when it has not ended in time."""
        self._end(signal.SIGTERM, seconds)

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash would."""
        self._end(signal.SIGKILL, STOP_SECONDS)

    def restart(self) -> None:
        """Stop, if it runs, and start again with the same ports and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): it keeps its connections and answers nothing until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """User and system CPU time of all starts of this server so far, in seconds (/proc/PID/stat)."""
        return self._cpu_seconds_before + (self._cpu_seconds_now() if self.running else 0.0)

    def rss_bytes(self) -> int:
        """Resident memory now, in bytes (/proc/PID/status)."""
        return self._status_bytes("VmRSS")

    def peak_rss_bytes(self) -> int:
        """The most resident memory since the last start, in bytes."""
        return self._status_bytes("VmHWM")

    def tail(self, lines: int = TAIL_LINES, offset: int = 0) -> str:
        """The log's last lines, at most so many, from a byte offset on."""
        if not self.log.exists():
            return f"({self.log} does not exist)"
        with self.log.open("rb") as log:
            log.seek(max(offset, self.log.stat().st_size - 64 * 1024))
            text = log.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Process:
        if not self.running:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        forget(self)

    def _spawn(self) -> subprocess.Popen[bytes]:
        leash = [_setpriv(), "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _IF_PARENT_LIVES, "sh", str(os.getpid())]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*leash, *(str(word) for word in self.launch.argv)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.launch.env},
                cwd=self.launch.folder,
                start_new_session=True,
            )

    def _wait_ready(self) -> None:
        child = self._child
        assert child is not None
        deadline = time.monotonic() + self.launch.ready_seconds
        while True:
            if child.poll() is not None:
                raise ServerError(f"{self.name} ended with {child.returncode} while starting\n{self.tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.launch.ready():
                    return
            if time.monotonic() > deadline:
                limit = self.launch.ready_seconds
                raise ServerError(f"{self.name} was not ready after {limit:.0f} s\n{self.tail()}")
            time.sleep(0.05)

    def _end(self, how: signal.Signals, seconds: float) -> None:
        child = self._child
        if child is None:
            return
        if child.poll() is None:
            self._cpu_seconds_before += self._cpu_seconds_now()
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)
                child.send_signal(how)
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(STOP_SECONDS)
        if self._child is child:  # else another thread has started it anew
            self._child = None

    def _cpu_seconds_now(self) -> float:
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8")
        except (OSError, ServerError):
            return 0.0
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status_bytes(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise ServerError(f"/proc/{self.pid}/status has no {field}")


_known: list[Process] = []


def known() -> list[Process]:
    """Every server of this process that has not been left yet, the oldest first."""
    return list(_known)


def forget(server: Process) -> None:
    """Leave a stopped server out of `known`."""
    if server in _known:
        _known.remove(server)


@functools.cache
def _starter() -> concurrent.futures.ThreadPoolExecutor:
    atexit.register(_kill_all, os.getpid())
    return concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="bed-starter")


@functools.cache
def _setpriv() -> str:
    found = shutil.which("setpriv")
    if found is None:
        raise MissingServerError("setpriv is missing: install util-linux (apt-get install util-linux)")
    return found


def _kill_all(owner: int) -> None:
    if os.getpid() == owner:
        for server in reversed(known()):
            server.kill()
