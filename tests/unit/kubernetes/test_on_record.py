"""Which handles a cluster's objects name: those are never shown as foreign."""

from __future__ import annotations

from adapters.kubernetes import names, on_record

DRIVER = "d.example"


def content(driver: str = DRIVER, notes: dict | None = None, status: dict | None = None, **source: object) -> dict:
    found = {"metadata": {"name": "c", "annotations": notes or {}}, "spec": {"driver": driver, "source": source}}
    return {**found, "status": status} if status is not None else found


def test_handles_in_wishes_and_in_statuses_of_this_driver_only() -> None:
    contents = [
        content(snapshotHandle="wished"),
        content(volumeHandle="v1", status={"snapshotHandle": "cut", "readyToUse": True}),
        content(volumeHandle="v2", status={"snapshotHandle": "not ready", "readyToUse": False}),
        content(driver="other", snapshotHandle="another's"),
    ]
    group = {
        "spec": {"driver": DRIVER, "source": {"groupSnapshotHandles": {"volumeSnapshotHandles": ["m1"]}}},
        "status": {
            "volumeGroupSnapshotHandle": "g",
            "volumeSnapshotInfoList": [{"snapshotHandle": "m2"}, {"volumeHandle": "v"}],
        },
    }  # fmt: skip
    found = on_record.of(DRIVER, contents, [group])
    assert found.handles == {"wished", "cut", "not ready", "m1", "m2"}
    assert found.open_sources == frozenset()


def test_volumes_with_a_create_under_way() -> None:
    contents = [
        content(volumeHandle="v1", notes={names.BEING_CREATED: "yes"}),
        content(volumeHandle="v2", notes={names.BEING_CREATED: "yes"}, status={"snapshotHandle": "s"}),
        content(driver="other", volumeHandle="v3", notes={names.BEING_CREATED: "yes"}),
    ]
    groups = [
        {"spec": {"driver": DRIVER, "source": {"volumeHandles": ["v8", "v9"]}}},
        {"spec": {"driver": "other", "source": {"volumeHandles": ["v7"]}}},
    ]
    assert on_record.of(DRIVER, contents, groups).open_sources == {"v1", "v8", "v9"}
