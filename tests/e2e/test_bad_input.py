"""Bad input to the real service, by command line and HTTP: a clear error that says what to do, and nothing left.

The Kubernetes door's own bad input is in `test_bad_objects.py`; single fields of bodies are in
`tests/contract/api/test_bad_input.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.e2e.test_standalone import backend
from tests.support import claims, localdisk, serve
from tests.support.bed import paths

pytestmark = pytest.mark.slow

FOREIGN = "nobody.example"
TABLES = ("requests", "records", "operations", "idempotency", "volumes")
PROBLEM = {"type", "title", "status", "detail", "code", "hint", "field", "retryable", "errors", "requestId"}
GOOD = {"name": "never", "volume": "data"}
TOKEN = "a-token-of-some-length"


@dataclasses.dataclass
class Stand:
    """A service with one good driver, and sockets that are none."""

    driver: localdisk.LocalDisk
    service: serve.Serve
    folder: Path

    def rows(self) -> dict[str, int]:
        """How much the ledger holds, by table."""
        file = self.service.folder / "data" / "ledger.db"
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}

    def backend(self) -> list[str]:
        """Snapshots and volumes on the driver."""
        volumes = self.driver.controller.ListVolumes(pb.ListVolumesRequest(), timeout=30, wait_for_ready=True)
        return sorted([*backend(self.driver), *(entry.volume.volume_id for entry in volumes.entries)])

    @contextlib.contextmanager
    def untouched(self, but: str = "") -> Iterator[None]:
        """The block leaves nothing: in the ledger (but for the table `but`), on the backend, or under way."""
        before = self.rows(), self.backend()
        yield
        assert ({**self.rows(), but: 0}, self.backend()) == ({**before[0], but: 0}, before[1])
        running = lambda: self.service.get("/v1/operations?running=true")["items"]  # noqa: E731
        claims.until("nothing is under way", lambda: running() == [])

    def cli(self, *words: str, code: int, text: str, hint: str = "") -> None:
        """The command must end with this code and say this on stderr, and nothing on stdout."""
        done = self.service.cli(*words, check=False)
        assert done.returncode == code, (words, done.returncode, done.stderr)
        assert text in done.stderr, done.stderr
        assert hint in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""

    def http(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """The problem that this call is answered with."""
        status, problem = self.service.request(method, path, body, headers)
        assert set(problem) == PROBLEM
        assert problem["status"] == status
        assert problem["detail"]
        return dict(problem)


@contextlib.contextmanager
def mute(path: Path) -> Iterator[None]:
    """A socket that accepts connections and stays silent."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)
        yield
    path.unlink()


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    folder = paths.fresh("bad")
    (folder / "file.sock").write_text("not a socket\n")
    (folder / "folder.sock").mkdir()
    with localdisk.start_localdisk(mode="directory") as driver, mute(folder / "mute.sock"):
        names = ("data", "other")
        volumes = [
            {
                "name": name,
                "driver": localdisk.NAME,
                "handle": driver.volume(name, 1 << 20).volume_id,
                "capacity": "1MiB",
            }
            for name in names
        ]
        made = serve.service(
            clusters=[
                {
                    "name": "here",
                    "kind": "standalone",
                    "volumes": [*volumes, {"name": "foreign", "driver": FOREIGN, "handle": "v", "capacity": "1MiB"}],
                }
            ],
            plugins=[
                {"name": "localdisk", "socket": str(driver.socket)},
                {"name": "mute", "socket": str(folder / "mute.sock")},
                {"name": "file", "socket": str(folder / "file.sock")},
                {"name": "folder", "socket": str(folder / "folder.sock")},
                {"name": "missing", "socket": str(folder / "missing.sock")},
            ],
            csi={
                # Short, as some sockets never answer; longer than a busy machine stands still.
                "connect_timeout": "2s",
                "probe_interval": "500ms",
                "timeouts": {"CreateSnapshot": "5s", "Probe": "5s"},
            },
        )
        with made as running:
            claims.until("the driver is healthy", lambda: _plugin(running, "localdisk")["healthy"])
            yield Stand(driver, running, folder)
        assert "Traceback" not in running.process.log.read_text()


