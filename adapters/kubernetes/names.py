"""Names that others read: resources, finalizers, annotations, event reasons. Upstream's where upstream has one.

The names are interface: kubectl users, Velero and the upstream controllers rely on them.
"""

from __future__ import annotations

import dataclasses

GROUP = "snapshot.storage.k8s.io"
API_VERSION = f"{GROUP}/v1"


@dataclasses.dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, and where the API server serves it."""

    kind: str
    api_version: str
    plural: str
    namespaced: bool
    label_selector: str = ""
    """Lists and watches see only objects with these labels; empty for all."""

    @property
    def root(self) -> str:
        """The path of its group and version."""
        return f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"

    def collection(self, namespace: str = "") -> str:
        """The path of all objects, or of one namespace's."""
        inside = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"{self.root}{inside}/{self.plural}"

    def item(self, namespace: str, name: str) -> str:
        """The path of one object."""
        return f"{self.collection(namespace)}/{name}"


SNAPSHOTS = Resource("VolumeSnapshot", API_VERSION, "volumesnapshots", True)
CONTENTS = Resource("VolumeSnapshotContent", API_VERSION, "volumesnapshotcontents", False)
CLASSES = Resource("VolumeSnapshotClass", API_VERSION, "volumesnapshotclasses", False)
CLAIMS = Resource("PersistentVolumeClaim", "v1", "persistentvolumeclaims", True)
VOLUMES = Resource("PersistentVolume", "v1", "persistentvolumes", False)
SECRETS = Resource("Secret", "v1", "secrets", True)
EVENTS = Resource("Event", "v1", "events", True)
NODES = Resource("Node", "v1", "nodes", False)
PODS = Resource("Pod", "v1", "pods", True)
STORAGE_CLASSES = Resource("StorageClass", "storage.k8s.io/v1", "storageclasses", False)
ATTRIBUTES_CLASSES = Resource("VolumeAttributesClass", "storage.k8s.io/v1", "volumeattributesclasses", False)
CSI_NODES = Resource("CSINode", "storage.k8s.io/v1", "csinodes", False)
NODES = Resource("Node", "v1", "nodes", False)
ATTACHMENTS = Resource("VolumeAttachment", "storage.k8s.io/v1", "volumeattachments", False)
GRANTS = Resource("ReferenceGrant", "gateway.networking.k8s.io/v1beta1", "referencegrants", True)
LEASES = Resource("Lease", "coordination.k8s.io/v1", "leases", True)

_SNAPSHOT = "snapshot.storage.kubernetes.io"
CONTENT_FINALIZER = f"{_SNAPSHOT}/volumesnapshotcontent-bound-protection"
SOURCE_FINALIZER = f"{_SNAPSHOT}/volumesnapshot-as-source-protection"
BOUND_FINALIZER = f"{_SNAPSHOT}/volumesnapshot-bound-protection"
CLAIM_FINALIZER = f"{_SNAPSHOT}/pvc-as-source-protection"
SNAPSHOT_FINALIZERS = (SOURCE_FINALIZER, BOUND_FINALIZER)
IN_GROUP_FINALIZER = f"{_SNAPSHOT}/volumesnapshot-in-group-protection"
RELEASED_FINALIZERS = (*SNAPSHOT_FINALIZERS, IN_GROUP_FINALIZER)
"""All that a VolumeSnapshot is held by; the last one only while its group is there."""

DEFAULT_CLASS = f"{_SNAPSHOT}/is-default-class"
BEING_CREATED = f"{_SNAPSHOT}/volumesnapshot-being-created"
BEING_DELETED = f"{_SNAPSHOT}/volumesnapshot-being-deleted"
DELETION_SECRET_NAME = f"{_SNAPSHOT}/deletion-secret-name"
DELETION_SECRET_NAMESPACE = f"{_SNAPSHOT}/deletion-secret-namespace"

MANAGED_BY = f"{_SNAPSHOT}/managed-by"
"""A label on a content: the node whose driver half serves it."""

