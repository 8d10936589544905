"""The committed code in `bridge/pb` is what `proto/` gives, and drift is seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bridge.pb.csi.v1 import csi_pb2
from bridge.pb.pluginregistration.v1 import registration_pb2
from bridge.pb.snapbridge.node.v1 import node_pb2
from tools import make_proto


def test_the_committed_code_is_current() -> None:
    assert make_proto.main(["--check"]) == 0


def test_drift_is_told_by_name(tmp_path: Path) -> None:
    fresh, committed = tmp_path / "fresh", tmp_path / "committed"
    shutil.copytree(make_proto.TARGET / "csi", fresh, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(fresh, committed)
    assert make_proto.drift(fresh, committed) == []
    (committed / "v1" / "csi_pb2.py").write_text("# edited by hand\n")
    (committed / "v1" / "csi_pb2_grpc.py").unlink()
    (committed / "v1" / "stray.py").touch()
    assert make_proto.drift(fresh, committed) == [
        "missing: v1/csi_pb2_grpc.py",
        "left over: v1/stray.py",
        "differs: v1/csi_pb2.py",
    ]


def test_sources_folder_does_not_shadow_proto_plus() -> None:
    assert list(make_proto.SOURCES.rglob("__init__.py")) == []


def test_wire_names() -> None:
    assert registration_pb2.DESCRIPTOR.services_by_name["Registration"].full_name == "pluginregistration.Registration"
    assert node_pb2.DESCRIPTOR.services_by_name["NodeHub"].full_name == "snapbridge.node.v1.NodeHub"
    numbers = {f.name: f.number for f in registration_pb2.PluginInfo.DESCRIPTOR.fields}
    assert numbers == {"type": 1, "name": 2, "endpoint": 3, "supported_versions": 4}


@pytest.mark.parametrize("message", ["CreateSnapshotRequest", "NodeStageVolumeRequest", "GetMetadataDeltaRequest"])
def test_the_secret_mark_is_there_at_run_time(message: str) -> None:
    """Redaction walks the descriptor by this option."""
    field = getattr(csi_pb2, message).DESCRIPTOR.fields_by_name["secrets"]
    assert field.GetOptions().Extensions[csi_pb2.csi_secret] is True


def test_generated_code_asks_for_no_newer_runtime_than_promised() -> None:
    source = (make_proto.TARGET / "csi" / "v1" / "csi_pb2.py").read_text()
    assert "Protobuf Python Version: 6.31.1" in source
