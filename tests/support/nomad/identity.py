"""Workload identities: the agent's RSA key, its JWKS, and the tokens of tasks (nomad.md 3.5).

It must not decide what a token may do; acl.py does.
"""

from __future__ import annotations

import base64
import functools
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.nomad.state import Allocation, Row, new_id

SECOND = 1_000_000_000


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    """One key for the test run: making one takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _base64url(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Signer:
    """The keyring of one region. `rotate` adds a key, as Nomad does every 720 h."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.key_id = ""
        self._use(_key())

    def _use(self, key: rsa.RSAPrivateKey) -> None:
        self.key_id = new_id()
        self.keys[self.key_id] = key

    def rotate(self, *, forget_old: bool = False) -> None:
        """Sign with a new key from now on; the old one stays in the JWKS unless it is forgotten."""
        if forget_old:
            self.keys.clear()
        self._use(rsa.generate_private_key(public_exponent=65537, key_size=2048))

    def jwks(self) -> Row:
        keys = []
        for key_id, key in self.keys.items():
            numbers = key.public_key().public_numbers()
            keys.append({"use": "sig", "kty": "RSA", "kid": key_id, "alg": "RS256", "n": _base64url(numbers.n),
                         "e": _base64url(numbers.e)})  # fmt: skip
        return {"keys": keys}

    def sign(self, allocation: Allocation, task: str, identity: Row) -> str:
        """The token of one identity block of one task."""
        job = allocation.job
        name = identity["Name"]
        # The parent's id for a dispatched or periodic child.
        job_id = job["ParentID"] or job["ID"]
        issued = int(time.time())
        audience = identity["Audience"] or []
        claims: dict[str, Any] = {
            "sub": f"{self.region}:{allocation.namespace}:{job_id}:{allocation.group}:{task}:{name}",
            "aud": audience[0] if len(audience) == 1 else audience, "iat": issued, "nbf": issued, "jti": new_id(),
            "nomad_namespace": allocation.namespace, "nomad_job_id": job_id,
            "nomad_allocation_id": allocation.id, "nomad_task": task,
        }  # fmt: skip
        if identity["TTL"]:
            claims["exp"] = issued + identity["TTL"] // SECOND
        return self.encode(claims)

    def encode(self, claims: dict[str, Any]) -> str:
        """Sign any claims; tests use it for tokens that a verifier must refuse."""
        return jwt.encode(claims, self.keys[self.key_id], algorithm="RS256", headers={"kid": self.key_id})

    def verify(self, token: str) -> dict[str, Any] | None:
        """The claims of a token that this region signed and that has not expired; None otherwise."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
            key = self.keys.get(key_id)
            if key is None:
                return None
            claims: dict[str, Any] = jwt.decode(
                token, key.public_key(), algorithms=["RS256"], options={"verify_aud": False}
            )
        except jwt.PyJWTError:
            return None
        return claims
