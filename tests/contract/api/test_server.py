"""Listening: addresses, unix sockets, TLS with client certificates, what is no HTTP, and stopping."""

from __future__ import annotations

import asyncio
import http.client
import json
import pathlib
import socket
import ssl
import stat
import threading
import time

import pytest
from aiohttp import web

from bridge.api.operations import WAITERS, Waiters
from bridge.api.server import serve
from bridge.api.settings import ApiSettings
from bridge.model.failure import InvalidError, UnavailableError
from tests.support.api import running
from tests.support.certificates import Authority
from tests.support.desk import MemoryDesk

PATIENCE_SECONDS = 30.0


def _ask(url: str, path: str, **options) -> tuple[int, dict]:
    scheme, _, place = url.partition("://")
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    headers = options.pop("headers", {})
    connection = kind(place, timeout=PATIENCE_SECONDS, **options)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + b"s3cret" * 4000 + b"\r\n\r\n",
    ],
    ids=["no HTTP", "long path", "long header"],
)
def test_what_is_no_http_is_a_problem_too_and_is_quoted_nowhere(raw, caplog):
    with running() as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as link:
            link.sendall(raw)
            answer = b""
            while part := link.recv(65536):
                answer += part
    assert answer.split(b" ", 2)[1] == b"400"
    assert b"application/problem+json" in answer
    for text in (answer.decode(), caplog.text):
        assert "s3cret" not in text
        assert "xxxx" not in text


def test_a_unix_socket_serves_its_owner_only_and_is_removed(tmp_path):
    path = tmp_path / "api.sock"
    settings = ApiSettings(host="", unix_socket=str(path))
    with running(settings=settings) as server:
        assert server.addresses == (f"unix:{path}",)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b'"name":"local"' in _whoami(path)
        with pytest.raises(InvalidError, match="another service answers"), running(settings=settings):
            pass
        assert b'"name":"local"' in _whoami(path)
    assert not path.exists()


def _whoami(path: pathlib.Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(PATIENCE_SECONDS)
        link.connect(str(path))
        link.sendall(b"GET /v1/whoami HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while part := link.recv(65536):
            answer += part
    return answer


def test_a_socket_left_by_a_crash_is_replaced_and_a_file_is_not(tmp_path):
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as link:
        link.bind(str(path))
    with running(settings=ApiSettings(host="", unix_socket=str(path))):
        pass
    path.write_text("precious")
    with pytest.raises(UnavailableError), running(settings=ApiSettings(host="", unix_socket=str(path))):
        pass
    assert path.read_text() == "precious"


async def test_a_service_that_was_stopped_while_it_looked_takes_no_socket_from_another(tmp_path):
    """It stands still right after it has begun to dial: its own time is up, and the other one lives."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        app = web.Application()
        app[WAITERS] = Waiters(1)
        serving = asyncio.create_task(serve(app, ApiSettings(host="", unix_socket=str(path), shutdown_seconds=0.1)))
        asyncio.get_running_loop().call_soon(time.sleep, 1.5)
        with pytest.raises(InvalidError, match="another service answers"):
            await asyncio.wait_for(serving, PATIENCE_SECONDS)
        assert path.is_socket()


def test_a_taken_port_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=str(port)), running(settings=ApiSettings(port=port)):
            pass


def test_client_certificates_are_callers_and_strangers_are_not(tmp_path):
    authority = Authority(tmp_path)
    server_cert = authority.issue("127.0.0.1", server=True)
    alice, mallory = authority.issue("alice"), authority.issue("mallory")
    settings = ApiSettings(
        port=0,
        tls_cert_file=server_cert.cert,
        tls_key_file=server_cert.key,
        client_ca_file=authority.ca,
        client_names=frozenset({"alice"}),
    )
    with running(settings=settings) as server:

        def whoami(identity) -> tuple[int, dict]:
            context = ssl.create_default_context(cafile=authority.ca)
            if identity is not None:
                context.load_cert_chain(identity.cert, identity.key)
            return _ask(server.url, "/v1/whoami", context=context)

        assert whoami(alice)[1]["name"] == "alice"
        assert whoami(mallory)[0] == 401
        assert whoami(None)[0] == 401


def test_torn_tls_files_are_an_error_and_nothing_listens(tmp_path):
    torn = tmp_path / "torn.pem"
    torn.write_text("no certificate")
    settings = ApiSettings(port=0, tls_cert_file=str(torn), tls_key_file=str(torn))
    with pytest.raises(InvalidError, match="TLS files"), running(settings=settings):
        pass


def test_a_renewed_certificate_is_shown_without_a_restart_and_a_torn_one_is_not(tmp_path):
    authority = Authority(tmp_path)
    own = authority.issue("127.0.0.1", server=True)
    settings = ApiSettings(port=0, tls_cert_file=own.cert, tls_key_file=own.key, tls_look_seconds=0.02)
    with running(settings=settings) as server:
        host, port = server.url.removeprefix("https://").split(":")

        def shown() -> str:
            return ssl.get_server_certificate((host, int(port)), timeout=PATIENCE_SECONDS)

        first = shown()
        pathlib.Path(own.key).write_text("torn")
        time.sleep(0.1)
        assert shown() == first
        authority.issue("127.0.0.1", server=True)
        renewed = pathlib.Path(own.cert).read_text()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while shown().split() != renewed.split():
            assert time.monotonic() < deadline, "the renewed certificate was not taken up"
            time.sleep(0.05)


def test_stopping_sends_those_who_wait_home_with_what_is_known():
    desk = MemoryDesk(by_hand=True)
    found: list[tuple[int, dict]] = []
    with running(desk) as server:
        operation = _create(server.url)
        path = f"/v1/operations/{operation['id']}?wait=60s&index={operation['version']}"
        thread = threading.Thread(target=lambda: found.append(_ask(server.url, path)))
        thread.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "wait_operation" not in desk.calls:
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.01)
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "who waits was not sent home"
    assert found[0][0] == 200
    assert found[0][1]["state"] == "running"


def test_the_waiters_are_bounded():
    desk = MemoryDesk(by_hand=True)
    with running(desk, settings=ApiSettings(port=0, waiters_limit=0, shutdown_seconds=1)) as server:
        operation = _create(server.url)
        status, body = _ask(server.url, f"/v1/operations/{operation['id']}?wait=60s&index={operation['version']}")
        assert (status, body["code"], body["retryable"]) == (429, "RESOURCE_EXHAUSTED", True)


def _create(url: str) -> dict:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_SECONDS)
    body = json.dumps({"name": "a", "volume": "db"})
    connection.request("POST", "/v1/snapshots", body, {"Content-Type": "application/json"})
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found["operation"]
