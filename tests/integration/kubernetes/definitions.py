"""Puts our definitions of the snapshot kinds into a cluster, once per control plane."""

from __future__ import annotations

import functools

from tests.support import claims
from tests.support.bed import paths
from tests.support.bed.controlplane import ControlPlane


def install(plane: ControlPlane) -> None:
    """Apply the definitions and wait until they are served."""
    _install(plane.url, plane)


@functools.lru_cache(maxsize=8)
def _install(_url: str, plane: ControlPlane) -> None:
    plane.kubectl("apply", "-k", str(paths.REPOSITORY / "configs/kubernetes/crds"))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=50s")
    claims.until_served(plane.admin)
