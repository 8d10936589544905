"""Ways in: what is read without the library, and what is left to it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.kubernetes import access
from tests.support.bed import certificates

SERVER = "https://api.test:6443/"


def kubeconfig(folder: Path, user: Any, **cluster: Any) -> Path:
    path = folder / "kubeconfig"
    content = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": SERVER, **cluster}}],
        "users": [{"name": "u", "user": user}, {"name": "v", "user": {"token": "other"}}],
        "contexts": [
            {"name": "c", "context": {"cluster": "c", "user": "u"}},
            {"name": "d", "context": {"cluster": "c", "user": "v"}},
            {"name": "nobody", "context": {"cluster": "c"}},
        ],
    }
    path.write_text(json.dumps(content))
    return path


def read(path: Path, context: str = "") -> access.Access:
    found = access.of_file(path, context)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("user", "value"),
    [
        ({"token": "abc"}, "Bearer abc"),
        ({"tokenFile": "token"}, "Bearer from-file"),
        ({"username": "u", "password": "p"}, f"Basic {base64.b64encode(b'u:p').decode()}"),
        ({}, ""),
        (None, ""),
    ],
)
async def test_plain_credentials(tmp_path: Path, user: Any, value: str) -> None:
    (tmp_path / "token").write_text("from-file\n")
    found = read(kubeconfig(tmp_path, user))
    assert (found.host, await found.authorization()) == ("https://api.test:6443", value)
    assert found.tls.check_hostname


async def test_the_context_that_is_asked_for(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "abc"})
    assert await read(path, "d").authorization() == "Bearer other"
    assert await read(path, "nobody").authorization() == ""


@pytest.mark.parametrize(
    "user",
    [
        {"exec": {"command": "x"}},
        {"auth-provider": {"name": "oidc"}},
        {"token": "t", "as": "somebody"},
        {"token": 5},
        {"unknown": "x"},
        "text",
    ],
)
def test_what_is_not_plain_is_left_to_the_library(tmp_path: Path, user: Any) -> None:
    assert access.of_file(kubeconfig(tmp_path, user)) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "clusters: [", '{"current-context": "none"}', "contexts: 5"])
def test_what_is_not_as_it_should_be_is_left_to_the_library(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken"
    path.write_text(text)
    assert access.of_file(path) is None
    assert access.of_file(kubeconfig(tmp_path, {"token": "t"}), "nowhere") is None


def test_authorities_names_proxies_and_client_certificates(tmp_path: Path) -> None:
    authority = certificates.Authority(tmp_path)
    client = authority.client("somebody", [])
    files = {"client-certificate": client.certificate.name, "client-key": client.key.name}
    more = {"certificate-authority": str(authority.certificate), "tls-server-name": "n", "proxy-url": "http://p:1"}
    for name in files.values():
        assert (tmp_path / name).is_file()
    by_file = read(kubeconfig(tmp_path, files, **more))
    assert (by_file.server_name, by_file.proxy) == ("n", "http://p:1")
    data = {
        f"{field}-data": base64.b64encode((tmp_path / name).read_bytes()).decode() for field, name in files.items()
    }
    pem = base64.b64encode(authority.certificate.read_bytes()).decode()
    by_data = read(kubeconfig(tmp_path, data, **{"certificate-authority-data": pem}))
    assert by_data.tls.get_ca_certs() == by_file.tls.get_ca_certs() != []
    lax = read(kubeconfig(tmp_path, {}, **{"insecure-skip-tls-verify": True}))
    assert not lax.tls.check_hostname


def test_a_certificate_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError)):
        access.of_file(kubeconfig(tmp_path, {}, **{"certificate-authority": "missing"}))
    (tmp_path / "pem").write_text("no certificate")
    with pytest.raises((ValueError, OSError)):
        access.of_file(kubeconfig(tmp_path, {}, **{"certificate-authority": "pem"}))


@pytest.mark.parametrize(("seconds", "value"), [(3600.0, "Bearer one"), (0.0, "Bearer two")])
async def test_a_pods_token_is_read_again_when_it_is_old(tmp_path: Path, seconds: float, value: str) -> None:
    certificates.Authority(tmp_path)
    (tmp_path / "token").write_text("one")
    places = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = access.of_pod(tmp_path, places, token_seconds=seconds)
    assert found.host == "https://[fd00::1]:443"
    (tmp_path / "token").write_text("two")
    assert await found.authorization() == value


async def test_an_empty_token_is_none(tmp_path: Path) -> None:
    certificates.Authority(tmp_path)
    (tmp_path / "token").write_text("one")
    places = {"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "443"}
    found = access.of_pod(tmp_path, places, token_seconds=0.0)
    (tmp_path / "token").write_text("")
    with pytest.raises(OSError, match="is empty"):
        await found.authorization()
    with pytest.raises(OSError, match="is empty"):
        access.of_pod(tmp_path, places)


def test_no_pod_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="KUBERNETES_SERVICE_HOST"):
        access.of_pod(tmp_path, {})
    with pytest.raises(OSError, match=r"ca\.crt"):
        access.of_pod(tmp_path, {"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"})


def test_a_plain_way_in_does_not_import_the_library(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "t"})
    code = (
        "import asyncio, sys; from adapters.kubernetes import connection, settings; "
        f"asyncio.run(connection.open_connection(settings.Settings(kubeconfig={str(path)!r}))); "
        "print('kubernetes' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "KUBECONFIG": ""}
    )
    assert done.stdout.strip() == "False"
