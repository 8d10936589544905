"""One HTTP client per cluster: region, namespace, token, TLS, deadlines, index headers, text errors.

It knows conventions and no endpoint. It never repeats a call that may have had an effect: it repeats a read whose
connection broke or that found no leader, and a call that was denied before Nomad looked at it, when the token has
changed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import aiohttp
import orjson
import yarl

from adapters.nomad import errors
from adapters.nomad.errors import AnswerError
from adapters.nomad.settings import Settings, Tls
from adapters.nomad.token import Token
from bridge.model.failure import InvalidError, UnavailableError

T = TypeVar("T")
Query = Mapping[str, str] | Sequence[tuple[str, str]]

_WAIT_MARGIN_SECONDS = 15.0
_LEADER_PAUSES_SECONDS = (0.25, 0.5, 1.0)
"""The servers themselves have waited some seconds for a leader before they say that there is none."""
_MOST_ERROR_BYTES = 64 << 10


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A good answer. `index` is X-Nomad-Index (0 where Nomad gives none), `next_token` the next page's token."""

    data: Any
    index: int = 0
    next_token: str = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


class UnreadableError(UnavailableError):
    """The agent's answer is no HTTP that a client can read (Nomad 1.11.2's event stream, GH-27586)."""


class BrokenError(UnavailableError):
    """The connection broke before the answer came. A read may be tried again; a write may have been done."""


def part(text: str) -> str:
    """One path segment, quoted whole: ids may hold brackets, blanks and slashes."""
    return urllib.parse.quote(text, safe="")


