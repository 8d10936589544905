"""The cluster's public keys for workload identities: fetched, kept, fetched again for an unknown key id.

It must not fetch at the pace of callers: an unknown key id costs at most one fetch in a while, a failure too.
The library of tokens is imported by the first token only: it is 8 MiB, which most services never need.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from adapters.nomad import errors
from adapters.nomad.client import Client
from adapters.nomad.errors import AnswerError
from bridge.model.failure import UnavailableError

if TYPE_CHECKING:
    import jwt

ALGORITHMS = ("RS256", "EdDSA")
"""RS256 since 1.7; EdDSA for keys that are older than that."""

_LEAST_SECONDS_BETWEEN = 5.0


class Keys:
    """Key id -> public key."""

    def __init__(self, client: Client, *, keep_seconds: float, least_seconds: float = _LEAST_SECONDS_BETWEEN) -> None:
        self._client = client
        self._keep_seconds = keep_seconds
        self._least_seconds = least_seconds
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")
        self._fetching = asyncio.Lock()
        self._failed = float("-inf")
        self._failure = ""

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key, or None when the cluster does not have it. UnavailableError when that cannot be known now."""
        age = time.monotonic() - self._fetched
        if age > self._keep_seconds or (kid not in self._keys and age > self._least_seconds):
            await self._fetch(age)
        return self._keys.get(kid)

    async def _fetch(self, age: float) -> None:
        async with self._fetching:
            if time.monotonic() - self._fetched < age:
                return  # somebody else has just done it
            if time.monotonic() - self._failed < self._least_seconds:
                raise UnavailableError(self._failure)
            try:
                answer = await self._client.get("/.well-known/jwks.json")
            except (AnswerError, UnavailableError) as error:
                self._failed = time.monotonic()
                self._failure = str(
                    errors.as_error(error, "read the cluster's public keys")
                    if isinstance(error, AnswerError)
                    else error
                )
                raise UnavailableError(self._failure) from None
            import jwt

            found: dict[str, jwt.PyJWK] = {}
            for row in (answer.data or {}).get("keys") or ():
                try:
                    key = jwt.PyJWK(row)
                except jwt.PyJWTError:
                    continue  # a kind of key that we do not know signs nothing that we accept
                if key.key_id and row.get("alg", "RS256") in ALGORITHMS:
                    found[key.key_id] = key
            self._keys = found
            self._fetched = time.monotonic()
