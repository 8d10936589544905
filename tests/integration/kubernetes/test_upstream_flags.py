"""Every flag that upstream's programs know is taken by the role in their place, whatever release is built here."""

from __future__ import annotations

import re
import subprocess
from types import ModuleType

import pytest

from adapters.kubernetes import flags
from adapters.kubernetes.roles import all as merged
from adapters.kubernetes.roles import controller, sidecar
from tests.support.bed import build

VALUES = {"": "true", "int": "3", "float": "5", "duration": "15s"}
"""A value by the word that Go's help shows for it; the rest are texts."""
OF_NAMES = {"feature-gates": "AllAlpha=true,AllBeta=false,CSIVolumeGroupSnapshot=true", "v": "4",
            "leader-election-labels": "team:storage,tier:one", "http-endpoint": ":8080", "metrics-address": ":8080",
            "log-json-info-buffer-size": "4Ki", "vmodule": "main=5"}  # fmt: skip


@pytest.mark.usefixtures("upstream_pair")
@pytest.mark.parametrize("program", ["snapshot-controller", "csi-snapshotter"])
def test_each_flag_that_the_program_itself_names_is_taken(program: str) -> None:
    roles: tuple[ModuleType, ...] = (controller, merged) if program == "snapshot-controller" else (sidecar, merged)
    done = subprocess.run([build.binary(program), "--help"], capture_output=True, text=True, timeout=60, check=False)
    named = re.findall(r"^  -(\S+)(?: (\S+))?", done.stderr, re.MULTILINE)
    assert len(named) > 20, done.stderr
    for role in roles:
        for name, kind in named:
            value = OF_NAMES.get(name) or VALUES.get(kind, "text")
            given = flags.parse(role.FLAGS, [f"--{name}={value}"])
            assert name in given.named
