"""The command line in this process, against the real API over the in-memory desk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest

from bridge.cli.main import main
from tests.support.api import Running, running
from tests.support.desk import MemoryDesk


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADDR", "TOKEN", "TOKEN_FILE", "CA_FILE", "CERT_FILE", "KEY_FILE", "NAMESPACE", "CLUSTER", "CONFIG"):
        monkeypatch.delenv(f"SNAPBRIDGE_{name}", raising=False)


@pytest.fixture
def server() -> Iterator[Running]:
    with running(MemoryDesk()) as found:
        yield found


@pytest.fixture
def run(server: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SNAPBRIDGE_ADDR", server.url)

    def call(*words: str) -> Result:
        capsys.readouterr()
        code = main(list(words))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call