def ssl_context(tls: Tls) -> ssl.SSLContext:
    """The context for https addresses; verification is on. Reads files, so call it in a thread.

    InvalidError when a file is missing or is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file or None)
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidError(
            f"the TLS files cannot be used: {error}", field="tls", hint="check ca_file, cert_file and key_file"
        ) from error
    return context


async def outlast_election(read: Callable[[], Awaitable[T]]) -> T:
    """A read, again while the servers have no leader, for some seconds. Nothing with an effect belongs here."""
    for pause in _LEADER_PAUSES_SECONDS:
        try:
            return await read()
        except AnswerError as error:
            if not errors.is_leaderless(error):
                raise
        await asyncio.sleep(pause * random.uniform(0.75, 1.25))
    return await read()


class Client:
    """Calls one agent. Safe to use from many tasks; close it at the end."""

    def __init__(
        self, settings: Settings, token: Token | None = None, *, fence: Callable[[], str] = lambda: ""
    ) -> None:
        """`fence` tells why nothing may be written at this moment; it is asked right before each write."""
        self.settings = settings
        self._fence = fence
        self.token = token or Token(settings.token_file, settings.token_env)
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._unix = settings.address.startswith("unix://")
        self._base = "http://localhost" if self._unix else settings.address

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None or self._session.closed:
                settings = self.settings
                if self._unix:
                    connector: aiohttp.BaseConnector = aiohttp.UnixConnector(
                        settings.address.removeprefix("unix://"), limit=settings.connections
                    )
                elif settings.address.startswith("https://"):
                    context = await asyncio.to_thread(ssl_context, settings.tls)
                    connector = aiohttp.TCPConnector(ssl=context, limit=settings.connections)
                else:
                    connector = aiohttp.TCPConnector(limit=settings.connections)
                session = aiohttp.ClientSession(connector=connector)
                # aiohttp sends a PUT or DELETE again by itself when the connection breaks. It may have been done,
                # so whoever made the call must know. No public switch exists; a test holds this one.
                session._retry_connection = False
                self._session = session
            return self._session

    async def close(self) -> None:
        """Close the connections. Calls after that open new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(
        self,
        path: str,
        query: Query | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Read. AnswerError for an error answer, UnavailableError when there is none in time."""
        return await self.call("GET", path, query, headers=headers, timeout_seconds=timeout_seconds)

    async def wait(self, path: str, query: Mapping[str, str] | None, *, index: int, wait_seconds: float) -> Answer:
        """A blocking read: returns when something is newer than `index`, or when the time is up."""
        asked = {**(query or {}), "index": str(index), "wait": f"{max(1, round(wait_seconds * 1000))}ms"}
        return await self.call("GET", path, asked, timeout_seconds=wait_seconds * 17 / 16 + _WAIT_MARGIN_SECONDS)

    async def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """One call. The path is quoted already. A 403 is tried once more if the token has changed; a read outlives
        a change of leader that takes no longer than a few seconds."""
        seconds = timeout_seconds or self.settings.request_timeout_seconds
        if method != "GET" and (reason := self._fence()):
            raise UnavailableError(f"{method} {path} was not sent: {reason}", hint="the leader does it")

        async def once() -> Answer:
            return await self._signed(method, path, query, body=body, headers=headers, seconds=seconds)

        return await (outlast_election(once) if method == "GET" else once())

    async def _signed(
        self, method: str, path: str, query: Query | None, *, body: Any, headers: Any, seconds: float
    ) -> Answer:
        """The call with the token of the moment."""
        token = await self.token.get()
        try:
            return await self._once(method, path, query, token, body=body, headers=headers, seconds=seconds)
        except BrokenError:
            if method != "GET":  # a connection that was kept too long, most often; but a write may have been done
                raise
        except AnswerError as error:
            if error.status != 403:
                raise
            fresh = await self.token.get(fresh=True)
            if fresh == token:
                raise
            token = fresh
        return await self._once(method, path, query, token, body=body, headers=headers, seconds=seconds)

    async def _once(  # noqa: PLR0913 - the wire's own parts
        self,
        method: str,
        path: str,
        query: Query | None,
        token: str,
        *,
        body: Any,
        headers: Mapping[str, str] | None,
        seconds: float,
    ) -> Answer:
        async with self._request(
            method, path, query, token, data=None if body is None else orjson.dumps(body), headers=headers,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:  # fmt: skip
            raw = await response.read()
        index = _number(response.headers.get("X-Nomad-Index", ""))
        if response.status >= 400:
            text = raw[:_MOST_ERROR_BYTES].decode(errors="replace")
            raise AnswerError(response.status, text, path=path, index=index)
        return Answer(
            _decode(raw, path), index, response.headers.get("X-Nomad-NextToken", ""), dict(response.headers)
        )

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, path: str, query: Query | None, token: str, **rest: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        session = await self._open()
        url = self._url(path, query)
        headers = dict(rest.pop("headers", None) or {})
        if token:
            headers["X-Nomad-Token"] = token
        if rest.get("data") is not None:
            headers["Content-Type"] = "application/json"
        if self.settings.tls.server_name and not self._unix:
            rest["server_hostname"] = self.settings.tls.server_name
        try:
            async with session.request(method, url, headers=headers, allow_redirects=False, **rest) as response:
                yield response
        except TimeoutError as error:
            raise UnavailableError(
                f"{self.settings.address} did not answer {method} {path} in time", hint="it may have been done"
            ) from error
        except aiohttp.ClientResponseError as error:
            raise UnreadableError(f"{self.settings.address} answered {path} unreadably: {error.message}") from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise UnavailableError(f"{self.settings.address} cannot be reached: {error}") from error
            raise BrokenError(f"{self.settings.address} broke off while answering {method} {path}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"{self.settings.address} cannot be reached: {error}") from error

    def _url(self, path: str, query: Query | None) -> yarl.URL:
        asked = list(query.items() if isinstance(query, Mapping) else query or ())
        if self.settings.region:
            asked.append(("region", self.settings.region))
        url = yarl.URL(f"{self._base}{path}", encoded=True)
        return yarl.URL(f"{url}?{urllib.parse.urlencode(asked)}", encoded=True) if asked else url

    @contextlib.asynccontextmanager
    async def websocket(self, path: str, query: Query) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A websocket. It has no deadline of its own. UnavailableError when it cannot be opened."""
        session = await self._open()
        token = await self.token.get(fresh=True)
        rest: dict[str, Any] = {"headers": {"X-Nomad-Token": token}} if token else {}
        if self.settings.tls.server_name and not self._unix:
            rest["server_hostname"] = self.settings.tls.server_name
        timeout = aiohttp.ClientWSTimeout(ws_close=1.0)
        try:
            socket = await session.ws_connect(self._url(path, query), max_msg_size=0, timeout=timeout, **rest)
        except aiohttp.WSServerHandshakeError as error:
            raise UnavailableError(f"{self.settings.address} gave no websocket for {path}: {error.status}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"{self.settings.address} cannot be reached: {error}") from error
        try:
            yield socket
        except (aiohttp.ClientError, ConnectionError) as error:
            raise BrokenError(f"{self.settings.address} broke off in {path}") from error
        finally:
            await socket.close()

    @contextlib.asynccontextmanager
    async def lines(self, path: str, query: Query) -> AsyncIterator[AsyncIterator[bytes]]:
        """An endless answer, line by line. It has no deadline of its own: the reader sets one per line.

        AnswerError for an error answer; UnavailableError when the connection cannot be made or breaks.
        """
        token = await self.token.get(fresh=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.settings.request_timeout_seconds)
        async with self._request("GET", path, query, token, timeout=timeout) as response:
            if response.status >= 400:
                raise AnswerError(response.status, await response.text(errors="replace"), path=path)
            yield _split(response.content.iter_any())


async def _split(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a stream. aiohttp's own readline refuses lines over 128 KiB, and a job may be longer."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            yield line


def _decode(raw: bytes, path: str) -> Any:
    if not raw.strip():
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UnavailableError(f"the answer to {path} is not JSON", hint="is the address Nomad's?") from error


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
