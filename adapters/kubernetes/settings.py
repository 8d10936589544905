"""Settings of one Kubernetes cluster. Read at the start of every command, so it may import nothing heavy."""

from __future__ import annotations

import pydantic

from adapters.kubernetes.names import Naming

MOST_PREFIX = 91
"""Bytes of a name's prefix: a CSI name has at most 128, a uid with its dash 37."""
MOST_UUID = 32


class Settings(pydantic.BaseModel):
    """How to reach the cluster, and for which drivers this process may act."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)

    kubeconfig: str = ""
    """A kubeconfig file; empty takes $KUBECONFIG or the user's default file."""
    context: str = ""
    """A context of it; empty takes the current one."""
    in_cluster: bool = False
    """Use the service account of the pod that this runs in."""
    service_account_dir: str = "/var/run/secrets/kubernetes.io/serviceaccount"
    """With `in_cluster`: the directory with `token` (read again as it changes) and `ca.crt`."""
    proxy: str = ""
    """An HTTP proxy for the API server. The proxy variables of the environment are not read."""
    connections: int = pydantic.Field(default=64, ge=4, le=1024)
    """Most connections to the API server at once; watches included."""
    api_qps: float = pydantic.Field(default=0.0, ge=0, le=100_000)
    """Most requests per second to the API server, watches apart. 0 leaves that to its priority and fairness."""
    api_burst: int = pydantic.Field(default=0, ge=0, le=100_000)
    """How many requests above `api_qps` may go at once; 0 takes twice `api_qps`."""
    request_timeout_seconds: float = pydantic.Field(default=30.0, gt=0, le=300)
    drivers: list[str] = []
    """Act for these drivers only. Empty: for every driver whose plugin this process holds."""
    lease_check_seconds: float = pydantic.Field(default=10.0, gt=0, le=300)
    """How often to look whether another controller holds a driver's lease."""
    foreign_quiet_seconds: float = pydantic.Field(default=300.0, ge=0, le=86400)
    """For how long a driver is left alone after another controller was seen to create a snapshot for it."""

    snapshot_name_prefix: str = pydantic.Field(default="snapshot", min_length=1, max_length=MOST_PREFIX)
    """What the names of snapshots on the backend begin with. A cluster must keep it."""
    snapshot_name_uuid_length: int = pydantic.Field(default=-1, ge=-1, le=MOST_UUID)
    """How much of a uid, without its dashes, goes into such a name; -1 for all of it as it stands."""
    extra_create_metadata: bool = False
    """Tell the driver the names of a new snapshot's objects, as parameters of the create."""
    forget_field_owners: bool = False
    """With its next write of a VolumeSnapshot or a content have the API server forget which client wrote which field
    (managedFields), unless somebody applies the object: keeping that list is a third of what a write costs it."""

    leader_election: bool = False
    """Act only while the leases that upstream uses are ours. Needed for more than one replica."""
    lease_namespace: str = ""
    """Where the leases are. Empty: $POD_NAMESPACE, or the pod's own namespace, or `default`."""
    lease_labels: dict[str, str] = {}
    """Labels that a lease gets while it is ours. Others that it has stay."""
    identity: str = ""
    """Our name in a lease; a suffix makes it this process's own. Empty: $POD_NAME, or the host's name."""
    lease_seconds: int = pydantic.Field(default=15, ge=1, le=3600)
    """Others may take over when they have seen no renewal for so long."""
    renew_deadline_seconds: float = pydantic.Field(default=10.0, gt=0, le=3600)
    """We stop acting when no renewal of ours has succeeded for so long."""
    retry_seconds: float = pydantic.Field(default=2.0, gt=0, le=3600)
    """How often to renew, or to look whether the lease is free."""

    @property
    def naming(self) -> Naming:
        """How snapshots are named on the backend."""
        return Naming(self.snapshot_name_prefix, self.snapshot_name_uuid_length, self.extra_create_metadata)

    @pydantic.field_validator("snapshot_name_uuid_length")
    @classmethod
    def _tells_apart(cls, length: int) -> int:
        if length == 0:
            raise ValueError("0 digits of a uid cannot tell snapshots apart; give -1 for the whole uid")
        return length

    @pydantic.model_validator(mode="after")
    def _lease_times(self) -> Settings:
        if not self.retry_seconds < self.renew_deadline_seconds < self.lease_seconds:
            raise ValueError("these must grow: retry_seconds, renew_deadline_seconds, lease_seconds")
        return self

    @pydantic.model_validator(mode="after")
    def _one_way_in(self) -> Settings:
        if self.in_cluster and (self.kubeconfig or self.context):
            raise ValueError("in_cluster and kubeconfig (or context) exclude each other; remove one of them")
        return self

    @pydantic.field_validator("drivers")
    @classmethod
    def _driver_names(cls, drivers: list[str]) -> list[str]:
        for name in drivers:
            if not name or len(name) > 63 or name != name.strip():
                raise ValueError(f"{name[:80]!r} is no CSI driver name (1 to 63 characters)")
        if len(set(drivers)) != len(drivers):
            raise ValueError("a driver is named twice")
        return drivers
