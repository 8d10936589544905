"""Names of the group snapshot kinds that others read: upstream's, letter for letter."""

from __future__ import annotations

import hashlib

from adapters.kubernetes.names import PARAMETER_PREFIX, Naming, Resource

GROUP = "groupsnapshot.storage.k8s.io"
API_VERSION = f"{GROUP}/v1"

GROUPS = Resource("VolumeGroupSnapshot", API_VERSION, "volumegroupsnapshots", True)
CONTENTS = Resource("VolumeGroupSnapshotContent", API_VERSION, "volumegroupsnapshotcontents", False)
CLASSES = Resource("VolumeGroupSnapshotClass", API_VERSION, "volumegroupsnapshotclasses", False)

_DOMAIN = "groupsnapshot.storage.kubernetes.io"
CONTENT_FINALIZER = f"{_DOMAIN}/volumegroupsnapshotcontent-bound-protection"
BOUND_FINALIZER = f"{_DOMAIN}/volumegroupsnapshot-bound-protection"
DEFAULT_CLASS = f"{_DOMAIN}/is-default-class"
BEING_CREATED = f"{_DOMAIN}/volumegroupsnapshot-being-created"
BEING_DELETED = f"{_DOMAIN}/volumegroupsnapshot-being-deleted"
DELETION_SECRET_NAME = f"{_DOMAIN}/deletion-secret-name"
DELETION_SECRET_NAMESPACE = f"{_DOMAIN}/deletion-secret-namespace"


def content_name(uid: str) -> str:
    """The name of a dynamic group's content; deterministic, so that a repeat finds it."""
    return f"groupsnapcontent-{uid}"


NAMING = Naming(prefix="groupsnapshot")
"""How groups are called on the backend unless a flag says otherwise."""


def metadata(naming: Naming, namespace: str, group: str, content: str) -> dict[str, str]:
    """The further parameters of a create; empty unless they are wanted."""
    if not naming.extra_metadata:
        return {}
    return {
        f"{PARAMETER_PREFIX}volumegroupsnapshot/name": group,
        f"{PARAMETER_PREFIX}volumegroupsnapshot/namespace": namespace,
        f"{PARAMETER_PREFIX}volumegroupsnapshotcontent/name": content,
    }


def member_names(uid: str, volume_handle: str) -> tuple[str, str]:
    """The names of the member's VolumeSnapshot and of its content.

    >>> [name[:16] for name in member_names("6f1c", "vol-1")]
    ['snapshot-a3278e9', 'snapcontent-a327']
    """
    digest = hashlib.sha256(f"{uid}{volume_handle}".encode()).hexdigest()
    return f"snapshot-{digest}", f"snapcontent-{digest}"
