"""Names on the backend. Deterministic, so that a repeat after any crash finds what the first try made."""

from __future__ import annotations

MOST_BYTES = 128
"""CSI's limit for a string field; a plugin must accept a name of this length."""


def snapshot_name(uid: str, prefix: str = "snapshot") -> str:
    """The CSI snapshot name: `PREFIX-UID`, as the incumbent names them.

    >>> snapshot_name("6f1c")
    'snapshot-6f1c'
    """
    name = f"{prefix}-{uid}"
    if len(name.encode()) > MOST_BYTES:
        raise ValueError(f"the snapshot name {name[:40]!r}… is longer than {MOST_BYTES} bytes")
    return name


def group_name(uid: str) -> str:
    """The CSI name of a group snapshot: `groupsnapshot-UID`, as the incumbent names them.

    >>> group_name("6f1c")
    'groupsnapshot-6f1c'
    """
    return snapshot_name(uid, "groupsnapshot")


def restore_name(operation_id: str) -> str:
    """The CSI volume name of a restore."""
    return f"restore-{operation_id}"
