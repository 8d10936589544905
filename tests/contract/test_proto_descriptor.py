"""Our `csi.proto` says the same as the published CSI 1.13.0 interface, field by field.

Both files are compiled at test time in the generator's own environment and compared as plain data; nothing of the
published file is kept here. It must not load both into one protobuf pool: they share their full names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import descriptor_pb2, unknown_fields

from tests.support.bed import build
from tools import make_proto

PROTO = Path(__file__).resolve().parents[2] / "proto"
CSI_SECRET = 1059


def compiled(include: Path, source: Path, output: Path, package: str) -> descriptor_pb2.FileDescriptorProto:
    make_proto.compile_descriptor(include, source, output)
    files = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file
    (found,) = [f for f in files if f.package == package]
    return found


def option_numbers(options: Any) -> list[int]:
    """Numbers of the custom options that are set: csi_secret and the alpha marks are booleans.

    Whether protobuf knows them depends on whether some other test has imported `csi_pb2` before.
    """
    known = [field.number for field, value in options.ListFields() if field.is_extension and value is True]
    unknown = cast(Any, unknown_fields.UnknownFieldSet(options)) if options.ByteSize() else []
    return sorted(known + [u.field_number for u in unknown if u.data == 1])


def facts_of_enum(path: str, enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[tuple[str, Any]]:
    yield f"enum {path}", option_numbers(enum.options)
    for value in enum.value:
        yield f"value {path}.{value.name}", (value.number, option_numbers(value.options))


def facts_of_message(path: str, message: descriptor_pb2.DescriptorProto) -> Iterator[tuple[str, Any]]:
    yield f"message {path}", (message.options.map_entry, option_numbers(message.options))
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
        secret = option_numbers(field.options)
        yield (
            f"field {path}.{field.name}",
            (field.number, field.type, field.label, field.type_name, oneof, field.proto3_optional, secret),
        )
    for enum in message.enum_type:
        yield from facts_of_enum(f"{path}.{enum.name}", enum)
    for nested in message.nested_type:
        yield from facts_of_message(f"{path}.{nested.name}", nested)


def facts_of_service(service: descriptor_pb2.ServiceDescriptorProto) -> Iterator[tuple[str, Any]]:
    yield f"service {service.name}", option_numbers(service.options)
    for method in service.method:
        yield (
            f"method {service.name}.{method.name}",
            (
                method.input_type,
                method.output_type,
                method.client_streaming,
                method.server_streaming,
                option_numbers(method.options),
            ),
        )


def facts(file: descriptor_pb2.FileDescriptorProto) -> dict[str, Any]:
    found: dict[str, Any] = {"package": file.package, "syntax": file.syntax}
    for extension in file.extension:
        found[f"option {extension.extendee}.{extension.name}"] = (extension.number, extension.type, extension.label)
    for enum in file.enum_type:
        found.update(facts_of_enum(enum.name, enum))
    for message in file.message_type:
        found.update(facts_of_message(message.name, message))
    for service in file.service:
        found.update(facts_of_service(service))
    return found


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("ours") / "set.binpb"
    return facts(compiled(PROTO, PROTO / "csi" / "v1" / "csi.proto", output, "csi.v1"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    source = build.csi_spec_proto()
    output = tmp_path_factory.mktemp("published") / "set.binpb"
    return facts(compiled(source.parent, source, output, "csi.v1"))


def test_every_published_fact_is_ours(ours: dict[str, Any], published: dict[str, Any]) -> None:
    assert {k: ours.get(k) for k in published} == published


def test_we_add_nothing(ours: dict[str, Any], published: dict[str, Any]) -> None:
    assert ours.keys() - published.keys() == set()


def test_the_comparison_sees_the_parts_that_matter(published: dict[str, Any]) -> None:
    """A comparison of two empty sets would pass as well."""
    assert len([k for k in published if k.startswith("service ")]) == 5
    assert len([k for k in published if k.startswith("method ")]) == 36
    assert published["field Snapshot.accessible_topology"][0] == 7
    assert published["field CreateSnapshotRequest.secrets"][-1] == [CSI_SECRET]
    assert published["method SnapshotMetadata.GetMetadataDelta"][3] is True
    assert published["field VolumeContentSource.snapshot"][4] == "type"


def test_the_comparison_sees_a_changed_number(tmp_path: Path, published: dict[str, Any]) -> None:
    source = (PROTO / "csi" / "v1" / "csi.proto").read_text()
    changed = source.replace("bool ready_to_use = 5;", "bool ready_to_use = 6;").replace(
        "string group_snapshot_id = 6;", "string group_snapshot_id = 5;", 1
    )
    assert changed != source
    (tmp_path / "csi.proto").write_text(changed)
    broken = facts(compiled(tmp_path, tmp_path / "csi.proto", tmp_path / "set.binpb", "csi.v1"))
    assert {k for k in published if broken.get(k) != published[k]} == {
        "field Snapshot.ready_to_use",
        "field Snapshot.group_snapshot_id",
    }


def test_no_sentence_of_the_published_remarks_is_ours() -> None:
    def sentences(path: Path) -> set[str]:
        lines = [line.strip() for line in path.read_text().splitlines()]
        remarks = " ".join(line.lstrip("/ ") if line.startswith("//") else "\0" for line in lines)
        parts = remarks.replace("\0", ".").split(".")
        return {" ".join(p.split()).lower() for p in parts if len(p.split()) >= 4}

    shared = sentences(PROTO / "csi" / "v1" / "csi.proto") & sentences(build.csi_spec_proto())
    assert shared == set()
