"""Ways in: credential plugins, broken configurations, proxies."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from aiohttp import web

from adapters.kubernetes import connection, names
from adapters.kubernetes.client import Client
from adapters.kubernetes.settings import Settings
from bridge.model.failure import InvalidError, UnavailableError
from tests.integration.kubernetes import rogue as rogues

PLUGIN = """#!/bin/sh
echo x >> {count}
n=$(wc -l < {count} | tr -d ' ')
echo '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'\\
'"status":{{"token":"token-'$n'","expirationTimestamp":"{expires}"}}}}'
"""


def config(folder: Path, server: str, user: dict[str, object]) -> Path:
    path = folder / "kubeconfig-of-test"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("expires", "runs"), [("2020-01-01T00:00:00Z", 3), ("2099-01-01T00:00:00Z", 1)])
async def test_a_credential_plugin_is_asked_again_when_its_token_has_expired(
    tmp_path: Path, expires: str, runs: int
) -> None:
    seen: list[str] = []
    async with rogues.serving(tmp_path) as (rogue, client):

        async def listen(request: web.Request) -> web.StreamResponse:
            seen.append(request.headers["Authorization"])
            return await rogue.empty_list(request)

        rogue.on_list = listen
        script, count = tmp_path / "plugin.sh", tmp_path / "count"
        script.write_text(PLUGIN.format(count=count, expires=expires))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script), "interactiveMode": "Never"}
        path = config(tmp_path, client.host, {"exec": plugin})
        own = Client(await connection.open_connection(Settings(kubeconfig=str(path))))
        try:
            for _ in range(2):
                await own.page(names.CLAIMS)
        finally:
            await own.close()
    assert len(count.read_text().split()) == runs
    assert seen == ([f"Bearer token-{number}" for number in (2, 3)] if runs > 1 else ["Bearer token-1"] * 2)


@pytest.mark.parametrize("content", [None, "", "{}", "clusters: [", '{"current-context": "none"}'])
async def test_a_broken_kubeconfig_is_refused_with_its_name(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "broken"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidError) as caught:
        await connection.open_connection(Settings(kubeconfig=str(path)))
    assert caught.value.field == "kubeconfig"


async def test_an_unknown_context_is_refused(tmp_path: Path) -> None:
    path = config(tmp_path, "http://127.0.0.1:1", {"token": "t"})
    with pytest.raises(InvalidError, match="nowhere"):
        await connection.open_connection(Settings(kubeconfig=str(path), context="nowhere"))


async def test_nobody_at_the_address_is_unavailable_and_the_environments_proxy_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    async with rogues.serving(tmp_path) as (rogue, client):

        async def count(request: web.Request) -> web.StreamResponse:
            nonlocal asked
            asked += 1
            return await rogue.empty_list(request)

        rogue.on_list = count
        monkeypatch.setenv("HTTP_PROXY", client.host)
        monkeypatch.setenv("http_proxy", client.host)
        path = config(tmp_path, "http://127.0.0.1:1", {"token": "t"})
        plain = Client(await connection.open_connection(Settings(kubeconfig=str(path))))
        with pytest.raises(UnavailableError, match="does not answer"):
            await plain.page(names.CLAIMS)
        await plain.close()
        assert asked == 0
        proxied = Client(await connection.open_connection(Settings(kubeconfig=str(path), proxy=client.host)))
        await proxied.page(names.CLAIMS)
        await proxied.close()
        assert asked == 1
        with pytest.raises(UnavailableError, match="closed"):
            await proxied.page(names.CLAIMS)