def _plugin(service: serve.Serve, instance: str) -> Any:
    return next(one for one in service.get("/v1/plugins")["items"] if one["instance"] == instance)


# -- plugins ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        ("mute", ("accepts connections but does not speak gRPC", "check what listens there")),
        ("file", ("is not a socket but a file", "correct the path")),
        ("folder", ("is not a socket but a directory", "correct the path")),
        ("missing", ("there is no socket at", "check that the plugin is running")),
    ],
)
def test_a_socket_that_is_none_is_told(stand: Stand, instance: str, words: tuple[str, str]) -> None:
    found: dict[str, Any] = {}

    def told() -> bool:
        found.update(_plugin(stand.service, instance))
        return words[0] in found["message"]

    claims.until(f"{instance} is told", told)
    assert not found["healthy"]
    assert words[1] in found["message"]
    assert str(stand.folder) in found["message"]
    shown = lambda: words[0] in stand.service.cli("plugin", "list", "-o", "wide").stdout  # noqa: E731
    claims.until(f"{instance} is shown", shown)
    if instance == "file":
        assert (stand.folder / "file.sock").read_text() == "not a socket\n"


def test_an_unknown_driver(stand: Stand) -> None:
    with stand.untouched(but="idempotency"):  # it may come up: the same request with the same key is waited for
        stand.cli("snapshot", "create", "foreign", "x", code=1, text=FOREIGN, hint="name its socket in the config")
        problem = stand.http("POST", "/v1/snapshots", {"name": "x", "volume": "foreign"})
        assert (problem["status"], problem["field"], problem["retryable"]) == (503, "driver", True)
        body = {"name": "x", "adoptHandle": "snap-1", "driver": FOREIGN}
        assert stand.http("POST", "/v1/snapshots", body)["status"] == 503


def test_a_plugin_that_stops_answering(stand: Stand) -> None:
    """It is told while it lasts; afterwards the same request goes through, once."""
    before = stand.rows(), stand.backend()
    stand.driver.process.pause()
    try:
        done = stand.service.cli("snapshot", "create", "data", "late", "--wait=4s", check=False)
        assert done.returncode == 7, done.stderr
        assert "op watch" in done.stderr

        def trying() -> bool:
            row = stand.service.get("/v1/snapshots/here/default/late")
            assert not row["ready"]
            return row["state"] in ("cutting", "failing")

        claims.until("it is tried", trying)

        def told() -> bool:
            row = _plugin(stand.service, "localdisk")
            return not row["healthy"] and "does not answer Probe" in row["message"]

        claims.until("told", told)
    finally:
        stand.driver.process.resume()
    claims.until("ready", lambda: stand.service.get("/v1/snapshots/here/default/late")["ready"], 60.0)
    assert len(backend(stand.driver)) == 1
    stand.service.cli("snapshot", "delete", "late", "--yes")
    assert stand.backend() == before[1]
    assert stand.rows()["records"] == before[0]["records"]


def test_a_handle_that_is_not_there(stand: Stand) -> None:
    """The plugin is asked first: a handle that it does not have is refused by both verbs, and nothing is booked."""
    text = "has no snapshot 'snap-none'"
    with stand.untouched():
        stand.cli(
            "snapshot", "create", "ghost", "--adopt", "snap-none", "--driver", localdisk.NAME, code=4, text=text,
            hint="snapshot list --foreign",
        )  # fmt: skip
        stand.cli("snapshot", "adopt", "snap-none", "ghost", "--driver", localdisk.NAME, code=4, text=text)


