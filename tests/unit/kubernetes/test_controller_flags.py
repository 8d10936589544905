"""`snapbridge kubernetes controller` takes every flag of upstream's snapshot-controller."""

from __future__ import annotations

import pytest

from adapters.kubernetes.roles.table import Table
from bridge.model.failure import InvalidError
from bridge.ports.role import RolePlan

UPSTREAM = (
    "--kubeconfig=/etc/kubeconfig",
    "--resync-period=5m",
    "--http-endpoint=:9809",
    "--metrics-path=/figures",
    "--worker-threads=20",
    "--leader-election=true",
    "--leader-election-namespace=kube-system",
    "--leader-election-lease-duration=30s",
    "--leader-election-renew-deadline=20s",
    "--leader-election-retry-period=5s",
    "--kube-api-qps=50",
    "--kube-api-burst=100",
    "--retry-interval-start=500ms",
    "--retry-interval-max=1m",
    "--retry-crd-interval-max=10s",
    "--prevent-volume-mode-conversion=false",
    "--enable-distributed-snapshotting=true",
    "--feature-gates=CSIVolumeGroupSnapshot=true,ReleaseLeaderElectionOnExit=true",
    "--v=5",
)


def test_upstream_s_command_line_is_taken_as_it_is() -> None:
    plan = Table().plan("controller", UPSTREAM)
    assert isinstance(plan, RolePlan)
    assert (plan.http_address, plan.metrics_path, plan.log_level) == (":9809", "/figures", "debug")


def test_version_and_help_are_answers() -> None:
    assert str(Table().plan("controller", ["--version"])).startswith("snapbridge ")
    text = str(Table().plan("controller", ["--help"]))
    assert all(flag.split("=")[0] in text for flag in UPSTREAM)


@pytest.mark.parametrize(
    ("flag", "field", "hint"),
    [
        ("--worker-thread=3", "--worker-thread", "Did you mean --worker-threads?"),
        ("--csi-address=/csi.sock", "--csi-address", "Did you mean --skip-headers?"),
        ("--feature-gates=CSIVolumeGroupSnapshott=true", "--feature-gates", "Did you mean CSIVolumeGroupSnapshot?"),
        ("--resync-period=soon", "--resync-period", "Give a duration such as 15s or 1m30s"),
    ],
)
def test_what_is_refused(flag: str, field: str, hint: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Table().plan("controller", [flag])
    assert (caught.value.field, caught.value.hint) == (field, hint)
