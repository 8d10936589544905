"""The registrar's flags, as node-driver-registrar takes them."""

from __future__ import annotations

import pytest

from adapters.catalog import Catalog
from bridge.model.failure import InvalidError
from bridge.ports.role import RolePlan

PATH = "--kubelet-registration-path=/var/lib/kubelet/plugins/a/csi.sock"


def plan(*words: str) -> RolePlan | str:
    return Catalog().roles("kubernetes").plan("registrar", words)


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ([], ""),
        (["--http-endpoint=:9809"], ":9809"),
        (["--health-port=9809"], ":9809"),
        (["--enable-pprof", "--connection-timeout=15s", "-v=5", "--logtostderr", "--timeout=2s"], ""),
        (["--csi-address=unix:///csi/csi.sock", "--mode=registration"], ""),
    ],
)
def test_a_manifest_of_upstream_is_taken_as_it_is(words: list[str], address: str) -> None:
    found = plan(PATH, *words)
    assert isinstance(found, RolePlan)
    assert found.http_address == address


def test_the_old_probe_succeeds_and_does_nothing() -> None:
    assert isinstance(plan("--mode=kubelet-registration-probe"), str)


@pytest.mark.parametrize(
    ("words", "field", "says"),
    [
        ([], "--kubelet-registration-path", "needed"),
        ([PATH, "--mode=other"], "--mode", "no mode"),
        ([PATH, "--timeout=0"], "--timeout", "Give a duration above 0"),
        ([PATH, "--health-port=1", "--http-endpoint=:2"], "--health-port", "Leave out --health-port"),
        ([PATH, "--csi-address=/a", "--csi-address=/b"], "--kubelet-registration-path", "2 of --csi-address and 1"),
        ([PATH, PATH, "--csi-address=/a,/a"], "--csi-address", "named twice"),
        ([PATH, "--csi-address=tcp://host:1"], "--csi-address", "absolute path"),
        (["--kubelet-registration-path=unix:///a"], "--kubelet-registration-path", "absolute path"),
        ([PATH, "--kubelet-registration-pth=/a"], "--kubelet-registration-pth", "Did you mean"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(words: list[str], field: str, says: str) -> None:
    with pytest.raises(InvalidError) as caught:
        plan(*words)
    assert caught.value.field == field
    assert says in str(caught.value)
