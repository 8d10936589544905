"""`snapbridge kubernetes controller` takes every flag of upstream's snapshot-controller."""

from __future__ import annotations

import pytest

from adapters.kubernetes import flags
from adapters.kubernetes.roles import controller, upstream_flags
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
        ("--worker-threads=0", "--worker-threads", "Give 1 or more"),
        ("--worker-threads=-3", "--worker-threads", "Give 1 or more"),
        ("--retry-interval-start=0", "--retry-interval-start", "Give a duration above 0, such as 1s"),
        ("--retry-interval-max=0s", "--retry-interval-max", "Give a duration above 0, such as 5m"),
        ("--resync-period=soon", "--resync-period", "Give a duration such as 15s or 1m30s"),
    ],
)
def test_what_is_refused(flag: str, field: str, hint: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Table().plan("controller", [flag])
    assert (caught.value.field, caught.value.hint) == (field, hint)


@pytest.mark.parametrize("role", ["all", "sidecar", "provisioner"])
def test_a_plugin_call_needs_time(role: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Table().plan(role, ["--timeout=0"])
    assert caught.value.field == "--timeout"


def test_a_resync_period_of_zero_is_never_and_not_all_the_time() -> None:
    given = flags.parse(controller.FLAGS, ["--resync-period=0"])
    assert upstream_flags.resync_seconds(given) == upstream_flags.NEVER_SECONDS
    assert upstream_flags.resync_seconds(flags.parse(controller.FLAGS, [])) == 900.0


@pytest.mark.parametrize(
    ("words", "field", "text"),
    [
        (["--kube-api-qps=-5"], "--kube-api-qps", "greater than or equal to 0"),
        (["--leader-election-lease-duration=0"], "--leader-election-lease-duration", "greater than or equal to 1"),
        (
            ["--leader-election-lease-duration=5s", "--leader-election-renew-deadline=10s"],
            "",
            "must grow: --leader-election-retry-period, --leader-election-renew-deadline, "
            "--leader-election-lease-duration",
        ),
    ],
)
def test_a_complaint_is_about_the_flag_that_was_given(words: list[str], field: str, text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Table().plan("controller", words)
    assert caught.value.field == field
    assert text in caught.value.message
    assert "pydantic" not in str(caught.value)
