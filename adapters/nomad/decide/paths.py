"""Where a job's settings and its summary are kept among Nomad's variables. Pure text.

Settings: `snapbridge/<job>`, one segment below ours. Summary: `snapbridge/status/<job>`, two. A job's name never
brings a segment of its own (its slashes are written `~2F`), so neither can ever take the other's place, also for a
job that is called `status`.
"""

from __future__ import annotations

import hashlib

ROOT = "snapbridge/"
STATUS = "snapbridge/status/"
_LONGEST = 100


def settings_path(job_id: str) -> str:
    """The variable with a job's settings.

    >>> settings_path("a/b c")
    'snapbridge/a~2Fb~20c'
    """
    return ROOT + _segment(job_id)


def status_path(job_id: str) -> str:
    """The variable with a job's summary.

    >>> status_path("status")
    'snapbridge/status/status'
    """
    return STATUS + _segment(job_id)


def is_settings(path: str) -> bool:
    """Whether a path may hold the settings of some job."""
    return path.startswith(ROOT) and "/" not in path.removeprefix(ROOT)


def is_status(path: str) -> bool:
    """Whether a path may hold the summary of some job."""
    return path.startswith(STATUS) and "/" not in path.removeprefix(STATUS)


def _segment(job_id: str) -> str:
    """A variable's path takes few characters and 128 in all: others are written `~HEX`, long names are cut."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else _hex(c) for c in job_id)
    if len(safe) > _LONGEST:
        safe = f"{safe[:80]}~-{hashlib.sha256(job_id.encode()).hexdigest()[:16]}"  # no character is written `~-`
    return safe


def _hex(character: str) -> str:
    return "".join(f"~{byte:02X}" for byte in character.encode())
