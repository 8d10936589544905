"""Joining files, checking sections, defaults from the environment, and the JSON Schema."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import pytest

from bridge.app import config, config_sections
from bridge.app.config_problem import ConfigError
from bridge.csi import methods
from bridge.node.settings import HubSettings, Tls


class Toy(pydantic.BaseModel):
    """A section model as an adapter would bring it."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)

    address: str = "http://default"
    count: int = 1
    inner: dict[str, list[int]] = {}

    @classmethod
    def environment_defaults(cls, environ: Mapping[str, str], given: Mapping[str, object]) -> dict[str, object]:
        return {"address": environ["TOY_ADDR"]} if "TOY_ADDR" in environ else {}


SECTIONS = {"toy": Toy}
MINIMAL = "clusters: [{name: a, kind: toy}]\n"


def load(tmp_path: Path, *texts: str, environ: Mapping[str, str] | None = None) -> config.Config:
    for number, text in enumerate(texts):
        (tmp_path / f"{number:02}.yaml").write_text(text)
    return config.load([str(tmp_path)], SECTIONS, environ)


def problems(tmp_path: Path, *texts: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, *texts)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in refused.value.problems]


def test_a_minimal_file_gets_the_defaults(tmp_path: Path) -> None:
    found = load(tmp_path, MINIMAL)
    assert found.service.ledger_url == "sqlite:////var/lib/snapbridge/ledger.db"
    assert (found.api.host, found.api.settings().local_is_trusted) == ("127.0.0.1", True)
    assert found.hub is None
    assert found.plugins == ()
    assert found.clusters == (config.Cluster("a", "toy", Toy()),)


def test_an_explicit_ledger_wins_over_the_data_directory(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL + "service: {ledger: 'sqlite://'}").service.ledger_url == "sqlite://"


def test_units_are_read(tmp_path: Path) -> None:
    text = MINIMAL + "csi: {connect_timeout: 1m30s, timeouts: {CreateSnapshot: 250ms}}\napi: {body_limit: 2MiB}\n"
    found = load(tmp_path, text)
    assert found.csi.connect_timeout == 90.0
    assert found.api.settings().body_limit_bytes == 2 << 20
    deadlines = found.csi.settings().calls.deadlines
    assert deadlines.seconds("CreateSnapshot") == 0.25
    assert deadlines.seconds("DeleteSnapshot") == 120.0


def test_a_directory_is_one_document_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / ".hidden.yaml").write_text("nonsense: 1")
    (tmp_path / "notes.txt").write_text("nonsense: 1")
    found = load(
        tmp_path,
        "service: {workers: 3}\nclusters: [{name: a, kind: toy}]\nplugins: [{name: p, socket: /p}]\n",
        "service:\n  log_level: debug\nclusters: [{name: b, kind: toy}]\nplugins: [{name: q, socket: /q}]\n",
    )
    assert (found.service.workers, found.service.log_level) == (3, "debug")
    assert [c.name for c in found.clusters] == ["a", "b"]
    assert [p.name for p in found.plugins] == ["p", "q"]
    assert [Path(f).name for f in found.files] == ["00.yaml", "01.yaml"]


