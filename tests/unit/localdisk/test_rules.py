"""The pure rules of localdisk: capacities, pages, limits of fields, ids, ranges."""

from __future__ import annotations

import contextlib
import itertools

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.localdisk import capacity, failures, metadata, records, snapshots, volumes, wire
from adapters.localdisk.records import Form, Group, Snapshot, Use, Volume

Code = grpc.StatusCode
BIG = 1 << 50


def refusal(call: object) -> grpc.StatusCode:
    assert callable(call)
    with pytest.raises(failures.DriverError) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize(
    ("required", "limit", "smallest", "source", "expected"),
    [
        (0, 0, 1, 0, 1 << 30),
        (0, 8192, 1, 0, 8192),
        (1, 0, 1, 0, 4096),
        (5000, 0, 1, 0, 8192),
        (5000, 8192, 1, 0, 8192),
        (5000, 6000, 1, 0, Code.OUT_OF_RANGE),
        (1, 0, 8 << 20, 0, 8 << 20),
        (1, 4096, 8 << 20, 0, Code.OUT_OF_RANGE),
        (0, 0, 1, 1 << 20, 1 << 20),
        (1 << 20, 0, 1, 1 << 20, 1 << 20),
        ((1 << 20) - 1, 0, 1, 1 << 20, Code.OUT_OF_RANGE),
        (0, 4096, 1, 1 << 20, Code.OUT_OF_RANGE),
        (BIG * 2, 0, 1, 0, Code.OUT_OF_RANGE),
    ],
)
def test_capacity(required: int, limit: int, smallest: int, source: int, expected: int | grpc.StatusCode) -> None:
    def choose() -> int:
        wanted = capacity.Wanted(required, limit)
        return capacity.choose(wanted, smallest_bytes=smallest, source_bytes=source, largest_bytes=BIG)

    assert (choose() if isinstance(expected, int) else refusal(choose)) == expected


@given(st.integers(0, BIG), st.integers(0, BIG), st.integers(0, BIG))
def test_a_chosen_capacity_is_within_what_was_asked(required: int, extra: int, source: int) -> None:
    wanted = capacity.Wanted(required, required + extra if extra else 0)
    with contextlib.suppress(failures.DriverError):
        size = capacity.choose(wanted, smallest_bytes=1, source_bytes=source, largest_bytes=BIG)
        assert wanted.fits(size)
        assert size >= source
        assert size % capacity.ALIGNMENT_BYTES == 0


@pytest.mark.parametrize(("required", "limit"), [(-1, 0), (0, -1), (2, 1)])
def test_a_range_that_cannot_be_is_refused(required: int, limit: int) -> None:
    assert refusal(lambda: capacity.Wanted(required, limit)) is Code.INVALID_ARGUMENT


def volume(number: int) -> Volume:
    return Volume(
        id=records.volume_id(f"v{number}"), name="v", form=Form.RAW, capacity_bytes=1, created_ns=number // 2
    )


@given(st.integers(0, 40), st.integers(1, 9), st.sets(st.integers(0, 39)))
def test_pages_hold_every_entry_once_whatever_goes_meanwhile(count: int, size: int, gone: set[int]) -> None:
    everything = sorted((volume(n) for n in range(count)), key=lambda v: (v.created_ns, v.id))
    staying = {v.id for n, v in enumerate(everything) if n not in gone}
    found: list[str] = []
    token, left = "", everything
    while True:
        page, token = wire.page(left, size, token)
        assert len(page) <= size
        found += [v.id for v in page]
        if not token:
            break
        left = [v for v in everything if v.id in staying]
    assert len(set(found)) == len(found)
    assert staying <= set(found)


@pytest.mark.parametrize("token", ["nonsense", "at-1-vol-0", "at--1-vol-" + "0" * 32, "at-1-disk-" + "0" * 32])
def test_a_strange_token_is_aborted(token: str) -> None:
    assert refusal(lambda: wire.page([volume(1)], 1, token)) is Code.ABORTED


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("a", True), ("ä b\t", True), ("x" * 128, True), ("ä" * 64, True), ("ä" * 65, False), ("", False),
        ("a\0b", False), ("a\x7fb", False), ("a\x9fb", False), ("\U0001f4be", True),
    ],
)  # fmt: skip
def test_names(value: str, good: bool) -> None:
    if good:
        assert wire.text(value, "name") == value
    else:
        assert refusal(lambda: wire.text(value, "name")) is Code.INVALID_ARGUMENT


def test_ids_are_the_same_for_the_same_name_and_never_shared() -> None:
    assert records.volume_id("a") == records.volume_id("a")
    ids = [records.volume_id("a"), records.snapshot_id("a"), records.group_id("a"), records.volume_id("b")]
    ids += [records.member_id("a", "b"), records.member_id("ab", ""), records.snapshot_id("ab")]
    assert len(set(ids)) == len(ids)
    assert all(records.ID_PATTERN.fullmatch(i) for i in ids)


def test_records_survive_their_json() -> None:
    snapshot = Snapshot(
        id="snap", name="n", source_volume_id="v", form=Form.IMAGE, size_bytes=1, created_ns=2, ready_ns=3,
        fs_type="xfs", parameters={"a": "b"}, group_id="g",
    )  # fmt: skip
    group = Group(id="g", name="n", created_ns=1, members=(snapshot, snapshot))
    use = Use(id="u", volume_id="v", path="/a", staging=True, readonly=False, exclusive=True, mount_flags=("ro",))
    assert records.from_json(Volume, records.to_json(volume(1))) == volume(1)
    assert records.from_json(Snapshot, records.to_json(snapshot)) == snapshot
    assert records.from_json(Group, records.to_json(group)) == group
    assert records.from_json(Use, records.to_json(use)) == use


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("2", 2 * 10**9), ("0.5", 5 * 10**8), ("1e3", 10**12)])
def test_upload_seconds(text: str, expected: int) -> None:
    assert snapshots.upload_seconds({"uploadSeconds": text}) == expected


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "100000"])
def test_bad_upload_seconds(text: str) -> None:
    assert refusal(lambda: snapshots.upload_seconds({"uploadSeconds": text})) is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(("text", "mode"), [("0777", 0o777), ("750", 0o750), ("02770", 0o2770)])
def test_root_mode(text: str, mode: int) -> None:
    assert volumes.root_mode({"mode": text}) == mode


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9))))
def test_joined_ranges_cover_the_same_and_do_not_touch(parts: list[tuple[int, int]]) -> None:
    ranges = sorted((begin, begin + size) for begin, size in parts)
    found = list(metadata.joined(ranges))
    covered = {n for begin, end in ranges for n in range(begin, end)}
    assert {n for begin, end in found for n in range(begin, end)} == covered
    assert all(left[1] < right[0] for left, right in itertools.pairwise(found))
