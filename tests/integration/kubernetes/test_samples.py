"""The sample manifests are taken by a real API server as they are."""

from __future__ import annotations

import pytest

from tests.integration.kubernetes import definitions
from tests.support.bed import paths
from tests.support.bed.controlplane import ControlPlane

SAMPLES = sorted((paths.REPOSITORY / "configs/kubernetes/samples").glob("*.yaml"))


def test_there_are_samples() -> None:
    assert {path.stem for path in SAMPLES} >= {"class", "csidriver", "volume", "snapshot", "restore", "pod"}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_sample_is_taken(control_plane: ControlPlane, path: object) -> None:
    definitions.install(control_plane)
    control_plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(path))