# -- volumes, names, sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("snapshot", "create", "missing", "x"), 4, "there is no volume 'missing'"),
        (("snapshot", "create", "data", "x", "--cluster", "nowhere"), 4, "no cluster 'nowhere'"),
        (("snapshot", "create", "data", "x", "-n", "elsewhere"), 4, "namespace 'elsewhere'"),
        (("snapshot", "create", "data", "n" * 1000), 2, "at most 253 characters"),
        (("snapshot", "create", "v" * 1000, "x"), 2, "at most 253 characters"),
        (("snapshot", "create", "data", "a\x1bb"), 2, "control characters"),
        (("snapshot", "create", "data", "a/b"), 2, "slash"),
        (("snapshot", "create", "data", "x", "--driver", "other.example"), 2, "other.example"),
        (("snapshot", "create", "data", "x", "--secret", "create=hunter2"), 2, "secrets.create"),
        (("snapshot", "create", "data", "x", "--parameter", "nonsense"), 2, "nonsense"),
        (("snapshot", "describe", "nobody-there"), 4, "nobody-there"),
        (("snapshot", "delete", "nobody-there", "--yes"), 4, "nobody-there"),
        (("snapshot", "restore", "nobody-there", "--as", "y"), 4, "nobody-there"),
        (("snapshot", "restore", "nobody-there", "--as", "y", "--size", "-5GiB"), 2, "-5GiB"),
        (("snapshot", "list", "--state", "redy"), 2, "redy"),
        (("op", "describe", "nobody-there"), 4, "nobody-there"),
        (("op", "watch", "nobody-there"), 4, "nobody-there"),
        (("snapshot", "crate", "data"), 2, "crate"),
    ],
    ids=lambda value: " ".join(value)[:40].replace("\x1b", "ESC") if isinstance(value, tuple) else "",
)
def test_the_command_line_says_what_is_wrong(stand: Stand, words: tuple[str, ...], code: int, text: str) -> None:
    with stand.untouched():
        stand.cli(*words, code=code, text=text)


def test_a_name_that_is_taken_by_another_source(stand: Stand) -> None:
    before = stand.backend()
    stand.service.cli("snapshot", "create", "data", "one", "--wait")
    with stand.untouched():
        stand.cli("snapshot", "create", "other", "one", code=5, text="default/one", hint="Choose another name")
        problem = stand.http("POST", "/v1/snapshots", {"name": "one", "volume": "other"})
        assert (problem["status"], problem["field"]) == (409, "name")
        uid = stand.service.get("/v1/snapshots/here/default/one")["uid"]
        for size, field in ((-1, "capacityBytes"), (1, "capacityBytes"), (1 << 63, "capacityBytes")):
            problem = stand.http("POST", f"/v1/snapshots/{uid}/restore", {"name": "y", "capacityBytes": size})
            assert (problem["status"], problem["field"]) == (422, field)
        stand.cli("snapshot", "restore", "one", "--as", "n" * 1000, code=2, text="at most 253 characters")
        stand.cli("snapshot", "restore", "one", "--as", "y", "--size", "1MB", code=2, text="less than the snapshot's")
    stand.service.cli("snapshot", "delete", "one", "--yes")
    assert stand.backend() == before


