"""Ages, sizes and durations."""

from __future__ import annotations

import datetime
import doctest

import pytest

from bridge.cli import figures

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(figures).failed == 0


@pytest.mark.parametrize("text", [None, "", "yesterday"])
def test_an_unknown_age(text):
    assert figures.age(text, NOW) == "unknown"


def test_a_clock_that_runs_behind_gives_no_negative_age():
    assert figures.age("2026-01-01T00:00:09.123456789Z", NOW) == "0s"


@pytest.mark.parametrize("text", ["", "Gi", "-1Gi", "1.5Gi", "1Qi", "1 Gi x", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="not a size"):
        figures.parse_size(text)


@pytest.mark.parametrize(
    ("text", "value"), [("10Gi", 10 << 30), ("10GiB", 10 << 30), ("5M", 5_000_000), ("7", 7), ("1K", 1000)]
)
def test_sizes(text, value):
    assert figures.parse_size(text) == value


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 s", "5sx"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="not a duration"):
        figures.parse_duration(text)
