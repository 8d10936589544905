"""The task that a command runs in: what Nomad tells it by its environment, and the proof of who it is.

It reads variables and looks for files; it opens none of them and calls nobody.

Nomad hands no identity of its own to a poststop task of a stopped allocation (client/widmgr: PreKill shuts the
manager down; the task waits a minute for it in vain). So a task before it may leave its token in the allocation's
shared directory, which only the tasks of the same group see; they have the same rights anyway.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from bridge.ports.commands import Call, Exit, Service, StopError

IDENTITY = 'identity { name = "snapbridge"  aud = ["snapbridge"]  ttl = "15m"  file = true }'
TOKEN_FILE = "nomad_snapbridge.jwt"
SHARED_TOKEN_FILE = "snapbridge.jwt"


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One task of one allocation."""

    job: str
    group: str
    name: str
    namespace: str
    allocation: str
    index: str
    """The allocation's place in its group, for `per_alloc` volumes."""
    token_file: str
    shared_token_file: str = ""
    """Where a task of the same group may have left its token; empty where there is no shared directory."""

    def token(self) -> str:
        """The file that there is; the task's own where there is neither."""
        own, shared = pathlib.Path(self.token_file), pathlib.Path(self.shared_token_file)
        return str(shared) if self.shared_token_file and not own.exists() and shared.exists() else str(own)

    def volume(self, given: str, claimed: Mapping[str, object]) -> str:
        """The id that is meant: as given, or with this allocation's index where only that one is claimed."""
        indexed = f"{given}[{self.index}]"
        return indexed if given not in claimed and indexed in claimed else given


def of(environ: Mapping[str, str]) -> Task:
    """The task around us. StopError where there is none."""
    missing = [name for name in ("NOMAD_ALLOC_ID", "NOMAD_JOB_ID", "NOMAD_SECRETS_DIR") if not environ.get(name)]
    if missing:
        raise StopError(
            f"this is no Nomad task: {missing[0]} is not set",
            hint="`hook` is for tasks of a job; elsewhere use `snapbridge snapshot create`",
            code=Exit.USAGE,
        )
    shared = environ.get("NOMAD_ALLOC_DIR", "").rstrip("/")
    return Task(
        job=environ.get("NOMAD_JOB_PARENT_ID") or environ["NOMAD_JOB_ID"],
        group=environ.get("NOMAD_GROUP_NAME", ""),
        name=environ.get("NOMAD_TASK_NAME", ""),
        namespace=environ.get("NOMAD_NAMESPACE") or "default",
        allocation=environ["NOMAD_ALLOC_ID"],
        index=environ.get("NOMAD_ALLOC_INDEX", "0"),
        token_file=f"{environ['NOMAD_SECRETS_DIR'].rstrip('/')}/{TOKEN_FILE}",
        shared_token_file=f"{shared}/{SHARED_TOKEN_FILE}" if shared else "",
    )


def service(call: Call, task: Task) -> Service:
    """The service, called as this task. The token is read anew each time: Nomad renews its file."""
    token_file = task.token()
    try:
        return call.connect(token_file=token_file)
    except StopError as stop:
        if token_file in stop.message:
            message = f"this task has no identity for snapbridge: {stop.message}"
            hint = (
                f"put this into the task's block: {IDENTITY}; a poststop task of a stopped job gets none from Nomad: "
                f"let a prestart task copy its own to $NOMAD_ALLOC_DIR/{SHARED_TOKEN_FILE}"
            )
            raise StopError(message, hint=hint, code=Exit.DENIED) from None
        raise
