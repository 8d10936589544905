"""The API server's verbs over plain JSON objects: no model classes, no retries but those the server asks for.

A refusal is an ApiError with the server's own reason; a server that does not answer is UnavailableError.
Every call has a deadline. Watching lives in `watch.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import orjson

from adapters.kubernetes import connection
from adapters.kubernetes.connection import Connection
from adapters.kubernetes.names import Resource
from adapters.kubernetes.pacer import Pacer, pacer
from adapters.kubernetes.problem import ApiError
from adapters.kubernetes.settings import Settings
from bridge.model import failure

Object = dict[str, Any]

PAGE_SIZE = 200
THROTTLED_TRIES = 5
MOST_RETRY_AFTER_SECONDS = 30.0
MERGE_PATCH = "application/merge-patch+json"
_JSON = "application/json"
_IDENTITY = ("namespace", "name", "uid", "resourceVersion")
"""What a PUT of a status needs of the metadata; the server takes the rest from what it has."""


class Client:
    """One API server. Safe for many concurrent calls."""

    def __init__(self, connection: Connection, *, timeout_seconds: float = 30.0, pacer: Pacer | None = None) -> None:
        self._connection = connection
        self._pacer = pacer
        self._seconds = timeout_seconds
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self.requests = 0
        """Requests sent so far, for tests and figures."""

    @property
    def host(self) -> str:
        """The API server's address."""
        return self._connection.host

    async def close(self) -> None:
        """Close the connection for good."""
        await self._connection.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object as it stands now."""
        return await self._call("GET", resource.item(namespace, name))

    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> Object:
        """Create an object; ApiError AlreadyExists when the name is taken. `dry_run`: only see whether it may be."""
        query = "?dryRun=All" if dry_run else ""
        return await self._call("POST", resource.collection(namespace) + query, body)

    async def put(self, resource: Resource, body: Mapping[str, Any], *, status: bool = False) -> Object:
        """Replace an object, or its status. The resourceVersion in `body` is the precondition.

        Leave managedFields out of `body`: the server then spends half the work on it. Of a status only that is sent.
        """
        metadata = body["metadata"]
        if status:
            body = {
                **{field: body[field] for field in ("apiVersion", "kind", "status") if field in body},
                "metadata": {field: metadata[field] for field in _IDENTITY if field in metadata},
            }
        path = resource.item(metadata.get("namespace", ""), metadata["name"])
        return await self._call("PUT", f"{path}/status" if status else path, body)

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any], *, status: bool = False
    ) -> Object:
        """Merge `body` into an object; a resourceVersion in it is the precondition."""
        path = resource.item(namespace, name)
        return await self._call("PATCH", f"{path}/status" if status else path, body, MERGE_PATCH)

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str = "", resource_version: str = ""
    ) -> Object:
        """Delete an object, if it is still that one. Returns it as it stood, or a Status when it went at once."""
        wanted = {"uid": uid, "resourceVersion": resource_version}
        preconditions = {field: value for field, value in wanted.items() if value}
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions}
        return await self._call("DELETE", resource.item(namespace, name), body)

    async def page(
        self, resource: Resource, namespace: str = "", *, token: str = "", field_selector: str = ""
    ) -> Object:
        """One page of a consistent list, at most `PAGE_SIZE` objects."""
        query = {"limit": str(PAGE_SIZE)}
        if token:
            query["continue"] = token
        if field_selector:
            query["fieldSelector"] = field_selector
        if resource.label_selector:
            query["labelSelector"] = resource.label_selector
        return await self._call("GET", resource.collection(namespace), query=query)

    async def list(
        self, resource: Resource, namespace: str = "", *, field_selector: str = ""
    ) -> AsyncIterator[Object]:
        """Every object, page by page."""
        token = ""
        while True:
            page = await self.page(resource, namespace, token=token, field_selector=field_selector)
            for item in page.get("items") or ():
                yield item
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    @contextlib.asynccontextmanager
    async def stream(
        self, resource: Resource, query: Mapping[str, str], *, idle_seconds: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """An open watch. It ends with UnavailableError when the server is silent for `idle_seconds`."""
        timeout = aiohttp.ClientTimeout(total=None, connect=15, sock_connect=15, sock_read=idle_seconds)
        if resource.label_selector:
            query = {**query, "labelSelector": resource.label_selector}
        try:
            response = await self._send("GET", resource.collection(), query=query, timeout=timeout)
            async with response:
                if response.status != 200:
                    raise _refusal(response.status, await response.read(), response.headers)
                yield response.content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from error

    async def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = _JSON,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        data = orjson.dumps(body) if body is not None else None
        tries = 0
        while True:
            tries += 1
            if self._pacer is not None:
                await self._pacer.wait()
            try:
                status, payload, headers = await self._exchange(method, path, data, content_type, query)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _unreachable(error) from error
            if status < 300:
                return _decode(payload)
            refusal = _refusal(status, payload, headers)
            if refusal.retry_after_seconds <= 0 or tries >= THROTTLED_TRIES:
                raise refusal
            await asyncio.sleep(refusal.retry_after_seconds)

    async def _exchange(
        self, method: str, path: str, data: bytes | None, content_type: str, query: Mapping[str, str] | None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """One call: status, payload, headers. Small ones go over the kept connections, lists do not."""
        pool = self._connection.pool() if query is None else None
        if pool is not None:
            self.requests += 1
            headers = await self._headers(data, content_type)
            answer = await pool.request(method, path, headers, data, timeout_seconds=self._seconds)
            return answer.status, answer.payload, answer.headers
        response = await self._send(
            method, path, query=query, data=data, content_type=content_type, timeout=self._timeout
        )
        async with response:
            return response.status, await response.read(), response.headers

    async def _headers(self, data: bytes | None, content_type: str) -> dict[str, str]:
        headers = {}
        authorization = await self._connection.authorization()
        if authorization:
            headers["Authorization"] = authorization
        if data is not None:
            headers["Content-Type"] = content_type
        return headers

    async def _send(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,
        query: Mapping[str, str] | None = None,
        data: bytes | None = None,
        content_type: str = _JSON,
    ) -> aiohttp.ClientResponse:
        headers = await self._headers(data, content_type)
        self.requests += 1
        return await self._connection.session().request(
            method,
            self._connection.host + path,
            params=query,
            data=data,
            headers=headers,
            proxy=self._connection.proxy,
            server_hostname=self._connection.server_name,
            timeout=timeout,
            allow_redirects=False,
        )


async def open_client(settings: Settings) -> Client:
    """A client on a way of its own, at the pace that the settings want. InvalidError: they cannot be used."""
    way = await connection.open_connection(settings)
    pace = pacer(settings.api_qps, settings.api_burst)
    return Client(way, timeout_seconds=settings.request_timeout_seconds, pacer=pace)


def _decode(payload: bytes) -> Object:
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise failure.UnavailableError(f"the API server's answer is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise failure.UnavailableError("the API server's answer is not a JSON object")
    return value


def _refusal(status: int, payload: bytes, headers: Mapping[str, str]) -> ApiError:
    """Read a refusal. 429, and 5xx with Retry-After, are the server's wish that we come back."""
    reason, message = "", payload[:300].decode("utf-8", "replace")
    with contextlib.suppress(orjson.JSONDecodeError):
        body = orjson.loads(payload)
        if isinstance(body, dict):
            reason, message = str(body.get("reason") or ""), str(body.get("message") or message)
    wait_seconds = 0.0
    wished = headers.get("retry-after")  # The one sort of mapping has lower case, the other does not care.
    if status == 429 or (status >= 500 and wished is not None):
        with contextlib.suppress(ValueError):
            wait_seconds = min(float(wished or 1), MOST_RETRY_AFTER_SECONDS)
        wait_seconds = max(wait_seconds, 0.05)
    return ApiError(status, reason, message, retry_after_seconds=wait_seconds)


def _unreachable(error: BaseException) -> failure.UnavailableError:
    what = str(error) or type(error).__name__
    return failure.UnavailableError(f"the API server does not answer: {what}")
