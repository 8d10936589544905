"""Requests to an API server over connections that stay open, one per thread: what a test writes itself."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.parse
from typing import Any

from tests.support.bed import access

Object = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"
_TIMEOUT_SECONDS = 30.0
_IDLE_SECONDS = 20.0
"""A connection that was not used for so long is opened anew: the server may have closed it."""


class RefusedError(RuntimeError):
    """The API server said no."""

    def __init__(self, what: str, status: int, text: str) -> None:
        self.status = status
        super().__init__(f"{what}: {status} {text}")


class Calls:
    """One identity's calls. Safe to use from several threads."""

    def __init__(self, admin: access.Access) -> None:
        self._admin = admin
        self._host = urllib.parse.urlsplit(admin.url).netloc
        self._context = ssl.create_default_context(cafile=str(admin.certificate_authority))
        self._mine = threading.local()
        self._open: list[http.client.HTTPSConnection] = []

    def get(self, path: str) -> Object:
        return self._send("GET", path)

    def create(self, path: str, body: Object) -> Object:
        return self._send("POST", path, body)

    def put(self, path: str, body: Object) -> Object:
        return self._send("PUT", path, body)

    def patch(self, path: str, body: Object) -> Object:
        """A merge patch."""
        return self._send("PATCH", path, body, MERGE_PATCH)

    def delete(self, path: str, *, missing_is_fine: bool = True) -> None:
        try:
            self._send("DELETE", path)
        except RefusedError as error:
            if error.status != 404 or not missing_is_fine:
                raise

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._open:
            connection.close()

    def _connection(self) -> http.client.HTTPSConnection:
        found: http.client.HTTPSConnection | None = getattr(self._mine, "connection", None)
        if found is None:
            found = http.client.HTTPSConnection(self._host, timeout=_TIMEOUT_SECONDS, context=self._context)
            self._mine.connection = found
            self._open.append(found)
        elif time.monotonic() - self._mine.used > _IDLE_SECONDS:
            found.close()
        self._mine.used = time.monotonic()
        return found

    def _send(self, verb: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        connection = self._connection()
        headers = {"Authorization": f"Bearer {self._admin.token}", "Content-Type": kind}
        connection.request(verb, path, None if body is None else json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RefusedError(f"{verb} {path}", answer.status, text.decode()[:400])
        found: Object = json.loads(text)
        return found
