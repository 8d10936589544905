"""--feature-gates as upstream's programs read it."""

from __future__ import annotations

import pytest

from adapters.kubernetes import flags
from adapters.kubernetes.roles import gates
from bridge.model.failure import InvalidError


def read(*words: str) -> dict[str, bool]:
    return dict(gates.read(flags.parse(gates.FLAGS, words)))


def test_upstream_s_defaults() -> None:
    assert read() == {"CSIVolumeGroupSnapshot": True, "ReleaseLeaderElectionOnExit": False}


def test_several_in_one_flag_and_in_two() -> None:
    wanted = {"CSIVolumeGroupSnapshot": False, "ReleaseLeaderElectionOnExit": True}
    assert read("--feature-gates=CSIVolumeGroupSnapshot=false,ReleaseLeaderElectionOnExit=True") == wanted
    first, second = "CSIVolumeGroupSnapshot=false", "ReleaseLeaderElectionOnExit=true"
    assert read("--feature-gates", first, "--feature-gates", second) == wanted


def test_what_every_program_of_upstream_knows_is_taken_and_changes_nothing() -> None:
    assert read("--feature-gates=AllAlpha=true,AllBeta=false") == read()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("CSIVolumeGroupSnapshots=true", "Did you mean CSIVolumeGroupSnapshot?"),
        ("Zebra=true", "Known gates: CSIVolumeGroupSnapshot, ReleaseLeaderElectionOnExit"),
        ("CSIVolumeGroupSnapshot", "Write CSIVolumeGroupSnapshot=true"),
        ("AllAlpha=perhaps", "Write AllAlpha=true"),
        ("CSIVolumeGroupSnapshot=maybe", "Write CSIVolumeGroupSnapshot=true"),
    ],
)
def test_what_is_refused(text: str, hint: str) -> None:
    with pytest.raises(InvalidError) as caught:
        read(f"--feature-gates={text}")
    assert (caught.value.field, caught.value.hint) == ("--feature-gates", hint)
