"""Times and durations on the wire."""

from __future__ import annotations

import doctest

import pytest

from bridge.api import times


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(times).failed == 0


@pytest.mark.parametrize("unknown", [0.0, -1.0, 1e18])
def test_unknown_is_null_never_1970(unknown):
    assert times.from_seconds(unknown) is None


@pytest.mark.parametrize("unknown", [None, 0, -5, 1 << 80])
def test_unknown_cut_is_null(unknown):
    assert times.from_ns(unknown) is None


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5s ", "5sx", "٥s", "1e3s", "5d"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="not a duration"):
        times.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("1h1m1s", 3661), ("500ms", 0.5), ("1.5m", 90), ("0s", 0)]
)
def test_durations(text, seconds):
    assert times.parse_duration(text) == seconds
