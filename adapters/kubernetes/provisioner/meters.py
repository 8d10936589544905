"""The provisioner's metrics, by upstream's names and labels."""

from __future__ import annotations

from typing import Any

import prometheus_client

from adapters.kubernetes.facts import path

Object = dict[str, Any]


class Meters:
    """Counts what came of claims and volumes."""

    def __init__(self, registry: Any) -> None:
        of_claim, of_volume = ("class", "source"), ("class",)
        claim, volume = "controller_persistentvolumeclaim_provision", "controller_persistentvolume_delete"
        self._made = prometheus_client.Counter(claim, "Volumes provisioned", of_claim, registry=registry)
        self._not_made = prometheus_client.Counter(
            f"{claim}_failed", "Attempts to provision that failed", of_claim, registry=registry
        )
        self._making = prometheus_client.Histogram(
            f"{claim}_duration_seconds", "Seconds of an attempt that succeeded", of_claim, registry=registry
        )
        self._deleted = prometheus_client.Counter(volume, "Volumes deleted", of_volume, registry=registry)
        self._not_deleted = prometheus_client.Counter(
            f"{volume}_failed", "Attempts to delete that failed", of_volume, registry=registry
        )
        self._deleting = prometheus_client.Histogram(
            f"{volume}_duration_seconds", "Seconds of an attempt that succeeded", of_volume, registry=registry
        )

    def made(self, claim: Object, seconds: float) -> None:
        """A PersistentVolume was written."""
        labels = _claim_labels(claim)
        self._made.labels(*labels).inc()
        self._making.labels(*labels).observe(seconds)

    def not_made(self, claim: Object) -> None:
        """An attempt failed."""
        self._not_made.labels(*_claim_labels(claim)).inc()

    def deleted(self, volume: Object, seconds: float) -> None:
        """A volume and its PersistentVolume were deleted."""
        name = str(path(volume, "spec", "storageClassName") or "")
        self._deleted.labels(name).inc()
        self._deleting.labels(name).observe(seconds)

    def not_deleted(self, volume: Object) -> None:
        """An attempt failed."""
        self._not_deleted.labels(str(path(volume, "spec", "storageClassName") or "")).inc()


def _claim_labels(claim: Object) -> tuple[str, str]:
    return (
        str(path(claim, "spec", "storageClassName") or ""),
        str(path(claim, "spec", "dataSource", "kind") or ""),
    )
