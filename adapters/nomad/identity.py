"""Callers with a Nomad workload identity: a signed token, made for us, of an allocation that runs now.

A caller may touch the volumes that its own task group claims, and nothing else. An empty set of volumes would mean
"no limit" to the service, so a group without CSI volumes is denied here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from adapters.nomad import errors
from adapters.nomad.decide import hooks as decide
from adapters.nomad.errors import AnswerError
from adapters.nomad.jwks import ALGORITHMS, Keys
from adapters.nomad.sdk import Reads
from adapters.nomad.settings import IdentitySettings
from bridge.model.failure import DeniedError, UnavailableError
from bridge.ports.identity import Caller

if TYPE_CHECKING:
    import jwt

_LEEWAY_SECONDS = 30.0
_LIVE = ("pending", "running")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LONGEST_TOKEN = 16 << 10

Claims = Mapping[str, Any]


class WorkloadIdentities:
    """The `Authenticator` port for one cluster's workload identities."""

    def __init__(self, cluster: str, settings: IdentitySettings, keys: Keys, reads: Reads) -> None:
        self._cluster = cluster
        self._settings = settings
        self._keys = keys
        self._reads = reads

    async def check(self, bearer: str) -> Caller | None:
        """See `bridge.ports.identity.Authenticator`. A key id that this cluster does not have is not for us."""
        claims, kid = _unverified(bearer)
        if claims is None:
            return None
        key = await self._keys.find(kid)
        if key is None:
            return None
        verified = self._verify(bearer, key)
        allocation = await self._allocation(verified)
        return self._caller(verified, allocation)

    def _verify(self, bearer: str, key: jwt.PyJWK) -> Claims:
        import jwt

        settings = self._settings
        required = ["aud", "exp"] if settings.require_expiry else ["aud"]
        try:
            claims: Claims = jwt.decode(
                bearer,
                key,
                algorithms=list(ALGORITHMS),
                audience=settings.audience,
                issuer=settings.issuer or None,
                leeway=_LEEWAY_SECONDS,
                options={"require": required},
            )
        except jwt.InvalidAudienceError:
            raise DeniedError(
                f"the workload identity is not made for {settings.audience!r}",
                hint=f'give the task an identity block with aud = ["{settings.audience}"]',
            ) from None
        except jwt.ExpiredSignatureError:
            raise DeniedError(
                "the workload identity has expired", hint="read its file again at each call; Nomad renews it"
            ) from None
        except jwt.MissingRequiredClaimError as error:
            raise DeniedError(f"the workload identity has no {error.claim!r}", hint="give it a ttl") from None
        except jwt.PyJWTError as error:
            raise DeniedError(f"the workload identity is not good: {error}") from None
        if str(claims.get("sub") or "").endswith(":default"):
            # Every task has it, whoever wrote its audience: having one says nothing of a wish to call us.
            hint = f'give the task an identity block of its own: name = "snapbridge", aud = ["{settings.audience}"]'
            raise DeniedError("Nomad's default identity is not accepted", hint=hint)
        return claims

    async def _allocation(self, claims: Claims) -> Mapping[str, Any]:
        """The allocation that the token speaks for, alive and of the job that it names."""
        allocation_id = str(claims["nomad_allocation_id"])
        try:
            row = await self._reads.allocation(allocation_id)
        except AnswerError as error:
            if error.status == 404:
                raise DeniedError(f"the allocation {allocation_id} does not exist") from None
            raise UnavailableError(str(errors.as_error(error, f"read the allocation {allocation_id}"))) from None
        if row.get("ClientStatus") not in _LIVE:
            raise DeniedError(f"the allocation {allocation_id} does not run ({row.get('ClientStatus')})")
        job = row.get("Job") or {}
        named = claims["nomad_job_id"]
        if named not in (row.get("JobID"), job.get("ParentID")) or claims["nomad_namespace"] != row.get("Namespace"):
            raise DeniedError(f"the allocation {allocation_id} is not of the job that the identity names")
        return row

    def _caller(self, claims: Claims, allocation: Mapping[str, Any]) -> Caller:
        job, group = str(claims["nomad_job_id"]), str(allocation.get("TaskGroup") or "")
        namespace = str(claims["nomad_namespace"])
        groups = (allocation.get("Job") or {}).get("TaskGroups") or ()
        volumes: tuple[str, ...] = ()
        for row in groups:
            if row.get("Name") == group:
                volumes = decide.claimed(row, str(allocation.get("Name") or ""))
        if not volumes:
            raise DeniedError(
                f"the group {group!r} of job {job!r} claims no CSI volume, so its tasks may ask for nothing",
                hint="call from a task of the group that has the volume block",
            )
        task = str(claims.get("nomad_task") or claims.get("nomad_service") or "")
        place = "/".join(quote(part, safe="") for part in (namespace, job, group, task) if part)
        return Caller(
            name=f"nomad:{self._cluster}/{place}",
            clusters=frozenset({self._cluster}),
            namespaces=frozenset({namespace}),
            volumes=frozenset(volumes),
            labels=(("job", job), ("group", group), ("allocation", str(allocation.get("ID") or ""))),
        )


def _unverified(bearer: str) -> tuple[Claims | None, str]:
    """Whether this looks like one of ours. Nothing is believed yet; nothing is said of tokens that are not."""
    if len(bearer) > _LONGEST_TOKEN or _TOKEN.fullmatch(bearer) is None:
        return None, ""
    import jwt

    try:
        header = jwt.get_unverified_header(bearer)
        claims = jwt.decode(bearer, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError):
        return None, ""
    kid = header.get("kid")
    wanted = ("nomad_allocation_id", "nomad_job_id", "nomad_namespace")
    if not isinstance(kid, str) or not all(isinstance(claims.get(name), str) for name in wanted):
        return None, ""
    return claims, kid