DOMAIN = "snapbridge.dev"
INTENT = f"{DOMAIN}/intent"
"""On a content: the open note, as JSON. Ours alone; upstream's mark stands beside it."""
ABANDON = f"{DOMAIN}/abandon"
""""true" on a VolumeSnapshot: its owner lets it go though a create under way cannot be settled."""
ASKED_BY = f"{DOMAIN}/asked-by"
WHY = f"{DOMAIN}/why"
PROVISIONING = f"{DOMAIN}/provisioning"
"""Finalizer of a claim: a volume for it may exist that no PersistentVolume tells of."""
PROVISIONING_BY = f"{DOMAIN}/provisioning-driver"
"""Beside that finalizer: whose driver's plugin was asked. Other drivers' provisioners leave the claim alone."""
PLACES = f"{DOMAIN}/provision-places"
"""Beside that finalizer: the places that the first CreateVolume named, so that every repeat names the same."""
REGISTERED = f"{DOMAIN}/registered-as"
"""On a PersistentVolume and its claim: made by `register`, for this claim and handle."""

PARAMETER_PREFIX = "csi.storage.k8s.io/"
SECRET_PARAMETERS = ("snapshotter-secret", "snapshotter-list-secret")
GROUP_SECRET_PARAMETERS = ("group-snapshotter-secret", "group-snapshotter-get-secret")

STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
STORAGE_PROVISIONER_BETA = "volume.beta.kubernetes.io/storage-provisioner"
CLASS_BETA = "volume.beta.kubernetes.io/storage-class"
MIGRATED_TO = "pv.kubernetes.io/migrated-to"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
VOLUME_DELETION_SECRET_NAME = "volume.kubernetes.io/provisioner-deletion-secret-name"
VOLUME_DELETION_SECRET_NAMESPACE = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
VOLUME_MODIFY_SECRET_NAME = "volume.kubernetes.io/controller-modify-secret-name"
VOLUME_MODIFY_SECRET_NAMESPACE = "volume.kubernetes.io/controller-modify-secret-namespace"
VOLUME_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
CLONE_FINALIZER = "provisioner.storage.kubernetes.io/cloning-protection"
RESTORE_FINALIZER = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"
ALLOW_MODE_CHANGE = f"{_SNAPSHOT}/allow-volume-mode-change"
PROVISIONER_IDENTITY = "storage.kubernetes.io/csiProvisionerIdentity"

SIDECAR_LEASE = "external-snapshotter-leader-"
CONTROLLER_LEASE = "snapshot-controller-leader"
COMPONENT = "snapbridge"


def content_name(uid: str) -> str:
    """The name of a dynamic snapshot's content; deterministic, so that a repeat finds it."""
    return f"snapcontent-{uid}"


METADATA_PARAMETERS = ("volumesnapshot/name", "volumesnapshot/namespace", "volumesnapshotcontent/name")
"""What `extra_metadata` adds to the parameters of a create, after the prefix."""


@dataclasses.dataclass(frozen=True, slots=True)
class Naming:
    """How snapshots are called on the backend, and whether a plugin is told where they come from.

    A cluster must keep its naming: a create that is repeated after a crash finds its snapshot by the name.
    """

    prefix: str = "snapshot"
    uuid_length: int = -1
    """How much of the uid, without its dashes, goes into a name; -1 for all of it as it stands."""
    extra_metadata: bool = False

    def snapshot_name(self, uid: str) -> str:
        """The CSI name of a snapshot.

        >>> Naming("shot", 6).snapshot_name("6f1c-77aa-01")
        'shot-6f1c77'
        """
        return f"{self.prefix}-{uid if self.uuid_length < 0 else uid.replace('-', '')[: self.uuid_length]}"

    def metadata(self, namespace: str, snapshot: str, content: str) -> dict[str, str]:
        """The further parameters of a create; empty unless they are wanted."""
        if not self.extra_metadata:
            return {}
        values = (snapshot, namespace, content)
        return {f"{PARAMETER_PREFIX}{key}": value for key, value in zip(METADATA_PARAMETERS, values, strict=True)}
