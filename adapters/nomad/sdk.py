"""python-nomad where it has the endpoint: allocations, jobs, the agent. Synchronous, so in threads.

Its endpoint objects are made one by one, because its `Nomad` class reads NOMAD_TOKEN and others from the environment
and verifies no certificate unless told to. It must never be given a `user_agent` (that raises without a token).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import nomad.api
import nomad.api.exceptions
import requests
import requests.adapters

from adapters.nomad.client import Client, outlast_election, part
from adapters.nomad.errors import AnswerError
from adapters.nomad.settings import Settings
from adapters.nomad.token import Token
from bridge.model.failure import UnavailableError

_THREADS = 4

Row = Mapping[str, Any]


class Reads(Protocol):
    """The plain reads that python-nomad has an endpoint for."""

    async def allocation(self, allocation_id: str) -> Row:
        """One allocation with its job. AnswerError, UnavailableError."""
        ...

    async def agent(self) -> Row:
        """The agent's own description."""
        ...

    async def job(self, namespace: str, job_id: str) -> Row:
        """One job."""
        ...

    def close(self) -> None: ...


class Direct:
    """The same reads by the client, for unix sockets, which python-nomad cannot dial."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def allocation(self, allocation_id: str) -> Row:
        return dict((await self._client.get(f"/v1/allocation/{part(allocation_id)}")).data)

    async def agent(self) -> Row:
        return dict((await self._client.get("/v1/agent/self")).data)

    async def job(self, namespace: str, job_id: str) -> Row:
        return dict((await self._client.get(f"/v1/job/{part(job_id)}", {"namespace": namespace})).data)

    def close(self) -> None:
        """Nothing of its own."""


def reads(settings: Settings, client: Client) -> Reads:
    """python-nomad, or the client where the agent is behind a unix socket."""
    return Direct(client) if settings.address.startswith("unix://") else Sdk(settings, client.token)


class _NamedAdapter(requests.adapters.HTTPAdapter):
    """Checks the certificate for a name that is not the address."""

    def __init__(self, server_name: str) -> None:
        self._server_name = server_name
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(
            *args, server_hostname=self._server_name, assert_hostname=self._server_name, **kwargs
        )


class Sdk:
    """The calls of python-nomad that the adapter uses. Close it at the end."""

    def __init__(self, settings: Settings, token: Token) -> None:
        self._token = token
        self._session = requests.Session()
        self._session.trust_env = False  # no netrc, no proxies, no REQUESTS_CA_BUNDLE behind our back
        self._session.auth = self._sign
        self._current = ""
        tls = settings.tls
        if tls.server_name:
            self._session.mount("https://", _NamedAdapter(tls.server_name))
        options: dict[str, Any] = {
            "address": settings.address,
            "region": settings.region or None,
            "timeout": settings.request_timeout_seconds,
            "verify": tls.ca_file or True,
            "cert": (tls.cert_file, tls.key_file) if tls.cert_file else (),
            "session": self._session,
        }
        self._allocation = nomad.api.Allocation(**options)
        self._agent = nomad.api.Agent(**options)
        self._job = nomad.api.Job(**options)
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._deadline_seconds = settings.request_timeout_seconds * 2

    def close(self) -> None:
        """Let the threads go; a later call starts new ones. A call under way ends by its own time-out."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    async def allocation(self, allocation_id: str) -> Row:
        """One allocation with its job."""
        return dict(await self._run(lambda: self._allocation.get_allocation(part(allocation_id))))

    async def agent(self) -> Row:
        """The agent's own description (`/v1/agent/self`)."""
        return dict(await self._run(self._agent.get_agent))

    async def job(self, namespace: str, job_id: str) -> Row:
        """One job."""
        return dict(await self._run(lambda: self._job.get_job(part(job_id), namespace=namespace)))

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._current:
            request.headers["X-Nomad-Token"] = self._current
        return request

    async def _run(self, call: Callable[[], Any]) -> Any:
        """The read in a thread. AnswerError and UnavailableError as the client raises them."""
        return await outlast_election(lambda: self._once(call))

    async def _once(self, call: Callable[[], Any]) -> Any:
        """Once more with another token, where the first was denied and has been replaced meanwhile."""
        token = await self._token.get()
        try:
            return await self._in_thread(call, token)
        except AnswerError as error:
            if error.status != 403 or (fresh := await self._token.get(fresh=True)) == token:
                raise
        return await self._in_thread(call, fresh)

    async def _in_thread(self, call: Callable[[], Any], token: str) -> Any:
        loop = asyncio.get_running_loop()
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="nomad-sdk")
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await loop.run_in_executor(self._threads, self._call, call, token)
        except TimeoutError as error:
            raise UnavailableError("Nomad did not answer in time") from error

    def _call(self, call: Callable[[], Any], token: str) -> Any:
        self._current = token
        try:
            return call()
        except nomad.api.exceptions.BaseNomadException as error:
            response = error.nomad_resp
            if isinstance(response, requests.Response):
                path = urllib.parse.urlsplit(response.url).path
                raise AnswerError(response.status_code, response.text, path=path) from None
            raise UnavailableError(f"Nomad cannot be reached: {error}") from error
        except (requests.RequestException, ValueError) as error:
            raise UnavailableError(f"Nomad cannot be reached: {error}") from error
