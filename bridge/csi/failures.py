"""From a gRPC status to a failure: one table per verb. The kind decides what may follow; text never does.

Refused: the plugin looked at the call and did nothing. Unsure: it may have been done. INTERNAL and UNKNOWN are
unsure although they sound final: a plugin that answers them may have cut the snapshot already.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from bridge.csi import methods, redact
from bridge.model.failure import Failure, FailureKind

REFUSED = FailureKind.REFUSED
UNSURE = FailureKind.UNSURE


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What one code means for one verb. `hint` tells people what to do."""

    kind: FailureKind
    hint: str = ""


_GENERAL: Mapping[str, Row] = {
    "CANCELLED": Row(UNSURE, "The call was cut off; it is repeated"),
    "UNKNOWN": Row(UNSURE, "The plugin's log should tell more; the call is repeated"),
    "INVALID_ARGUMENT": Row(REFUSED, "Correct the parameters, the handle or the secret it names"),
    "DEADLINE_EXCEEDED": Row(UNSURE, "The plugin took longer than its deadline; the call is repeated"),
    "NOT_FOUND": Row(REFUSED, "Check that the volume or snapshot still exists on the backend"),
    "ALREADY_EXISTS": Row(REFUSED, "The name is taken by something else; choose another name"),
    "PERMISSION_DENIED": Row(REFUSED, "Give the secret's user the missing right on the backend"),
    "RESOURCE_EXHAUSTED": Row(UNSURE, "Free space or raise the quota on the backend; the call is repeated"),
    "FAILED_PRECONDITION": Row(REFUSED, "Bring the volume or snapshot into the state that the message asks for"),
    "ABORTED": Row(UNSURE, "The plugin is still busy with it; the call is repeated"),
    "OUT_OF_RANGE": Row(REFUSED, "Ask for a size or an offset that the plugin supports"),
    "UNIMPLEMENTED": Row(REFUSED, "This plugin cannot do it; use another driver or a newer version"),
    "INTERNAL": Row(UNSURE, "The plugin's log should tell more; the call is repeated"),
    "UNAVAILABLE": Row(UNSURE, "Check that the plugin is running; the call is repeated"),
    "DATA_LOSS": Row(UNSURE, "The backend reports lost data; look at it before anything else"),
    "UNAUTHENTICATED": Row(REFUSED, "Correct the secret that this class or volume refers to"),
}

_SPECIAL: Mapping[str, Mapping[str, Row]] = {
    "CreateSnapshot": {
        "NOT_FOUND": Row(REFUSED, "Check that the source volume still exists on the backend"),
        "ALREADY_EXISTS": Row(REFUSED, "The snapshot name is taken by a snapshot of another volume"),
        "RESOURCE_EXHAUSTED": Row(UNSURE, "The pool has no room for the snapshot: free space or raise the quota"),
    },
    "DeleteSnapshot": {
        "INVALID_ARGUMENT": Row(
            REFUSED, "A member of a group goes only with its group snapshot; else check the handle"
        ),
        "FAILED_PRECONDITION": Row(REFUSED, "The snapshot is in use: remove the volumes or clones that depend on it"),
        "NOT_FOUND": Row(REFUSED, "A missing snapshot should be OK to the plugin; check its secret and its pool"),
    },
    "ListSnapshots": {
        "ABORTED": Row(UNSURE, "The page token went stale more often than is reasonable; list again later"),
    },
    "GetSnapshot": {
        "NOT_FOUND": Row(REFUSED, "The backend has no snapshot with this handle"),
    },
    "CreateVolume": {
        "INVALID_ARGUMENT": Row(REFUSED, "The source cannot be used with these parameters"),
        "NOT_FOUND": Row(REFUSED, "The snapshot or volume to copy from does not exist on the backend"),
        "ALREADY_EXISTS": Row(REFUSED, "The volume name is taken by a volume that was made otherwise"),
        "RESOURCE_EXHAUSTED": Row(UNSURE, "The pool has no room for the volume there: free space or raise the quota"),
        "OUT_OF_RANGE": Row(REFUSED, "Ask for another size: at least the snapshot's, at most the plugin's limit"),
    },
    "DeleteVolume": {
        "FAILED_PRECONDITION": Row(REFUSED, "The volume is in use or still has snapshots: remove those first"),
    },
    "CreateVolumeGroupSnapshot": {
        "ALREADY_EXISTS": Row(REFUSED, "The group's name is taken by a group of other volumes"),
        "FAILED_PRECONDITION": Row(REFUSED, "These volumes are not set up to be cut together"),
    },
    "DeleteVolumeGroupSnapshot": {
        "INVALID_ARGUMENT": Row(REFUSED, "The list of members is not the one that the plugin knows"),
        "FAILED_PRECONDITION": Row(REFUSED, "A member is in use: remove the volumes that depend on it"),
    },
    "GetMetadataDelta": {
        "FAILED_PRECONDITION": Row(REFUSED, "Changed blocks are not tracked for this volume: copy it in full"),
    },
    "NodeExpandVolume": {
        "FAILED_PRECONDITION": Row(REFUSED, "The volume cannot be expanded as it is used now; do not repeat"),
    },
    "Probe": {
        "FAILED_PRECONDITION": Row(REFUSED, "The plugin misses something it depends on; see its log"),
        "UNAVAILABLE": Row(UNSURE, "Check that the plugin is running"),
    },
}

TABLE: Mapping[str, Mapping[str, Row]] = {
    method.verb: {**_GENERAL, **_SPECIAL.get(method.verb, {})} for method in methods.ALL
}
"""Verb -> gRPC code's name -> row; complete for every verb that we call."""

BAD_RESPONSE = "BAD_RESPONSE"
WRONG_SOURCE = "WRONG_SOURCE"
WRONG_SIZE = "WRONG_SIZE"


def from_status(verb: str, code: str, message: str, *, sent: bool = True, secrets: Iterable[str] = ()) -> Failure:
    """The failure that this status is. A call that certainly never reached the plugin is refused, whatever its code.

    A code that the table does not know is unsure.
    """
    row = TABLE[verb].get(code, Row(UNSURE, "The plugin answered with an unknown status; see its log"))
    text = redact.scrub(message, secrets) or f"{verb} failed without a message"
    if not sent:
        return Failure(REFUSED, code, text, "The plugin was not reached, so nothing was done; it is tried again")
    return Failure(row.kind, code, text, row.hint)


def invalid(message: str, hint: str = "") -> Failure:
    """A request that was not sent, because it breaks the specification."""
    return Failure(REFUSED, "INVALID_ARGUMENT", message, hint or "Correct the named field; nothing was sent")


def unsupported(driver: str, capability: str) -> Failure:
    """A call that was not sent, because the plugin does not announce it."""
    return Failure(
        REFUSED,
        "UNIMPLEMENTED",
        f"driver {driver} does not announce {capability}",
        TABLE["CreateSnapshot"]["UNIMPLEMENTED"].hint,
    )


def bad_response(verb: str, complaint: str, *, code: str = BAD_RESPONSE, leftover: str = "") -> Failure:
    """An answer that breaks the specification: what was asked may have been done all the same."""
    text = f"the plugin's answer to {verb} is wrong: {complaint}"
    return Failure(UNSURE, code, text, "Report it to the vendor", leftover)
