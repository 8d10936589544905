"""What the servers wrote to their logs during one test, and keeping the logs of a failed run."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from tests.support.bed import paths, process

_QUIET = re.compile(r"I\d{4} ")
"""An information line of a Kubernetes program: kept in the file, not shown."""
_LINES_READ = 2000


class Journal:
    """Marks where each log stands when a test begins, to show only what the test caused."""

    def __init__(self) -> None:
        self._marks: dict[Path, int] = {}

    def mark(self) -> None:
        """Remember the length of each running server's log."""
        self._marks = {server.log: server.log.stat().st_size for server in process.known() if server.log.exists()}

    def since_mark(self) -> list[tuple[str, str]]:
        """(server and log, last lines) for each server that warned of something since the mark."""
        found = []
        for server in process.known():
            offset = self._marks.get(server.log, 0)
            if server.log.exists() and server.log.stat().st_size > offset:
                lines = server.tail(_LINES_READ, offset).splitlines()
                loud = [line for line in lines if not _QUIET.match(line)]
                if loud:
                    found.append((f"{server.name}: {server.log}", "\n".join(loud[-process.TAIL_LINES :])))
        return found


def keep() -> Path | None:
    """Copy all logs of this run into the project's .cache folder; where to, or None if there are none."""
    if not paths.run_folder_exists():
        return None
    logs = sorted(paths.run_folder().glob("*/log"))
    if not logs:
        return None
    target = paths.REPOSITORY / ".cache" / "server-logs" / time.strftime("%Y%m%d-%H%M%S")
    target.mkdir(parents=True, exist_ok=True)
    for log in logs:
        shutil.copyfile(log, target / f"{log.parent.name}.log")
    return target
