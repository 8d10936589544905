"""What callers may send: bodies and queries, strict, unknown keys refused. Answers are in documents."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from bridge.api import fields

DEFAULT_NAMESPACE = "default"


class Body(BaseModel):
    """A JSON body: camelCase keys, no conversion of types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel)


class Query(BaseModel):
    """The query of a URL: snake_case keys, as the paging words of the field are."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NoQuery(Query):
    """No key is known."""


class SecretsBody(Body):
    """References to CSI secrets, never values: `env:NAME`, `file:PATH`, `k8s:NAMESPACE/NAME`, `nomadVar:…`."""

    create: fields.SecretText = ""
    delete: fields.SecretText = ""
    inspect: fields.SecretText = ""


_GIVEN = {"minLength": 1}
_NOT_GIVEN = {"maxLength": 0}
_CUT_OR_ADOPT: dict[str, Any] = {
    "oneOf": [
        {"required": ["volume"], "properties": {"volume": _GIVEN, "adoptHandle": _NOT_GIVEN}},
        {"required": ["adoptHandle", "driver"], "properties": {"adoptHandle": _GIVEN, "driver": _GIVEN}},
    ]
}


class SnapshotBody(Body):
    """A snapshot to cut (`volume`), or one to take over (`adoptHandle` and `driver`)."""

    model_config = ConfigDict(json_schema_extra=_CUT_OR_ADOPT)

    name: fields.RequiredName
    cluster: fields.Name = Field("", description="May be left out where only one cluster is configured.")
    namespace: fields.Name = DEFAULT_NAMESPACE
    volume: fields.VolumeName = Field("", description="To cut; with `adoptHandle` the one that it was cut from.")
    adopt_handle: fields.Text = Field("", description="The CSI snapshot_id of a snapshot that exists.")
    driver: fields.Name = ""
    deletion_policy: fields.Policy = "Delete"
    parameters: fields.TextMap = {}
    secrets: SecretsBody = SecretsBody()
    why: fields.Text = ""
    labels: fields.TextMap = {}
    pin: bool = Field(False, description="Pin it from the first moment; `why` is the reason.")


_NAMED_OR_USED: dict[str, Any] = {
    "oneOf": [
        {"required": ["volumes"], "properties": {"volumes": {"minItems": 1}, "usedBy": _NOT_GIVEN}},
        {"required": ["usedBy"], "properties": {"usedBy": _GIVEN, "volumes": {"maxItems": 0}}},
    ]
}


class GroupBody(Body):
    """Volumes to be cut together: by their names (`volumes`), or all that somebody uses now (`usedBy`)."""

    model_config = ConfigDict(json_schema_extra=_NAMED_OR_USED)

    name: fields.RequiredName
    cluster: fields.Name = Field("", description="May be left out where only one cluster is configured.")
    namespace: fields.Name = DEFAULT_NAMESPACE
    volumes: list[fields.RequiredVolumeName] = Field([], max_length=256, json_schema_extra={"uniqueItems": True})
    used_by: fields.Selector = Field("", description="Who uses the volumes, like job=web: key=value,key=value.")
    deletion_policy: fields.Policy = "Delete"
    max_skew: fields.OptionalWait = Field(
        "", description="Cut further apart than this, the group fails. Empty: any distance will do."
    )
    parameters: fields.TextMap = {}
    why: fields.Text = ""
    labels: fields.TextMap = {}


class GroupQuery(Query):
    """Filters of the group list."""

    cluster: fields.Name = ""
    namespace: fields.Name = ""


class NewVolumeBody(Body):
    """A new volume. What is left out is taken over from its source."""

    name: fields.RequiredName
    namespace: fields.Name = Field("", description="Empty: the source's own.")
    capacity_bytes: fields.Capacity = Field(0, description="0: as large as the source.")
    parameters: fields.TextMap = Field({}, description="For the driver; laid over those of the source.")
    access_modes: list[fields.AccessModeName] = Field([], max_length=7)
    mode: fields.VolumeModeName = Field("", description="A mounted file system, or a raw block device.")
    topology: list[fields.TextMap] = Field(
        [], max_length=16, description="Places as labels; it must be reachable from one of them."
    )
    secret: fields.SecretText = Field("", description="A reference, never a value.")


class RestoreBody(NewVolumeBody):
    """A new volume from a ready snapshot."""


class CloneBody(NewVolumeBody):
    """A new volume from one that exists, by a driver that can clone."""

    cluster: fields.Name = Field("", description="May be left out where only one cluster is configured.")
    source_namespace: fields.Name = DEFAULT_NAMESPACE
    volume: fields.RequiredVolumeName = Field(description="The source.")


class CreateQuery(Query):
    """How long to hold the answer back."""

    wait: fields.Wait = Field(
        "0s",
        description="Answer when the snapshot is ready, or with a problem: 424 it failed, 504 not yet (ask again "
        "with the same Idempotency-Key). More than 10m is taken as 10m.",
    )


class PinBody(Body):
    """Keep a snapshot: nobody can delete it until it is unpinned."""

    why: fields.Text = Field("", description="A reason for people; shown to who wants to delete it.")


class PolicyBody(Body):
    """What deleting the snapshot is to mean."""

    deletion_policy: fields.Policy


class RevertBody(Body):
    """A revert in place: the snapshot's data under the volume's own name. The old volume is kept."""

    volume: fields.VolumeName = Field("", description="Only where the snapshot does not name its volume.")
    also: list[fields.RequiredName] = Field(
        [], max_length=32, description="Uids of further snapshots, of other volumes that go back together with it."
    )
    workload: fields.Text = Field("", description="Who uses the volume; only where it holds no claim now.")
    version: fields.Text = Field("", description="The workload's version to start afterwards; empty: as it was.")
    dry_run: bool = Field(False, description="Answer with the plan and change nothing.")


class AcknowledgeBody(Body):
    """What becomes of the volumes that a revert has kept."""

    delete: bool = Field(False, description="Delete them; else they stay registered, and are yours.")


class SnapshotQuery(Query):
    """Filters and paging of the snapshot list; an empty one is no condition."""

    cluster: fields.Name = ""
    namespace: fields.Name = ""
    volume: fields.VolumeName = ""
    driver: fields.Name = ""
    state: list[fields.State] = Field([], description="May be given several times.")
    selector: fields.Selector = Field("", description="Labels: key=value,key=value.")
    used_by: fields.Selector = Field(
        "",
        description="Who had the volume when the snapshot was asked for: name=value,name=value. The names are the "
        "orchestrator's own (on Nomad job, group, allocation, node); `*` at the end of a value stands for any rest.",
    )
    prefix: fields.Name = Field("", description="The start of the uid.")
    per_page: fields.PerPage = 100
    next_token: fields.Token = Field("", description="Of the last page.")


class ForeignQuery(Query):
    """Paging of what a plugin holds."""

    per_page: fields.PerPage = 100
    next_token: fields.PluginToken = Field("", description="Of the last page; it holds the plugin's own.")


class DeleteQuery(Query):
    """How to delete."""

    abandon: fields.Flag = Field(
        False, description="Release a snapshot whose open create cannot be settled; an orphan is put on record."
    )


class VolumeQuery(Query):
    """Filters of the volume list."""

    cluster: fields.Name = ""
    namespace: fields.Name = ""


class OperationsQuery(Query):
    """Filters of the operation list."""

    running: fields.Flag = False
    per_page: fields.PerPage = 100


class WaitQuery(Query):
    """A blocking query: answer when the version is another than `index`, or when `wait` is over."""

    wait: fields.Wait = Field("0s", description="More than 10m is taken as 10m.")
    index: fields.Text = Field("", description="The `version` of the last answer.")
