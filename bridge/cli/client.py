"""The API's client, over http.client alone. Answers are plain dicts; problems end the command with their code."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from bridge.cli import exits
from bridge.cli.connection import Address, Connection
from bridge.cli.faults import LostError, ProblemError

Json = dict[str, Any]
Query = Mapping[str, str | int | Sequence[str]]

TIMEOUT_SECONDS = 40.0
REPEATS = 3
PAGE = 500


class Client:
    """One kept connection to the service; safe to use after a failure."""

    def __init__(self, connection: Connection) -> None:
        self._to = connection
        self._link: http.client.HTTPConnection | None = None

    @property
    def address(self) -> str:
        """As the user gave it."""
        return self._to.address.text

    def get(self, path: str, query: Query | None = None, *, timeout: float = TIMEOUT_SECONDS) -> Json:
        """Read; repeated when the connection breaks."""
        return self._repeat("GET", path, query, timeout=timeout)

    def post(self, path: str, body: Json, *, key: str) -> Json:
        """Create; repeated when the connection breaks, which the key makes safe."""
        if not (key.isascii() and key.isprintable()):
            raise exits.Stop(
                "the idempotency key is not plain ASCII", hint="use letters and digits", code=exits.USAGE
            )
        return self._repeat("POST", path, None, body=body, headers={"Idempotency-Key": key})

    def delete(self, path: str, query: Query | None = None) -> Json:
        """Delete; never repeated: a second one would find nothing. So it does not trust a kept connection."""
        self.close()
        return self._once("DELETE", path, query)

    def items(self, path: str, query: Query, *, limit: int = 0) -> Iterator[Json]:
        """Every item of a list, page by page; at most `limit` unless it is 0."""
        token, given = "", 0
        while True:
            size = min(PAGE, limit - given) if limit else PAGE
            page = self.get(path, {**query, "per_page": size, "next_token": token})
            for item in page["items"]:
                yield item
                given += 1
            token = page["nextToken"]
            if not token or (limit and given >= limit):
                return

    def close(self) -> None:
        """Let the connection go."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _repeat(self, method: str, path: str, query: Query | None, **options: Any) -> Json:
        for repeat in range(1, REPEATS + 1):
            try:
                return self._once(method, path, query, **options)
            except LostError as error:
                if not error.broke or repeat == REPEATS:
                    raise
                time.sleep(0.2 * repeat)
        raise AssertionError("unreachable")

    def _once(
        self,
        method: str,
        path: str,
        query: Query | None,
        *,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Json:
        target = path + (f"?{urlencode(_pairs(query), quote_via=quote)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        sent = False
        try:
            link = self._connected(timeout)
            sent = True
            link.request(method, target, data, {**self._headers(data is not None), **(headers or {})})
            answer = link.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._lost(error, sent, timeout) from error
        return self._read(answer, raw)

    def _connected(self, timeout: float) -> http.client.HTTPConnection:
        if self._link is None:
            self._link = _open(self._to, timeout)
            self._link.connect()
        elif self._link.sock is None:  # the service closed it after its last answer
            self._link.connect()
        self._link.sock.settimeout(timeout)
        return self._link

    def _headers(self, has_body: bool) -> dict[str, str]:
        found = {"Accept": "application/json", "User-Agent": "snapbridge-cli"}
        if self._to.token:
            found["Authorization"] = f"Bearer {self._to.token}"
        if has_body:
            found["Content-Type"] = "application/json"
        return found

    def _read(self, answer: http.client.HTTPResponse, raw: bytes) -> Json:
        kind = answer.headers.get_content_type()
        try:
            document = json.loads(raw) if kind in ("application/json", "application/problem+json") else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            hint = "check the address: something else seems to listen there"
            raise exits.Stop(f"what answers at {self.address} does not speak this API", hint=hint)
        if answer.status >= 400:
            raise ProblemError(answer.status, document)
        return document

    def _lost(self, error: Exception, sent: bool, timeout: float) -> LostError:
        where = self.address
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = "name its certificate authority with --ca-file or SNAPBRIDGE_CA_FILE"
            return LostError(f"the certificate of {where} is not trusted: {error.verify_message}", hint)
        if isinstance(error, ssl.SSLError):
            hint = "check that the address is https:// and the client certificate is accepted"
            return LostError(f"no secure connection to {where}: {error.reason or 'TLS failed'}", hint)
        if isinstance(error, TimeoutError):
            return LostError(
                f"{where} did not answer within {timeout:.0f} s", "look at its log; what was asked may still happen"
            )
        if sent:
            return LostError(f"the connection to {where} broke", "look whether the service runs", broke=True)
        reason = getattr(error, "strerror", None) or str(error)
        hint = "start it with `snapbridge serve -c FILE`, or name its address with --addr or SNAPBRIDGE_ADDR"
        return LostError(f"no service answers at {where} ({reason})", hint)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


def _open(to: Connection, timeout: float) -> http.client.HTTPConnection:
    address: Address = to.address
    if address.path:
        return _UnixConnection(address.path, timeout)
    if not address.secure:
        return http.client.HTTPConnection(address.host, address.port, timeout=timeout)
    try:
        context = ssl.create_default_context(cafile=to.ca_file or None)
        if to.cert_file:
            context.load_cert_chain(to.cert_file, to.key_file)
    except OSError as error:
        hint = "check --ca-file, --cert-file and --key-file (PEM)"
        raise exits.Stop(
            f"the TLS files cannot be used: {error.strerror or error}", hint=hint, code=exits.USAGE
        ) from None
    return http.client.HTTPSConnection(address.host, address.port, timeout=timeout, context=context)


def _pairs(query: Query) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in query.items():
        values = [str(value)] if isinstance(value, str | int) else [str(item) for item in value]
        found += [(name, item) for item in values if item != ""]
    return found
