"""The store: what is committed is there after a reopening, and what is damaged is named, not guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.localdisk import layout, records, store
from adapters.localdisk.records import Form, Group, Snapshot, Volume


def frame(folder: Path) -> layout.Layout:
    return layout.Layout(folder)


def opened(folder: Path, steps: store.Steps = store.no_step, *, durable: bool = True) -> store.Store:
    return store.Store(frame(folder), durable=durable, steps=steps)


def volume(name: str = "v", **fields: object) -> Volume:
    whole: dict[str, object] = {"id": records.volume_id(name), "name": name, "form": Form.RAW}
    whole |= {"capacity_bytes": 1, "created_ns": 1} | fields
    return Volume(**whole)  # type: ignore[arg-type]


def test_records_are_there_after_a_reopening(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.volumes.put(volume())
    first.volumes.put(volume(capacity_bytes=2))
    first.volumes.put(volume("gone"))
    first.volumes.remove(records.volume_id("gone"))
    first.volumes.remove("never there")
    assert opened(tmp_path).volumes.all() == [volume(capacity_bytes=2)]


class Stopped(Exception):
    """Stands for a kill at a step."""


@pytest.mark.parametrize("step", ["volume record written", "volume record committed"])
def test_a_write_that_stops_leaves_the_old_or_the_new(tmp_path: Path, step: str) -> None:
    opened(tmp_path).volumes.put(volume())

    def steps(name: str) -> None:
        if name == step:
            raise Stopped

    with pytest.raises(Stopped):
        opened(tmp_path, steps).volumes.put(volume(capacity_bytes=2))
    expected = 1 if step == "volume record written" else 2
    assert opened(tmp_path).volumes.all() == [volume(capacity_bytes=expected)]
    assert [p.name for p in frame(tmp_path).records("volumes").iterdir()] == [f"{volume().id}.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "x"}', '{"form": "cloud"}'])
def test_a_damaged_record_stops_the_driver_and_is_kept(tmp_path: Path, text: str) -> None:
    opened(tmp_path).volumes.put(volume())
    path = frame(tmp_path).records("volumes") / f"{volume().id}.json"
    path.write_text(text)
    with pytest.raises(store.StoreError, match=path.name):
        opened(tmp_path)
    assert path.read_text() == text


def test_a_record_under_another_name_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).volumes.put(volume())
    folder = frame(tmp_path).records("volumes")
    (folder / f"{volume().id}.json").rename(folder / "vol-other.json")
    with pytest.raises(store.StoreError, match="rename it back"):
        opened(tmp_path)


def test_fields_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    opened(tmp_path).volumes.put(volume())
    path = frame(tmp_path).records("volumes") / f"{volume().id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    assert opened(tmp_path).volumes.all() == [volume()]


def member(key: str, created_ns: int) -> Snapshot:
    return Snapshot(
        id=key, name=key, source_volume_id="v", form=Form.RAW, size_bytes=1, created_ns=created_ns, ready_ns=1,
        group_id="g",
    )  # fmt: skip


def test_what_is_being_deleted_is_not_seen(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.volumes.put(volume(deleting=True))
    found.groups.put(Group(id="g", name="g", created_ns=1, members=(member("a", 1),), deleting=True))
    assert found.live_volumes() == []
    assert found.volume(volume().id) is None
    assert found.live_snapshots() == []
    assert found.snapshot("a") is None


def test_members_of_groups_are_snapshots_too_in_the_order_of_their_cuts(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.groups.put(Group(id="g", name="g", created_ns=1, members=(member("b", 5), member("a", 3))))
    found.singles.put(member("c", 4))
    assert [s.id for s in found.live_snapshots()] == ["a", "c", "b"]
    assert found.snapshot("b") == member("b", 5)
