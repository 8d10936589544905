"""One claim's next step, its request, and what follows from the plugin's answer."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.kubernetes import names
from adapters.kubernetes.decide import class_parameters, provision, verdict
from adapters.kubernetes.decide.provision import LetGo, Make, Options, Outline, Refuse, Rest, Seen, Undo
from adapters.kubernetes.decide.source import FromClaim, FromSnapshot
from adapters.kubernetes.decide.verdict import Refusal, State
from bridge.model.plugin import Capability
from bridge.model.volume import AccessMode, VolumeMode
from tests.unit.kubernetes import provisioned as given

OPTIONS = Options(given.DRIVER)
NOTED = {"metadata__finalizers": [names.PROVISIONING]}
GONE = {"metadata__deletionTimestamp": "2026-11-21T12:00:00Z"}
BOUND = {"spec__volumeName": given.NAME, "status__phase": "Bound"}
LATE = given.klass(volumeBindingMode="WaitForFirstConsumer")
CHOSEN = {"metadata__annotations": {names.STORAGE_PROVISIONER: given.DRIVER, names.SELECTED_NODE: "n1"}}
CAN = frozenset(Capability)


def step(
    klass: given.Object | None = None,
    *,
    volume: given.Object | None = None,
    settled: bool = False,
    **changes: Any,
) -> provision.Step:
    return provision.decide(Seen(given.claim(**changes), klass or given.klass(), volume, settled), OPTIONS)


@pytest.mark.parametrize(
    ("marks", "ours"),
    [
        ({names.STORAGE_PROVISIONER: given.DRIVER}, True),
        ({names.STORAGE_PROVISIONER_BETA: given.DRIVER}, True),
        ({names.MIGRATED_TO: given.DRIVER, names.STORAGE_PROVISIONER: "kubernetes.io/x"}, True),
        ({names.STORAGE_PROVISIONER: "other.example", names.STORAGE_PROVISIONER_BETA: given.DRIVER}, False),
        ({}, False),
    ],
)
def test_a_claim_is_ours_when_the_controller_manager_says_so(marks: dict[str, str], ours: bool) -> None:
    found = step(metadata__annotations=marks)
    assert found == (Make("") if ours else Rest())


@pytest.mark.parametrize(
    ("klass", "changes", "expected"),
    [
        (given.klass(), {}, Make("")),
        (given.klass(), CHOSEN, Make("n1")),
        (LATE, {}, Rest()),
        (LATE, CHOSEN, Make("n1")),
        (given.klass(provisioner="other.example"), {}, Rest()),
        (given.klass(), {"spec__volumeName": "pv-x"}, Rest()),
        (given.klass(), GONE, Rest()),
    ],
)
def test_a_wanted_claim(klass: given.Object, changes: dict[str, Any], expected: provision.Step) -> None:
    assert step(klass, **changes) == expected


def test_a_missing_class_is_waited_for_without_an_event() -> None:
    found = provision.decide(Seen(given.claim()), OPTIONS)
    assert found == Refuse('storageclass.storage.k8s.io "fast" not found', told=False)


@pytest.mark.parametrize(
    ("changes", "settled", "expected"),
    [
        (NOTED, False, Make("")),
        (NOTED, True, Make("")),
        ({**NOTED, **GONE}, False, Undo("")),
        ({**NOTED, **GONE}, True, LetGo()),
        ({**NOTED, **GONE, "metadata__annotations": {names.ABANDON: "true"}}, False, LetGo(unsettled=True)),
        ({**NOTED, "spec__volumeName": "pv-x"}, False, Undo("")),
        ({**NOTED, "spec__volumeName": "pv-x"}, True, LetGo()),
        ({**NOTED, **BOUND}, False, LetGo()),
        ({**NOTED, "metadata__annotations": {}}, False, Make("")),
    ],
)
def test_a_noted_claim_whose_volume_is_not_known(
    changes: dict[str, Any], settled: bool, expected: provision.Step
) -> None:
    assert step(settled=settled, **changes) == expected


@pytest.mark.parametrize(("settled", "expected"), [(False, Make("")), (True, LetGo())])
def test_a_choice_that_was_taken_back_ends_what_was_begun(settled: bool, expected: provision.Step) -> None:
    assert step(LATE, settled=settled, **NOTED) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (NOTED, Rest()),
        ({**NOTED, **BOUND}, LetGo()),
        ({**NOTED, "spec__volumeName": given.NAME}, Rest()),
        ({**NOTED, **GONE}, LetGo()),
        ({**NOTED, "spec__volumeName": "pv-x"}, LetGo()),
        (BOUND, Rest()),
        ({}, Rest()),
    ],
)
def test_a_claim_whose_volume_is_written(changes: dict[str, Any], expected: provision.Step) -> None:
    assert step(volume=given.volume(), **changes) == expected


def test_a_name_that_is_taken_is_told_and_not_used_twice() -> None:
    other = given.volume(spec__claimRef__uid="someone")
    found = step(volume=other)
    assert found == Refuse(f"the PersistentVolume {given.NAME} exists and is another claim's")
    assert step(volume=other, **NOTED, **GONE) == LetGo()


def test_without_its_class_a_volume_that_may_exist_is_not_given_up() -> None:
    found = provision.decide(Seen(given.claim(**NOTED, **GONE)), OPTIONS)
    assert isinstance(found, Refuse)
    assert "create it again" in found.message
    assert names.ABANDON in found.message


OTHER = {"metadata__annotations": {names.STORAGE_PROVISIONER: "other.example"}}
FOREIGN = given.klass(provisioner="other.example")


@pytest.mark.parametrize(
    ("klass", "changes"),
    [
        (FOREIGN, {**NOTED, **OTHER, **GONE}),
        (FOREIGN, {**NOTED, **OTHER}),
        (FOREIGN, {**NOTED, **GONE, "metadata__annotations": {}}),
        (FOREIGN, {**NOTED, **OTHER, "spec__volumeName": "pv-x"}),
        (given.klass(), {**NOTED, **GONE, "metadata__annotations": {names.PROVISIONING_BY: "other.example"}}),
        (given.klass(), {**NOTED, "metadata__annotations": {names.PROVISIONING_BY: "other.example"}}),
    ],
)
@pytest.mark.parametrize("settled", [False, True])
def test_the_note_of_another_drivers_provisioner_is_left_alone(
    klass: given.Object, changes: dict[str, Any], settled: bool
) -> None:
    assert step(klass, settled=settled, **changes) == Rest()
    abandoned = {**changes, "metadata__annotations": {**changes["metadata__annotations"], names.ABANDON: "true"}}
    assert step(klass, settled=settled, **abandoned) == Rest()


def test_a_class_that_was_made_anew_for_another_driver_takes_no_note_off() -> None:
    ours = {"metadata__annotations": {names.PROVISIONING_BY: given.DRIVER}}
    for changes in ({}, GONE, {"spec__volumeName": "pv-x"}):
        assert isinstance(step(FOREIGN, **NOTED, **ours, **changes), Refuse)
        assert step(FOREIGN, settled=True, **NOTED, **ours, **changes) == LetGo()


def test_a_note_says_whose_it_is_and_goes_as_a_whole() -> None:
    claim = given.claim(metadata__finalizers=["theirs"], metadata__annotations={"a": "b"})
    noted = provision.with_note(claim, "csi.example", "[]")
    assert noted["metadata"]["finalizers"] == ["theirs", names.PROVISIONING]
    assert noted["metadata"]["annotations"] == {"a": "b", names.PROVISIONING_BY: "csi.example", names.PLACES: "[]"}
    assert provision.with_note(noted, "csi.example", "")["metadata"]["finalizers"] == ["theirs", names.PROVISIONING]
    assert provision.without_note(noted) == claim


@pytest.mark.parametrize(
    ("options", "uid", "expected"),
    [
        (OPTIONS, given.UID, given.NAME),
        (Options(given.DRIVER, prefix="vol"), given.UID, f"vol-{given.UID}"),
        (Options(given.DRIVER, uuid_length=8), given.UID, "pvc-1b4e28ba"),
        (Options(given.DRIVER, uuid_length=12), given.UID, "pvc-1b4e28ba2fa1"),
        (Options(given.DRIVER, prefix=""), given.UID, Refusal("volume name prefix cannot be of length 0")),
        (OPTIONS, "", Refusal("corrupted PVC object, it is missing UID")),
    ],
)
def test_volume_names(options: Options, uid: str, expected: object) -> None:
    assert provision.volume_name(uid, options) == expected


@pytest.mark.parametrize(
    ("missing", "origin", "attributes", "words"),
    [
        (Capability.CONTROLLER_SERVICE, None, "", "plugin CONTROLLER_SERVICE"),
        (Capability.CREATE_DELETE_VOLUME, None, "", "controller CREATE_DELETE_VOLUME"),
        (Capability.CREATE_DELETE_SNAPSHOT, FromSnapshot("a", "b"), "", "does not support snapshot restore"),
        (Capability.CLONE_VOLUME, FromClaim("a", "b"), "", "does not support clone operations"),
        (Capability.MODIFY_VOLUME, None, "gold", "does not support VolumeAttributesClass"),
        (Capability.CREATE_DELETE_SNAPSHOT, None, "", ""),
        (Capability.CLONE_VOLUME, FromSnapshot("a", "b"), "", ""),
    ],
)
def test_capabilities(missing: Capability, origin: Any, attributes: str, words: str) -> None:
    found = provision.lacking(origin, attributes, CAN - {missing})
    assert (words in found.message and words != "") if found is not None else words == ""


def outline(klass: given.Object | None = None, options: Options = OPTIONS, **changes: Any) -> Outline | Refusal:
    return provision.outline(given.claim(**changes), klass or given.klass(), options, frozenset())


def test_a_plain_request() -> None:
    assert outline() == Outline(
        name=given.NAME,
        required_bytes=1 << 30,
        mode=VolumeMode.FILESYSTEM,
        access_modes=(AccessMode.SINGLE_NODE_WRITER,),
        fs_type="",
        mount_flags=(),
        parameters={},
        secrets={},
    )


def test_a_selector_is_refused() -> None:
    assert outline(spec__selector={"matchLabels": {"a": "b"}}) == Refusal("claim Selector is not supported")


@pytest.mark.parametrize(
    ("mode", "plain", "several"),
    [
        ("ReadWriteOnce", AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_MULTI_WRITER),
        ("ReadWriteOncePod", AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_SINGLE_WRITER),
        ("ReadWriteMany", AccessMode.MULTI_NODE_MULTI_WRITER, AccessMode.MULTI_NODE_MULTI_WRITER),
        ("ReadOnlyMany", AccessMode.MULTI_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY),
    ],
)
def test_access_modes(mode: str, plain: AccessMode, several: AccessMode) -> None:
    assert provision.access_mode(mode, several_writers=False) is plain
    assert provision.access_mode(mode, several_writers=True) is several
    assert isinstance(provision.access_mode("Some", several_writers=False), Refusal)


@pytest.mark.parametrize(
    ("parameters", "default", "expected"),
    [
        ({}, "", ""),
        ({}, "ext4", "ext4"),
        ({"csi.storage.k8s.io/fstype": "xfs"}, "ext4", "xfs"),
        ({"fsType": "xfs"}, "", "xfs"),
        ({"fstype": "xfs", "csi.storage.k8s.io/fstype": "ext4"}, "", "fstype specified in parameters with both"),
    ],
)
def test_file_systems(parameters: dict[str, str], default: str, expected: str) -> None:
    found = class_parameters.fs_type(parameters, default)
    assert found.message.startswith(expected) if isinstance(found, Refusal) else found == expected


def test_a_block_volume_has_no_mount_flags() -> None:
    klass = given.klass(mountOptions=["noatime"])
    plain, block = outline(klass), outline(klass, spec__volumeMode="Block")
    assert isinstance(plain, Outline)
    assert isinstance(block, Outline)
    assert (plain.mount_flags, block.mount_flags, block.mode) == (("noatime",), (), VolumeMode.BLOCK)


def test_parameters_reach_the_driver_without_ours_and_with_names_when_asked() -> None:
    klass = given.klass(parameters={"pool": "p", "csi.storage.k8s.io/fstype": "xfs"})
    found = outline(klass, Options(given.DRIVER, extra_metadata=True))
    assert isinstance(found, Outline)
    assert found.parameters == {
        "pool": "p",
        "csi.storage.k8s.io/pvc/name": "data",
        "csi.storage.k8s.io/pvc/namespace": "apps",
        "csi.storage.k8s.io/pv/name": given.NAME,
    }
    bad = outline(given.klass(parameters={"csi.storage.k8s.io/colour": "red"}))
    assert isinstance(bad, Refusal)
    assert 'unknown parameter key "csi.storage.k8s.io/colour"' in bad.message


PREFIX = "csi.storage.k8s.io/"


def secrets(parameters: dict[str, str], **annotations: str) -> Any:
    claim = given.claim(metadata__annotations=annotations)
    full = {f"{PREFIX}{key}" if "-" in key else key: value for key, value in parameters.items()}
    return class_parameters.secrets(full, volume=given.NAME, claim=claim)


def test_secrets_by_template_with_the_default_for_the_rest() -> None:
    found = secrets(
        {
            "provisioner-secret-name": "${pvc.name}-${pvc.annotations['team']}",
            "provisioner-secret-namespace": "${pvc.namespace}",
            "secret-name": "${pv.name}",
            "secret-namespace": "vault",
        },
        team="blue",
    )
    assert found["provisioner"] == class_parameters.Reference("apps", "data-blue")
    assert set(found) == {"provisioner", "modify", *class_parameters.IN_VOLUME}
    assert all(found[key] == class_parameters.Reference("vault", given.NAME) for key in class_parameters.IN_VOLUME)
    assert secrets({}) == {}
    assert secrets({"csiNodeStageSecretName": "s", "csiNodeStageSecretNamespace": "n"}) == {
        "nodeStageSecretRef": class_parameters.Reference("n", "s")
    }


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"provisioner-secret-name": "s"}, "Both must be specified"),
        ({"provisioner-secret-name": "", "provisioner-secret-namespace": "n"}, "namespace or name is empty"),
        ({"node-stage-secret-name": "s", "node-stage-secret-namespace": "${pvc.name}"}, "invalid tokens"),
        ({"secret-name": "${nothing}", "secret-namespace": "n"}, "invalid tokens"),
        ({"secret-name": "S_", "secret-namespace": "n"}, "is not a valid secret name"),
        (
            {
                "provisioner-secret-name": "s",
                "provisioner-secret-namespace": "n",
                "csiProvisionerSecretName": "t",
                "csiProvisionerSecretNamespace": "n",
            },
            'with both "csi" and',
        ),
    ],
)
def test_wrong_secrets(parameters: dict[str, str], words: str) -> None:
    found = secrets(parameters)
    assert isinstance(found, Refusal)
    assert words in found.message
    assert found.state is State.NO_CHANGE


@pytest.mark.parametrize(
    ("code", "may_reschedule", "expected"),
    [
        ("RESOURCE_EXHAUSTED", True, State.RESCHEDULE),
        ("RESOURCE_EXHAUSTED", False, State.FINISHED),
        ("CANCELLED", True, State.BACKGROUND),
        ("DEADLINE_EXCEEDED", False, State.BACKGROUND),
        ("UNAVAILABLE", False, State.BACKGROUND),
        ("ABORTED", False, State.BACKGROUND),
        ("WRONG_SIZE", False, State.BACKGROUND),
        ("WRONG_SOURCE", False, State.BACKGROUND),
        ("INVALID_ARGUMENT", True, State.FINISHED),
        ("NOT_FOUND", False, State.FINISHED),
        ("INTERNAL", True, State.FINISHED),
        ("OUT_OF_RANGE", False, State.FINISHED),
        ("", False, State.FINISHED),
    ],
)
def test_what_an_error_leaves_behind(code: str, may_reschedule: bool, expected: State) -> None:
    assert verdict.state_after(code, may_reschedule=may_reschedule) is expected


@pytest.mark.parametrize(
    ("code", "tries", "expected"),
    [
        ("NOT_FOUND", 0, True),
        ("RESOURCE_EXHAUSTED", 0, True),
        ("DEADLINE_EXCEEDED", 99, False),
        ("INTERNAL", 0, False),
        ("INTERNAL", 2, False),
        ("INTERNAL", 3, True),
        ("UNKNOWN", 1, False),
        ("ALREADY_EXISTS", 0, False),
        ("ALREADY_EXISTS", 99, False),
    ],
)
def test_when_a_claim_that_nobody_wants_may_go(code: str, tries: int, expected: bool) -> None:
    assert verdict.may_let_go(code, tries) is expected


@pytest.mark.parametrize(
    ("before", "code", "expected"),
    [
        (True, "ALREADY_EXISTS", True),
        (False, "ALREADY_EXISTS", False),
        (True, "DEADLINE_EXCEEDED", False),
        (False, "NOT_FOUND", True),
        (True, "INTERNAL", False),
    ],
)
def test_a_taken_name_proves_nothing_about_an_unanswered_call(before: bool, code: str, expected: bool) -> None:
    assert verdict.is_settled(code, before=before) is expected