def test_a_pipe_or_a_dangling_link_in_a_directory_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe\.yaml: is not a regular file"):
        config.read_document([str(tmp_path)])
    (tmp_path / "pipe.yaml").unlink()
    (tmp_path / "link.yaml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"link\.yaml: cannot be read: No such file"):
        config.read_document([str(tmp_path)])


def test_of_a_file_without_end_only_the_beginning_is_read() -> None:
    with pytest.raises(ConfigError, match="is larger than 4 MiB"):
        config.read_document(["/dev/zero"])


def test_a_key_in_two_files_is_refused_with_both_places(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, MINIMAL + "service:\n  workers: 3\n", "service:\n  workers: 3\n")
    assert problem == f"01.yaml:2: service.workers: is given in {tmp_path}/00.yaml:3 too (keep one)"


def test_a_problem_in_a_joined_list_names_its_own_file_and_line(tmp_path: Path) -> None:
    second = "# a comment\nclusters:\n  - name: b\n    kind: toy\n    inner:\n      x: [1, '2']\n"
    (problem,) = problems(tmp_path, MINIMAL, second)
    assert problem == "01.yaml:6: clusters[1].inner.x[1]: is text; want a whole number"


def test_every_problem_of_every_section_is_told(tmp_path: Path) -> None:
    text = (
        "service: {wrkers: 3, log_level: loud}\n"
        "api: {port: '1', host: 0.0.0.0}\n"
        "clusters:\n"
        "  - {name: a, kind: toy, adress: x}\n"
        "  - {name: A, kind: toy}\n"
        "  - {kind: toy}\n"
        "  - text\n"
        "  - {name: c, kind: tay}\n"
        "plugins: [{name: p}]\n"
        "hubb: {}\n"
    )
    found = problems(tmp_path, text)
    for words in (
        "00.yaml:1: service.wrkers: is an unknown key (did you mean workers?)",
        "00.yaml:1: service.log_level: must be one of debug, info, warning, error",
        "00.yaml:2: api.port: is text; want a whole number",
        "00.yaml:4: clusters[0].adress: is an unknown key (did you mean address?)",
        "00.yaml:5: clusters[1].name: want 1 to 63 lower-case letters",
        "00.yaml:6: clusters[2].name: is missing",
        "00.yaml:7: clusters[3]: must be a mapping",
        "00.yaml:8: clusters[4].kind: is 'tay', an unknown kind (did you mean toy?)",
        "00.yaml:9: plugins[0].socket: is missing",
        "00.yaml:10: hubb: is an unknown section (did you mean hub?)",
    ):
        assert any(problem.startswith(words) for problem in found), (words, found)
    assert len(found) == 10


@pytest.mark.parametrize(
    "door",
    [
        "host: 0.0.0.0",
        "host: '::'",
        "host: 10.1.2.3",
        "host: example.org",
        "host: 0.0.0.0\n  tls_cert_file: /c\n  tls_key_file: /k",
        "host: ''",
    ],
)
def test_an_open_door_is_refused(tmp_path: Path, door: str) -> None:
    (problem,) = problems(tmp_path, MINIMAL + f"api:\n  {door}\n")
    assert problem.startswith("00.yaml:3: api.host: ")


@pytest.mark.parametrize(
    "door",
    [
        "host: 127.0.0.1",
        "host: '::1'",
        "host: localhost",
        "host: 0.0.0.0\n  token_file: /t",
        "host: 0.0.0.0\n  tls_cert_file: /c\n  tls_key_file: /k\n  client_ca_file: /a",
        "host: ''\n  unix_socket: /run/api.sock",
    ],
)
def test_a_guarded_door_is_accepted(tmp_path: Path, door: str) -> None:
    load(tmp_path, MINIMAL + f"api:\n  {door}\n")


def test_the_hub_takes_certificates_or_stays_at_home(tmp_path: Path) -> None:
    files = "tls_cert_file: /c, tls_key_file: /k, client_ca_file: /a"
    abroad = load(tmp_path, MINIMAL + f"hub: {{host: '::', port: 1, {files}}}\n").hub
    assert abroad is not None
    assert abroad.settings(version="v") == HubSettings("[::]:1", Tls("/c", "/k", "/a"), version="v")
    at_home = load(tmp_path, MINIMAL + "hub: {plaintext_on_loopback: true}\n").hub
    assert at_home is not None
    assert at_home.settings().tls is None


def test_the_environment_gives_defaults_and_the_file_wins(tmp_path: Path) -> None:
    text = "clusters:\n  - {name: a, kind: toy}\n  - {name: b, kind: toy, address: 'http://mine'}\n"
    found = load(tmp_path, text, environ={"TOY_ADDR": "http://theirs"})
    assert [c.settings for c in found.clusters] == [Toy(address="http://theirs"), Toy(address="http://mine")]


def test_the_paths_come_from_the_environment_when_none_is_given() -> None:
    assert config.default_paths({}) == ["/etc/snapbridge"]
    assert config.default_paths({"SNAPBRIDGE_CONFIG": "/a.yaml"}) == ["/a.yaml"]
    assert config.default_paths({"SNAPBRIDGE_CONFIG": "/a.yaml:/b"}) == ["/a.yaml", "/b"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read: No such file or directory \(name the"):
        config.load([str(tmp_path / "nothing.yaml")], SECTIONS)
    with pytest.raises(ConfigError, match=r"has no \*\.yaml file"):
        config.load([str(tmp_path)], SECTIONS)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        config.load([str(tmp_path)], SECTIONS)


@pytest.mark.parametrize("text", ["clusters: 3\n", "clusters: {a: b}\n", "plugins: x\n" + MINIMAL])
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    assert any("must be a list" in problem for problem in problems(tmp_path, text))


@pytest.mark.parametrize("section", ["service", "api", "csi", "secrets", "hub"])
def test_a_section_that_is_no_mapping_is_refused(tmp_path: Path, section: str) -> None:
    (problem,) = problems(tmp_path, MINIMAL + f"{section}: [1]\n")
    assert problem == f"00.yaml:2: {section}: is a list; want a mapping (key: value)"


def test_no_value_of_an_unknown_key_is_shown(tmp_path: Path) -> None:
    found = problems(tmp_path, "clusters: [{name: a, kind: toy, token: verysecret, count: verysecret}]\n")
    assert len(found) == 2
    assert "verysecret" not in "".join(found)


def test_the_verbs_that_a_deadline_can_be_set_for_are_those_that_are_called() -> None:
    called = {m.verb for m in vars(methods).values() if isinstance(m, methods.Method)}
    assert set(config_sections.Verb.__args__) == called  # type: ignore[attr-defined]


def test_the_schema_describes_every_section_and_kind() -> None:
    schema = config.json_schema(SECTIONS)
    assert set(schema["properties"]) == {"service", "api", "csi", "secrets", "hub", "clusters", "plugins"}
    (cluster,) = schema["properties"]["clusters"]["items"]["oneOf"]
    assert cluster["properties"]["kind"] == {"const": "toy"}
    assert {"name", "address", "count"} <= set(cluster["properties"])
    assert cluster["required"] == ["name", "kind"]
    assert cluster["additionalProperties"] is False

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if "$ref" in node else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    assert {ref.removeprefix("#/$defs/") for ref in references(schema)} <= set(schema["$defs"])
