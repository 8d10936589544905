"""A command starts fast because it imports little. Modules are counted, not milliseconds: those vary."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = (
    "grpc", "aiohttp", "sqlalchemy", "kubernetes", "pydantic", "rich", "nomad", "asyncio", "yaml", "orjson",
    "prometheus_client", "cryptography", "google.protobuf", "bridge.app", "bridge.api", "adapters",
)  # fmt: skip
SCRIPT = """
import sys
from bridge.cli.main import main
code = main(sys.argv[1:])
print("\\n".join(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def _modules(*words: str, addr: str = "http://127.0.0.1:1") -> tuple[int, set[str]]:
    environ = {**os.environ, "SNAPBRIDGE_ADDR": addr}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, timeout=60, env=environ, check=False
    )
    return done.returncode, set(done.stderr.split("\n"))


def _heavy(found: set[str]) -> set[str]:
    return {name for name in found if any(name == heavy or name.startswith(heavy + ".") for heavy in HEAVY)}


@pytest.mark.parametrize("words", [("--help",), ("snapshot", "--help"), ("completion", "zsh"), ("serve", "--help")])
def test_help_imports_nothing_heavy_and_no_http(words):
    code, found = _modules(*words)
    assert code == 0
    assert _heavy(found) == set()
    assert "http.client" not in found
    assert "ssl" not in found


def test_a_plain_command_imports_nothing_heavy(server):
    server.desk.add("one")
    for words in (("snapshot", "list"), ("snapshot", "create", "db", "a", "--wait"), ("op", "list", "-o", "json")):
        code, found = _modules(*words, addr=server.url)
        assert code == 0
        assert _heavy(found) == set()
