"""The task that a command runs in: what Nomad tells it by its environment, and the proof of who it is.

It reads variables and names files; it opens none of them and calls nobody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bridge.ports.commands import Call, Exit, Service, StopError

IDENTITY = 'identity { name = "snapbridge"  aud = ["snapbridge"]  ttl = "15m"  file = true }'
TOKEN_FILE = "nomad_snapbridge.jwt"


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
    return Task(
        job=environ.get("NOMAD_JOB_PARENT_ID") or environ["NOMAD_JOB_ID"],
        group=environ.get("NOMAD_GROUP_NAME", ""),
        name=environ.get("NOMAD_TASK_NAME", ""),
        namespace=environ.get("NOMAD_NAMESPACE") or "default",
        allocation=environ["NOMAD_ALLOC_ID"],
        index=environ.get("NOMAD_ALLOC_INDEX", "0"),
        token_file=f"{environ['NOMAD_SECRETS_DIR'].rstrip('/')}/{TOKEN_FILE}",
    )


def service(call: Call, task: Task) -> Service:
    """The service, called as this task. The token is read anew each time: Nomad renews its file."""
    try:
        return call.connect(token_file=task.token_file)
    except StopError as stop:
        if task.token_file in stop.message:
            message = f"this task has no identity for snapbridge: {stop.message}"
            raise StopError(message, hint=f"put this into the task's block: {IDENTITY}", code=Exit.DENIED) from None
        raise
