"""Durations and sizes, read strictly."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.model import quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10.0),
        ("0s", 0.0),
        ("5m", 300.0),
        ("1.5h", 5400.0),
        ("1h30m", 5400.0),
        ("2d", 172_800.0),
        ("1d2h3m4s5ms", 93_784.005),
        ("250ms", 0.25),
        ("0.1s", 0.1),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert quantity.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "10", "s", "-1s", "+1s", "1 s", "1S", "1M", "30m1h", "1s1s", "1ms1s", "5min", "1w", "1y", ".5s", "1.s",
     "1e3s", "٣s", "1,5s", "inf", "1_0s", "4000d", "9" * 50 + "s", "1s\n"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|ten years"):
        quantity.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("1B", 1),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("1Ki", 1024),
        ("512MiB", 512 << 20),
        ("10GiB", 10 << 30),
        ("10Gi", 10 << 30),
        ("1.5GiB", 3 << 29),
        ("1TB", 10**12),
        ("2PiB", 2 << 50),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert quantity.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "10", "GiB", "-1GiB", "1 GiB", "1gib", "1G", "1K", "1k", "1kiB", "1EiB", "0.3B", "1.0001KiB", "1e3B", "٣B",
     "Infinity", "1KB", "1_000B", "10000PiB", "9" * 50 + "B", "1B\n"],
)  # fmt: skip
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|bytes|volume"):
        quantity.parse_size(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_and_never_breaks(text: str) -> None:
    for parse in (quantity.parse_duration, quantity.parse_size):
        try:
            assert parse(text) >= 0
        except ValueError:
            continue


@given(st.integers(0, 2**20), st.sampled_from(["B", "KiB", "MiB", "GiB", "Ki", "Mi", "Gi", "kB", "MB", "GB"]))
def test_sizes_are_exact(number: int, unit: str) -> None:
    step = 1024 if "i" in unit else 1000
    power = {"B": 0, "k": 1, "K": 1, "M": 2, "G": 3}[unit[0]]
    assert quantity.parse_size(f"{number}{unit}") == number * step**power


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(quantity).failed == 0
