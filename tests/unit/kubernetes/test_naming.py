"""Names on the backend, and the flags that choose them."""

from __future__ import annotations

import pydantic
import pytest

from adapters.kubernetes import flags, names
from adapters.kubernetes.facts import Facts
from adapters.kubernetes.roles import all as all_role
from adapters.kubernetes.roles import sidecar, upstream_flags
from adapters.kubernetes.settings import Settings
from adapters.kubernetes.translate import request
from bridge.model.failure import InvalidError
from tests.unit.kubernetes import objects as o

UID = "6f1c77aa-0000-4444-8888-123456789abc"


@pytest.mark.parametrize(
    ("naming", "name"),
    [
        (names.Naming(), f"snapshot-{UID}"),
        (names.Naming("shot"), f"shot-{UID}"),
        (names.Naming(uuid_length=32), f"snapshot-{UID.replace('-', '')}"),
        (names.Naming(uuid_length=10), "snapshot-6f1c77aa00"),
    ],
)
def test_names_are_made_as_upstream_makes_them(naming: names.Naming, name: str) -> None:
    assert naming.snapshot_name(UID) == name


def test_both_halves_in_one_process_name_and_tell_alike() -> None:
    naming = names.Naming("shot", extra_metadata=True)
    facts = Facts(uid=o.UID, snapshot=o.snapshot(), claim=o.claim(), volume=o.volume(), class_name="plain",
                  klass=o.klass(parameters={"type": "fast"}), naming=naming)  # fmt: skip
    found = request("c", facts)
    assert found.snapshot_name == f"shot-{o.UID}"
    assert found.parameters == {
        "type": "fast",
        "csi.storage.k8s.io/volumesnapshot/name": "one",
        "csi.storage.k8s.io/volumesnapshot/namespace": "apps",
        "csi.storage.k8s.io/volumesnapshotcontent/name": names.content_name(o.UID),
    }


@pytest.mark.parametrize("known", [sidecar.FLAGS, all_role.FLAGS])
def test_the_flags_become_settings(known: tuple[flags.Flag, ...]) -> None:
    given = flags.parse(
        known, ["--snapshot-name-prefix=shot", "--snapshot-name-uuid-length", "8", "--extra-create-metadata"]
    )
    settings = upstream_flags.settings(given, **upstream_flags.naming(given))
    assert settings.naming == names.Naming("shot", 8, extra_metadata=True)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--snapshot-name-prefix="], "--snapshot-name-prefix"),
        (["--snapshot-name-prefix", "x" * 92], "--snapshot-name-prefix"),
        (["--snapshot-name-uuid-length=0"], "--snapshot-name-uuid-length"),
        (["--snapshot-name-uuid-length=33"], "--snapshot-name-uuid-length"),
        (["--snapshot-name-uuid-length=-2"], "--snapshot-name-uuid-length"),
        (["--groupsnapshot-name-uuid-length=0"], "--groupsnapshot-name-uuid-length"),
        (["--node-deployment", "--leader-election"], "--leader-election"),
        (["--node-deployment"], "--node-deployment"),
        (["--feature-gates=Nonsense=true"], "--feature-gates"),
    ],
)
def test_flags_that_cannot_work_are_refused_by_name(
    words: list[str], flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    with pytest.raises(InvalidError) as refused:
        sidecar.plan(flags.parse(sidecar.FLAGS, words))
    assert refused.value.field == flag
    assert refused.value.hint


@pytest.mark.parametrize(
    "fields", [{"snapshot_name_prefix": ""}, {"snapshot_name_uuid_length": 0}, {"snapshot_name_uuid_length": 33}]
)
def test_settings_refuse_names_that_cannot_tell_snapshots_apart(fields: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Settings.model_validate(fields)


def test_the_flags_of_upstreams_sidecar_are_all_taken() -> None:
    known = {flag.name for flag in sidecar.FLAGS}
    assert known >= {
        "csi-address", "timeout", "worker-threads", "snapshot-name-prefix", "snapshot-name-uuid-length",
        "groupsnapshot-name-prefix", "groupsnapshot-name-uuid-length", "extra-create-metadata", "node-deployment",
        "kube-api-qps", "kube-api-burst", "resync-period", "retry-interval-start", "retry-interval-max",
        "leader-election", "leader-election-namespace", "leader-election-lease-duration",
        "leader-election-renew-deadline", "leader-election-retry-period", "http-endpoint", "metrics-path",
        "feature-gates", "kubeconfig", "version", "v",
    }  # fmt: skip