# -- HTTP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status", "field", "text"),
    [
        ({**GOOD, "naem": "x"}, {}, 422, "naem", 'did you mean "name"?'),
        ({**GOOD, "name": "n" * 1000}, {}, 422, "name", "253"),
        ({**GOOD, "name": "a\nb"}, {}, 422, "name", "control characters"),
        ({**GOOD, "name": "a\x00b"}, {}, 422, "name", "control characters"),
        ({**GOOD, "driver": "other.example"}, {}, 422, "driver", "leave the driver out"),
        ({**GOOD, "volume": "missing"}, {}, 404, "volume", "Name it under volumes"),
        ({**GOOD, "cluster": "nowhere"}, {}, 404, "cluster", "there are: here"),
        ({**GOOD, "parameters": {"a": "b" * 2000}}, {}, 422, "parameters.a", "1024"),
        (GOOD, {"Content-Type": "text/plain"}, 415, "", "application/json"),
        (GOOD, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "", "application/json"),
        (b"{", {}, 400, "", "JSON"),
        (b'{"name": "never", "volume": "data", "name": "b"}', {}, 422, "name", "give it once"),
        (b'{"name": "never", "volume": "data", "why": "' + b"x" * (2 << 20) + b'"}', {}, 413, "", "1"),
        (GOOD, {"Idempotency-Key": "a b"}, 422, "Idempotency-Key", ""),
        (GOOD, {"Authorization": "nonsense"}, 401, "", "Authorization: Bearer"),
        (GOOD, {"Authorization": "Bearer"}, 401, "", "Authorization: Bearer"),
        (GOOD, {"Authorization": f"Bearer {TOKEN}"}, 401, "", "check the token"),
        (GOOD, {"Authorization": "Basic bm9ib2R5Og=="}, 401, "", "Authorization: Bearer"),
        (GOOD, {"Host": "evil.example"}, 403, "", "127.0.0.1"),
        (GOOD, {"Host": "127.0.0.1.evil.example"}, 403, "", "127.0.0.1"),
        (GOOD, {"Origin": "http://evil.example"}, 403, "", "web pages of other sites"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_create_that_is_refused(
    stand: Stand, body: Any, headers: dict[str, str], status: int, field: str, text: str
) -> None:
    with stand.untouched():
        problem = stand.http("POST", "/v1/snapshots", body, headers)
    assert (problem["status"], problem["field"]) == (status, field), problem
    assert text in json.dumps(problem, ensure_ascii=False).replace('\\"', '"'), problem
    assert TOKEN not in json.dumps(problem)


@pytest.mark.parametrize(
    ("method", "path", "status", "field"),
    [
        ("GET", "/v1/snapshots?next_token=nonsense", 422, "next_token"),
        ("GET", "/v1/snapshots?next_token=book:nonsense", 422, "next_token"),
        ("GET", "/v1/snapshots?next_token=book:W10", 422, "next_token"),
        ("GET", "/v1/snapshots?next_token=book:WzFlNDAwLDFd", 422, "next_token"),
        ("GET", "/v1/snapshots?next_token=own:-1", 422, "next_token"),
        ("GET", "/v1/snapshots?per_page=-1", 422, "per_page"),
        ("GET", "/v1/snapshots?cluster=nowhere", 404, "cluster"),
        ("GET", "/v1/snapshots/" + "n" * 2000, 422, "ref"),
        ("GET", "/v1/snapshots/abc", 422, "snapshot"),
        ("GET", "/v1/snapshots/a%00bcd", 422, "ref"),
        ("GET", "/v1/snapshots/nobody-there", 404, ""),
        ("DELETE", "/v1/snapshots/nobody-there?abandon=true", 404, ""),
        ("DELETE", "/v1/snapshots/nobody-there?abandon=yes", 422, "abandon"),
        ("GET", "/v1/operations/nobody-there", 404, ""),
        ("GET", "/v1/operations/nobody-there?wait=5s&index=1", 404, ""),
        ("GET", "/v1/volumes?cluster=nowhere", 404, "cluster"),
        ("PUT", "/v1/snapshots", 405, ""),
        ("GET", "/v2/snapshots", 404, ""),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_path_or_query_that_is_refused(stand: Stand, method: str, path: str, status: int, field: str) -> None:
    with stand.untouched():
        problem = stand.http(method, path)
    assert (problem["status"], problem["field"]) == (status, field), problem
    remedies = ("must be", "may not", "at most", "give ")
    assert status == 405 or problem["hint"] or any(words in problem["detail"] for words in remedies), problem


def test_what_is_not_http(stand: Stand) -> None:
    with stand.untouched(), socket.create_connection(("127.0.0.1", stand.service.port), timeout=30) as wire:
        wire.sendall(b"\x16\x03\x01\x02\x00 a TLS hello, say\r\n\r\n")
        answer = b""
        while b"urn:snapbridge:problem" not in answer and (more := wire.recv(65536)):
            answer += more
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), answer
    assert b"urn:snapbridge:problem" in answer


def test_the_key_of_a_refused_request_serves_the_corrected_one(stand: Stand) -> None:
    before = stand.backend()
    headers = {"Idempotency-Key": "corrected"}
    assert stand.http("POST", "/v1/snapshots", {"name": "fixed", "volume": "dtaa"}, headers)["status"] == 404
    status, made = stand.service.request("POST", "/v1/snapshots", {"name": "fixed", "volume": "data"}, headers)
    assert status == 202, made
    stand.service.cli("snapshot", "delete", "fixed", "--yes")
    assert stand.backend() == before


def test_an_idempotency_key_that_is_used_for_something_else(stand: Stand) -> None:
    before = stand.backend()
    headers = {"Idempotency-Key": "once"}
    first = stand.service.request("POST", "/v1/snapshots", {"name": "once", "volume": "data"}, headers)
    assert first[0] == 202
    again = stand.service.request("POST", "/v1/snapshots", {"name": "once", "volume": "data"}, headers)
    assert again[0] == 202
    assert again[1]["operation"]["id"] == first[1]["operation"]["id"]
    claims.until("ready", lambda: stand.service.get("/v1/snapshots/here/default/once")["ready"])
    with stand.untouched():
        for body in ({"name": "other", "volume": "data"}, {"name": "once", "volume": "other"}):
            problem = stand.http("POST", "/v1/snapshots", body, headers)
            assert problem["status"] == 409
            assert "key" in problem["detail"]
        words = ("snapshot", "create", "other", "x", "--idempotency-key", "once")
        stand.cli(*words, code=5, text="key")
    stand.service.cli("snapshot", "delete", "once", "--yes")
    assert stand.backend() == before


# -- tokens and config -----------------------------------------------------------------------------------------


def test_a_token_that_is_wrong(stand: Stand) -> None:
    tokens, wrong = stand.folder / "tokens", stand.folder / "wrong"
    tokens.write_text(f"admin {TOKEN}\n")
    wrong.write_text("another-token-of-some-length\n")
    for file in (tokens, wrong):
        file.chmod(0o600)
    guarded = serve.service(
        clusters=[{"name": "here", "kind": "standalone"}], plugins=[], api={"token_file": str(tokens)}
    )
    with guarded as service:
        for words in ((), ("--token-file", str(wrong))):
            done = service.cli("snapshot", "list", *words, check=False)
            assert done.returncode == 6, done.stderr
            assert "token" in done.stderr
            assert "another-token" not in done.stderr
        assert service.cli("snapshot", "list", "--token-file", str(tokens)).returncode == 0
        absent = service.cli("snapshot", "list", "--token-file", str(stand.folder / "absent"), check=False)
        assert absent.returncode == 2
        assert "cannot be read" in absent.stderr
        status, problem = service.request("GET", "/v1/snapshots", None, {"Authorization": "Bearer wrong"})
        assert (status, problem["code"]) == (401, "UNAUTHENTICATED")
        assert service.request("DELETE", "/v1/snapshots/here/default/x")[0] == 401
        assert TOKEN not in service.process.log.read_text()
        assert "another-token" not in service.process.log.read_text()


def _bridge(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "bridge", *(str(word) for word in words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("clusters:\n  - name: a\n    kind: standalone\n    volums: []\n", 4, ("volums", "did you mean volumes?")),
        ("api:\n  prot: 1\nclusters: []\n", 2, ("prot", "did you mean port?")),
        ("clutsers: []\n", 1, ("clutsers", "did you mean clusters?")),
        ("api:\n  port: 1\n  port: 2\n", 3, ("port", "twice")),
        ("api:\n  port: [\n", 3, ("is not YAML",)),
        ("api:\n  host: 0.0.0.0\nclusters:\n  - name: a\n    kind: standalone\n", 2, ("0.0.0.0", "token")),
    ],
    ids=["cluster key", "api key", "section", "twice", "torn", "open door"],
)
def test_a_config_with_a_typo(text: str, line: int, words: tuple[str, ...]) -> None:
    folder = paths.fresh("typo")
    file = folder / "snapbridge.yaml"
    file.write_text(text)
    for done in (_bridge("serve", "-c", file), _bridge("check-config", file)):
        assert done.returncode == 2, done.stderr
        assert f"{file}:{line}:" in done.stderr, done.stderr
        assert all(word in done.stderr for word in words), done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
    assert sorted(path.name for path in folder.iterdir()) == ["snapbridge.yaml"], "it left something"


def test_a_config_that_is_not_there() -> None:
    done = _bridge("serve", "-c", paths.fresh("typo") / "absent.yaml")
    assert done.returncode == 2
    assert "absent.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_is_not_there() -> None:
    done = _bridge("snapshot", "list", "--addr", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
