"""The way to one API server: configuration, TLS, credentials and the connection pool.

A plain configuration is read by `access.py`, any other by kubernetes.aio. That one's request path is not used (it
costs half as much again per call).
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pathlib
import ssl
from typing import Any

import aiohttp

from adapters.kubernetes import access, wire
from adapters.kubernetes.settings import Settings
from bridge.model import failure

_READ_BUFFER_BYTES = 2**20
_GOODBYE_SECONDS = 0.05
_HEADERS = {"Accept": "application/json", "User-Agent": "snapbridge"}


@dataclasses.dataclass(slots=True)
class Connection:
    """An open way to the API server. Close it with `close`."""

    host: str
    proxy: str | None
    server_name: str | None
    """The name that the server's certificate must have, where the configuration names another than the host."""
    authorization: access.Authorization
    """The header's value, refreshed where the configuration knows how."""
    _tls: ssl.SSLContext
    _limit: int
    _session: aiohttp.ClientSession | None = None
    _pool: wire.Pool | None = None
    _closed: bool = False

    def pool(self) -> wire.Pool | None:
        """Kept connections for small calls; None where a proxy is in the way. UnavailableError as in `session`."""
        if self._closed:
            raise failure.UnavailableError("the connection to the API server is closed")
        if self.proxy:
            return None
        if self._pool is None:
            where = wire.place(self.host, self._tls, self.server_name)
            self._pool = wire.Pool(where, limit=max(4, self._limit // 4), headers=_HEADERS)
        return self._pool

    def session(self) -> aiohttp.ClientSession:
        """For lists and watches, opened when it is needed; `trust_env` is off, the proxy is in `proxy`.

        UnavailableError after `close`: a call that was late must not open another pool.
        """
        if self._closed:
            raise failure.UnavailableError("the connection to the API server is closed")
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._limit, ssl=self._tls, keepalive_timeout=60),
                trust_env=False,
                read_bufsize=_READ_BUFFER_BYTES,
                # Not compressed: the way is short, and packing costs the server more than it saves.
                headers={**_HEADERS, "Accept-Encoding": "identity"},
            )
        return self._session

    async def close(self) -> None:
        """Close the pool for good."""
        self._closed = True
        if self._pool is not None:
            await self._pool.close()
        if self._session is not None:
            await self._session.close()
        if self._pool is not None or self._session is not None:
            # TLS connections say goodbye on later turns of the loop.
            await asyncio.sleep(_GOODBYE_SECONDS)


async def open_connection(settings: Settings) -> Connection:
    """Read the configuration and open the pool. InvalidError names what is wrong with the configuration."""
    try:
        way = await _way(settings)
    except Exception as error:
        raise failure.InvalidError(
            f"the cluster's configuration cannot be used: {error}",
            field="kubeconfig",
            hint="Check kubeconfig, context and in_cluster of this cluster",
        ) from error
    return Connection(
        way.host, settings.proxy or way.proxy, way.server_name, way.authorization, way.tls, settings.connections
    )


async def _way(settings: Settings) -> access.Access:
    if settings.in_cluster:
        return access.of_pod(pathlib.Path(settings.service_account_dir))
    path = _file(settings)
    plain = access.of_file(path, settings.context) if path is not None else None
    return plain or await _by_library(path, settings.context)


def _file(settings: Settings) -> pathlib.Path | None:
    """The kubeconfig; None when several are named, or none is there."""
    named = settings.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    path = pathlib.Path(named).expanduser()
    if path.is_file():
        return path
    if settings.kubeconfig:
        raise FileNotFoundError(f"{path} is not there")
    return None


async def _by_library(path: pathlib.Path | None, context: str) -> access.Access:
    """What is not plain: credential plugins, OIDC, several files in one."""
    from kubernetes.aio import config
    from kubernetes.aio.client import configuration as configurations
    from kubernetes.aio.client import rest

    configuration = configurations.Configuration()
    loader = await config.load_kube_config(
        config_file=None if path is None else str(path), context=context or None, client_configuration=configuration
    )
    _keep_plugin_token_fresh(loader, configuration)

    async def authorization() -> str:
        value = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if value:
            return str(value)
        return str(configuration.get_basic_auth_token()) if configuration.username else ""

    tls = rest.RESTClientObject(configuration).ssl_context
    name = configuration.tls_server_name or None
    return access.Access(configuration.host.rstrip("/"), tls, authorization, name, configuration.proxy)


def _keep_plugin_token_fresh(loader: Any, configuration: Any) -> None:
    """Run a credential plugin again when its token has expired; the library runs it once and never again."""
    user = getattr(loader, "_user", None)
    if user is None or "exec" not in user:
        return
    lock = asyncio.Lock()

    async def refresh(target: Any) -> None:
        async with lock:
            await loader.load_from_exec_plugin()
            if getattr(loader, "token", None):
                target.api_key["BearerToken"] = loader.token

    configuration.refresh_api_key_hook = refresh
