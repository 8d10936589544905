"""Samples in configs/ are accepted; files in configs/invalid/ are refused, with the words of their first line."""

from __future__ import annotations

from pathlib import Path

import jsonschema_rs
import pytest

from adapters.catalog import Catalog
from bridge.app import config, config_yaml
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


@pytest.mark.parametrize("path", SAMPLES, ids=names)
def test_a_sample_fits_the_published_schema(path: Path) -> None:
    schema = config.json_schema(Catalog().sections())
    assert jsonschema_rs.meta.is_valid(schema)
    data = config_yaml.parse(path.read_text(), path.name).data
    assert [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(data)] == []


def test_the_published_schema_refuses_most_of_what_is_invalid() -> None:
    validator = jsonschema_rs.validator_for(config.json_schema(Catalog().sections()))
    passed = set()
    for path in INVALID:
        try:
            data = config_yaml.parse(path.read_text(), path.name).data
        except ConfigError:
            continue
        if validator.is_valid(data):
            passed.add(path.stem)
    # What a schema cannot say: rules between keys, and forms of names and paths.
    assert passed <= {
        "bad-name",
        "duplicate-cluster",
        "duplicate-volume",
        "half-tls",
        "hub-plaintext-abroad",
        "hub-without-authority",
        "open-door",
        "plain-secret",
        "relative-socket",
        "two-tokens",
    }


@pytest.mark.parametrize("path", INVALID, ids=names)
def test_an_invalid_file_is_refused_with_place_and_remedy(path: Path) -> None:
    wanted = path.read_text().splitlines()[0].removeprefix("# expect: ")
    assert wanted != path.read_text().splitlines()[0], "the first line must say what is expected"
    with pytest.raises(ConfigError) as refused:
        config.load([str(path)], Catalog().sections())
    assert wanted in str(refused.value)
    assert len(refused.value.problems) == 1, "one mistake must give one message"
    assert refused.value.problems[0].place.file == str(path)
