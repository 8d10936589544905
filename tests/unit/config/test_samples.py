"""Samples in configs/ are accepted; files in configs/invalid/ are refused, with the words of their first line."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.catalog import Catalog
from bridge.app import config
from bridge.app.config_problem import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"
SAMPLES = sorted(CONFIGS.glob("*.yaml"))
INVALID = sorted((CONFIGS / "invalid").glob("*.yaml"))


def names(path: Path) -> str:
    return path.stem


def test_there_is_a_sample_for_each_kind_and_enough_that_must_be_refused() -> None:
    kinds = {c.kind for path in SAMPLES for c in config.load([str(path)], Catalog().sections()).clusters}
    assert kinds == set(Catalog().sections())
    assert {path.stem for path in SAMPLES} >= {"standalone", "kubernetes", "nomad", "mixed"}
    assert len(INVALID) >= 15


@pytest.mark.parametrize("path", SAMPLES, ids=names)
def test_a_sample_is_accepted(path: Path) -> None:
    found = config.load([str(path)], Catalog().sections())
    assert found.files == (str(path),)
    assert found.clusters


@pytest.mark.parametrize("path", INVALID, ids=names)
def test_an_invalid_file_is_refused_with_place_and_remedy(path: Path) -> None:
    wanted = path.read_text().splitlines()[0].removeprefix("# expect: ")
    assert wanted != path.read_text().splitlines()[0], "the first line must say what is expected"
    with pytest.raises(ConfigError) as refused:
        config.load([str(path)], Catalog().sections())
    assert wanted in str(refused.value)
    assert len(refused.value.problems) == 1, "one mistake must give one message"
    assert refused.value.problems[0].place.file == str(path)
