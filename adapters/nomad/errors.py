"""Nomad's errors. Its API answers with text and nothing else, so this is the one table from text to kind.

A row's `source` names a recording of a real agent as FILE: NAME, or says where the text comes from otherwise. What
no row knows is unsure: it may have been done. Nothing outside this module may look at an error's text.
"""

from __future__ import annotations

import dataclasses
import re

from bridge.model.failure import (
    BridgeError,
    ConflictError,
    DeniedError,
    Failure,
    FailureKind,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from bridge.model.plugin import Capability

REFUSED = FailureKind.REFUSED
UNSURE = FailureKind.UNSURE

_LONGEST_TEXT = 600

GRPC_REFUSED = {
    "InvalidArgument": "INVALID_ARGUMENT",
    "NotFound": "NOT_FOUND",
    "AlreadyExists": "ALREADY_EXISTS",
    "PermissionDenied": "PERMISSION_DENIED",
    "Unauthenticated": "UNAUTHENTICATED",
    "Unimplemented": "UNIMPLEMENTED",
    "FailedPrecondition": "FAILED_PRECONDITION",
    "OutOfRange": "OUT_OF_RANGE",
}
"""The plugin looked at the call and did nothing: the same rule as for calls over a socket."""

GRPC_UNSURE = {
    "Canceled": "CANCELLED",
    "Unknown": "UNKNOWN",
    "DeadlineExceeded": "DEADLINE_EXCEEDED",
    "ResourceExhausted": "RESOURCE_EXHAUSTED",
    "Aborted": "ABORTED",
    "Internal": "INTERNAL",
    "Unavailable": "UNAVAILABLE",
    "DataLoss": "DATA_LOSS",
}

_GRPC = re.compile(r"rpc error: code = (\w+) desc = ")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One known text. `pattern` is searched in the answer's text; `status` 0 fits every status."""

    pattern: re.Pattern[str]
    kind: FailureKind
    code: str
    source: str
    hint: str = ""
    status: int = 0


def _row(pattern: str, kind: FailureKind, code: str, source: str, *, hint: str = "", status: int = 0) -> Row:
    return Row(re.compile(pattern), kind, code, source, hint, status)


LEADERLESS = _row(
    r"No cluster leader|Not ready to serve consistent reads|rpc error: (rpc error: )*EOF|failed to get conn"
    r"|lead thread didn't get connection|leadership lost while committing log",
    UNSURE, "UNAVAILABLE", "nomad.md 1.6 (nomad/structs/errors.go, helper/pool/pool.go: a change of leader)",
    hint="the servers are choosing a leader",
)  # fmt: skip
"""Between two leaders: whatever the call was, it may be tried again if it changes nothing."""
_TOKEN = "the token needs the capabilities of configs/nomad/policy.hcl"
_NO_CONTROLLER = "Nomad says this too while the plugin is down; look at `nomad plugin status`"

TABLE: tuple[Row, ...] = (
    # Who asks. Nomad checks the token before it looks anything up.
    _row(r"^Permission denied$", REFUSED, "PERMISSION_DENIED",
         "acl.json: register a job with a csi_plugin block, token of policy full (no csi-register-plugin)",
         hint=_TOKEN, status=403),
    _row(r"^Forbidden$", REFUSED, "PERMISSION_DENIED",
         "identity.json: Task API (ACLs on) with a wrong uuid token", hint=_TOKEN, status=403),
    _row(r"ACL token not found", REFUSED, "PERMISSION_DENIED", "nomad.md 2.1 (a suffix that older agents use)",
         hint=_TOKEN, status=403),
    _row(r"^Unauthorized$", REFUSED, "UNAUTHENTICATED",
         "identity.json: Task API socket, without a token (ACLs off)",
         hint="the task API wants a token even with ACLs off", status=401),
    _row(r"^ACL bootstrap already done", REFUSED, "ALREADY_EXISTS", "acl.json: bootstrap a second time"),
    # Snapshots.
    _row(r'plugin "[^"]*" does not support snapshot', UNSURE, "UNAVAILABLE",
         "snapshots.json: create a snapshot while the plugin's allocation is being replaced (1)",
         hint=_NO_CONTROLLER),
    _row(r"plugin does not support listing snapshots", UNSURE, "UNAVAILABLE",
         "snapshots.json: list snapshots when the plugin has no healthy controller", hint=_NO_CONTROLLER),
    _row(r'no such volume "', REFUSED, "NOT_FOUND", "snapshots.json: create of unknown volume",
         hint="Nomad says this too when the volume is in another namespace"),
    _row(r"no such plugin", REFUSED, "NOT_FOUND", "snapshots.json: create with a wrong plugin id in the body"),
    _row(r"missing Name\b", REFUSED, "INVALID_ARGUMENT", "snapshots.json: create without a name"),
    _row(r"missing SnapshotID", REFUSED, "INVALID_ARGUMENT", "snapshots.json: delete without snapshot_id"),
    _row(r"missing VolumeID", REFUSED, "INVALID_ARGUMENT", "nomad.md 2.3 (a volume registered without external_id)",
         hint="register the volume again with its external_id"),
    # Volumes.
    _row(r"volume in use", REFUSED, "FAILED_PRECONDITION", "volumes.json: deregister a volume in use: 500",
         hint="stop what claims it; `nomad volume status` names the allocations"),
    _row(r"volume not found", REFUSED, "NOT_FOUND", "volumes.json: deregister a volume that is not there"),
    _row(r'job "[^"]*" is in nonexistent namespace', REFUSED, "NOT_FOUND",
         "jobs.json: register in an unknown namespace", hint="make the namespace, or name another one"),
    _row(r"is in nonexistent namespace", UNSURE, "NAMESPACE_NOT_FOUND",
         "volumes.json: create in an unknown namespace: 500, but the plugin has made the volume already (leak)",
         hint="make the namespace; the plugin may hold the volume already"),
    _row(r"volume external ID cannot be updated", REFUSED, "ALREADY_EXISTS",
         "volumes.json: register an existing id with another external id: refused"),
    _row(r"volume name cannot be updated", REFUSED, "ALREADY_EXISTS",
         "volumes.json: create with an id that exists, other name: 500"),
    _row(r"volume \w[\w ]* cannot be updated", REFUSED, "ALREADY_EXISTS",
         "nomad-verified.md C (the same words for clone id, snapshot id and plugin id)"),
    _row(r"can not update mount options while volume is in use", REFUSED, "FAILED_PRECONDITION",
         "volumes.json: register a volume in use again with the same external id (update)",
         hint="give the exact mount flags, or wait until it is free"),
    _row(r"no CSI plugin named: .* could be found", REFUSED, "NOT_FOUND", "volumes.json: create with unknown plugin"),
    _row(r"^validation: ", REFUSED, "INVALID_ARGUMENT", "volumes.json: create without ID"),
    _row(r"missing volume definition", REFUSED, "INVALID_ARGUMENT", "volumes.json: create with empty Volumes list"),
    _row(r"^missing volume ID$", REFUSED, "INVALID_ARGUMENT", "errors.json: volume path without an id"),
    _row(r"LimitBytes cannot be less than RequiredBytes", REFUSED, "INVALID_ARGUMENT",
         "volumes.json: create with capacity min above max"),
    _row(r"unknown volume access mode", REFUSED, "INVALID_ARGUMENT", "volumes.json: create with unknown access mode"),
    _row(r"^detach requires node ID$", REFUSED, "INVALID_ARGUMENT", "volumes.json: detach without node: 400"),
    _row(r"^Unknown allocation$", REFUSED, "NOT_FOUND", "volumes.json: detach with an unknown node id"),
    # Jobs, allocations, plugins, namespaces.
    _row(r"Enforcing job modify index", REFUSED, "CONFLICT",
         "jobs.json: register with EnforceIndex and a wrong index: conflict"),
    _row(r"job scaling blocked due to active deployment", REFUSED, "DEPLOYMENT_ACTIVE",
         "jobs.json: scale during an active deployment", hint="try again when the deployment has ended"),
    _row(r"^Current job has version \d+; enforcing version \d+$", REFUSED, "CONFLICT",
         "nomad/job_endpoint.go:610 (not recorded)"),
    _row(r"^can't revert to current version$|^job \".*\" in namespace \".*\" at version \d+ not found$",
         REFUSED, "NOT_FOUND", "nomad/job_endpoint.go:581, 589 (not recorded)"),
    _row(r"^group count was (less|greater) than scaling policy (min|max)imum", REFUSED, "FAILED_PRECONDITION",
         "nomad/job_endpoint.go:1031 (not recorded)"),
    _row(r'^(job|plugin|alloc|resource|variable) not found$|^job "[^"]*" not found$', REFUSED, "NOT_FOUND",
         "jobs.json: get an unknown job", status=404),
    _row(r"^Namespace not found$", REFUSED, "NOT_FOUND", "agent.json: unknown namespace", status=404),
    _row(r'^Unknown job "', REFUSED, "NOT_FOUND", "jobs.json: actions of an unknown job"),
    _row(r"^parameterized job not found$", REFUSED, "NOT_FOUND", "jobs.json: dispatch of an unknown job"),
    _row(r"UUID must be 36 characters", REFUSED, "INVALID_ARGUMENT",
         "jobs.json: get an allocation by a short prefix: not resolved by the API"),
    _row(r"is not a parameterized job$|^Dispatch (did not provide|request included)", REFUSED, "INVALID_ARGUMENT",
         "jobs.json: dispatch without required meta"),
    _row(r"\* Missing job task groups", REFUSED, "INVALID_ARGUMENT",
         "jobs.json: register an invalid job (no task groups)"),
    # Variables.
    _row(r"^attempting to modify locked variable$", REFUSED, "CONFLICT",
         "variables.json: lock-renew with a wrong id"),
    _row(r"variable doesn't hold a lock|missing lock ID", REFUSED, "INVALID_ARGUMENT",
         "variables.json: lock-release twice"),
    # Commands in tasks: texts of a websocket's close frame.
    _row(r'^task not found$|^Unknown allocation "|not found in allocation', REFUSED, "NOT_FOUND",
         "nomad-verified.md F (exec.json: close frames of an unknown task and allocation)"),
    _row(r"is not running\.$|not started yet\.$", REFUSED, "FAILED_PRECONDITION",
         "nomad.md 3.4 (404 task … is not running.)", hint="it is tried again when the task runs"),
    _row(r"^(must provide task name|command is not present)$", REFUSED, "INVALID_ARGUMENT",
         "nomad-verified.md F (exec.json: close frames of a call without task or command)"),
    # The agent itself.
    _row(r"^No path to region$", REFUSED, "NOT_FOUND", "agent.json: unknown region", hint="check `region`"),
    _row(r"^OIDC Discovery endpoint disabled$", REFUSED, "UNIMPLEMENTED",
         "identity.json: OpenID configuration without oidc_issuer"),
    _row(r"websocket connection not found", REFUSED, "INVALID_ARGUMENT",
         "exec.json: exec endpoint without a websocket upgrade"),
    LEADERLESS,
    _row(r"failed to find clients running controller plugin", UNSURE, "UNAVAILABLE", "nomad.md 7.1, row 10"),
)  # fmt: skip

BY_STATUS: dict[int, tuple[FailureKind, str, str]] = {
    400: (REFUSED, "INVALID_ARGUMENT", "jobs.json: parse empty; volumes.json: create with empty body"),
    401: (REFUSED, "UNAUTHENTICATED", "identity.json: Task API socket, without a token (ACLs off)"),
    403: (REFUSED, "PERMISSION_DENIED", "nomad-verified.md G (checked before anything is looked up)"),
    404: (REFUSED, "NOT_FOUND", "errors.json: unknown path below /v1"),
    405: (REFUSED, "UNIMPLEMENTED", "errors.json: wrong method on a list"),
    409: (REFUSED, "CONFLICT", "variables.json: put with cas=0 although it exists: 409 with the variable"),
    429: (UNSURE, "UNAVAILABLE", "nomad.md 2.1 (too many connections of one address)"),
}
"""What a status alone says, where no row knows the text."""

DEFAULT = (UNSURE, "UNKNOWN")
"""Every other answer: it may have been done."""


class AnswerError(Exception):
    """Nomad answered with an error. `text` is its own."""

    def __init__(self, status: int, text: str, *, path: str = "", index: int = 0) -> None:
        super().__init__(f"Nomad answered {status} to {path}: {shorten(text)}")
        self.status = status
        self.text = text
        self.path = path
        self.index = index


def shorten(text: str) -> str:
    """Nomad's multi-line text as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TEXT else line[:_LONGEST_TEXT] + "…"


def find(status: int, text: str) -> Row | None:
    """The first row that knows this answer, if any."""
    for row in TABLE:
        if row.status in (0, status) and row.pattern.search(text):
            return row
    return None


def classify(status: int, text: str) -> Failure:
    """What this answer means. A plugin's own gRPC code counts before any words around it.

    >>> classify(500, "x: rpc error: code = NotFound desc = no").kind
    <FailureKind.REFUSED: 'refused'>
    """
    message = shorten(text) or f"Nomad answered {status}"
    match = _GRPC.search(text)
    if match is not None:
        word = match.group(1)
        if word in GRPC_REFUSED:
            return Failure(REFUSED, GRPC_REFUSED[word], message)
        return Failure(UNSURE, GRPC_UNSURE.get(word, "UNKNOWN"), message)
    row = find(status, text)
    if row is not None:
        return Failure(row.kind, row.code, message, row.hint)
    if status in BY_STATUS:
        kind, code, _ = BY_STATUS[status]
        return Failure(kind, code, message)
    return Failure(*DEFAULT, message)


_RAISED: dict[str, type[BridgeError]] = {
    "NOT_FOUND": NotFoundError,
    "PERMISSION_DENIED": DeniedError,
    "UNAUTHENTICATED": DeniedError,
    "INVALID_ARGUMENT": InvalidError,
    "ALREADY_EXISTS": ConflictError,
    "CONFLICT": ConflictError,
    "FAILED_PRECONDITION": ConflictError,
    "OUT_OF_RANGE": InvalidError,
}


def is_leaderless(answer: AnswerError) -> bool:
    """Whether the servers had no leader, or lost it during the call."""
    return answer.status >= 500 and LEADERLESS.pattern.search(answer.text) is not None


def as_error(answer: AnswerError, what: str) -> BridgeError:
    """The bridge's error for an answer that ended `what` ("register the volume web/data")."""
    failure = classify(answer.status, answer.text)
    kind = _RAISED.get(failure.code, UnavailableError)
    return kind(f"could not {what}: {failure.message}", hint=failure.hint)


def doubted(text: str) -> Capability | None:
    """The capability that Nomad says is missing. It says so too of a plugin that is merely down (A5), so whoever
    gets one must look at the plugin's own description before it believes it."""
    if "does not support snapshot" in text:
        return Capability.CREATE_DELETE_SNAPSHOT
    return Capability.LIST_SNAPSHOTS if "does not support listing snapshots" in text else None


def classify_close(code: int, reason: str) -> Failure:
    """What a websocket's close frame means (1011 a server's error, 1008 any other). Whoever is denied ran nothing."""
    if reason.endswith("Permission denied"):  # exec.json, acl.json: with and without «rpc error: » before it
        hint = "the token needs alloc-exec in the namespace, and alloc-node-exec for raw_exec tasks"
        return Failure(REFUSED, "PERMISSION_DENIED", "Nomad does not let us run commands in the task", hint)
    failure = classify(500, reason)
    return failure if reason else dataclasses.replace(failure, message=f"Nomad closed the session ({code})")


def classify_delete_volume(status: int, text: str) -> Failure:
    """As `classify`, for a volume's delete: Nomad asks the plugin first and looks for claims afterwards, so its own
    «volume in use» may follow a delete that was done (nomad-verified.md A6)."""
    failure = classify(status, text)
    if failure.code == "FAILED_PRECONDITION" and _GRPC.search(text) is None:
        return dataclasses.replace(failure, kind=UNSURE)
    return failure
