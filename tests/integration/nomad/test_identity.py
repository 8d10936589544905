"""Workload identities: who is let in, who is not, and as whom. The fake agent signs as a real one does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adapters.nomad.client import Client
from adapters.nomad.identity import WorkloadIdentities
from adapters.nomad.jwks import Keys
from adapters.nomad.sdk import Direct
from adapters.nomad.settings import IdentitySettings
from bridge.model.failure import DeniedError, UnavailableError
from tests.integration.nomad.conftest import job, make_volume, register
from tests.integration.nomad.doubles import until
from tests.support.nomad.agent import FakeNomad


@pytest.fixture
async def allocation(agent: FakeNomad, client: Client) -> str:
    """A running allocation of job `web`, whose group claims the volumes `v1` and, by its place, `pa[0]`."""
    await make_volume(client, "v1")
    await make_volume(client, "pa%5B0%5D", ID="pa[0]")
    row = job("web", "v1")
    row["TaskGroups"][0]["Volumes"]["own"] = {
        "Type": "csi", "Source": "pa", "PerAlloc": True, "AccessMode": "single-node-writer",
        "AttachmentMode": "file-system",
    }  # fmt: skip
    await register(client, row)
    rows = await agent.job_settled("web")
    return rows[0].id


def claims(allocation: str, **more: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "aud": "snapbridge", "iat": now, "nbf": now, "exp": now + 900, "jti": "j",
        "nomad_allocation_id": allocation, "nomad_job_id": "web", "nomad_namespace": "default",
        "nomad_task": "main", "sub": "global:default:web:g:main:snapbridge",
    } | more  # fmt: skip


def checker(client: Client, **settings: Any) -> WorkloadIdentities:
    """It asks for unknown keys once only: no test is as long as the least time between two looks."""
    made = IdentitySettings(**settings)
    keys = Keys(client, keep_seconds=made.jwks_seconds, least_seconds=600)
    return WorkloadIdentities("east", made, keys, Direct(client))


def sign(agent: FakeNomad, payload: dict[str, Any]) -> str:
    """A token as the agent's own key signs it."""
    return agent.identity.encode(payload)


async def test_a_running_task_is_let_in_as_itself(agent: FakeNomad, client: Client, allocation: str) -> None:
    caller = await checker(client).check(sign(agent, claims(allocation)))
    assert caller is not None
    assert caller.name == "nomad:east/default/web/g/main"
    assert caller.volumes == {"v1", "pa[0]"}
    assert (caller.clusters, caller.namespaces) == ({"east"}, {"default"})
    assert caller.labels == (("job", "web"), ("group", "g"), ("allocation", allocation))


async def test_no_job_goes_by_anothers_name(agent: FakeNomad, client: Client) -> None:
    """What a caller has asked for is found again by its name: job `a/b`, group `g` is not job `a`, group `b/g`."""
    await make_volume(client, "v1")
    await make_volume(client, "v2")
    names = []
    for job_id, volume, group in (("a/b", "v1", "g"), ("a", "v2", "b/g")):
        row = job(job_id, volume)
        row["TaskGroups"][0]["Name"] = group
        await register(client, row)
        (found,) = await agent.job_settled(job_id)
        caller = await checker(client).check(sign(agent, claims(found.id, nomad_job_id=job_id)))
        assert caller is not None
        names.append(caller.name)
    assert names[0] != names[1], names


async def test_the_audience_may_be_one_of_several(agent: FakeNomad, client: Client, allocation: str) -> None:
    token = sign(agent, claims(allocation, aud=["vault", "snapbridge"]))
    assert await checker(client).check(token) is not None


async def test_an_identity_without_a_ttl(agent: FakeNomad, client: Client, allocation: str) -> None:
    payload = claims(allocation)
    del payload["exp"]
    assert await checker(client).check(sign(agent, payload)) is not None
    with pytest.raises(DeniedError, match="no 'exp'"):
        await checker(client, require_expiry=True).check(sign(agent, payload))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"aud": "nomadproject.io"}, "not made for 'snapbridge'"),
        ({"aud": ["vault"]}, "not made for 'snapbridge'"),
        ({"exp": 1}, "has expired"),
        ({"nbf": 4102444800}, "not good"),
        ({"nomad_job_id": "other"}, "not of the job"),
        ({"nomad_namespace": "prod"}, "not of the job"),
        ({"nomad_allocation_id": "00000000-0000-0000-0000-000000000000"}, "does not exist"),
    ],
)
async def test_who_is_denied(
    agent: FakeNomad, client: Client, allocation: str, change: dict[str, Any], part: str
) -> None:
    with pytest.raises(DeniedError, match=part):
        await checker(client).check(sign(agent, claims(allocation, **change)))


async def test_no_audience_at_all(agent: FakeNomad, client: Client, allocation: str) -> None:
    payload = claims(allocation)
    del payload["aud"]
    with pytest.raises(DeniedError, match="'aud'"):
        await checker(client).check(sign(agent, payload))


async def test_an_issuer_that_is_asked_for(agent: FakeNomad, client: Client, allocation: str) -> None:
    good = sign(agent, claims(allocation, iss="https://nomad.example"))
    assert await checker(client, issuer="https://nomad.example").check(good) is not None
    with pytest.raises(DeniedError):
        await checker(client, issuer="https://nomad.example").check(sign(agent, claims(allocation)))


async def test_a_stopped_allocation_is_denied(agent: FakeNomad, client: Client, allocation: str) -> None:
    token = sign(agent, claims(allocation))
    await client.call("DELETE", "/v1/job/web")
    await agent.job_settled("web")
    with pytest.raises(DeniedError, match="does not run"):
        await checker(client).check(token)


async def test_a_group_without_volumes_gets_nothing(agent: FakeNomad, client: Client) -> None:
    """No volumes would mean no limit."""
    row = job("plain")
    row["TaskGroups"][0]["Volumes"] = None
    await register(client, row)
    rows = await agent.job_settled("plain")
    with pytest.raises(DeniedError, match="claims no CSI volume"):
        await checker(client).check(sign(agent, claims(rows[0].id, nomad_job_id="plain")))


@pytest.mark.parametrize("other", ["", "secret-token", "a.b.c", "e30.e30.e30", "x" * 20_000])
async def test_what_is_no_workload_identity_is_not_judged(client: Client, other: str) -> None:
    assert await checker(client).check(other) is None


async def test_a_token_of_another_kind_is_not_judged(agent: FakeNomad, client: Client) -> None:
    assert await checker(client).check(sign(agent, {"sub": "system:serviceaccount:a:b", "aud": "snapbridge"})) is None


async def test_a_key_of_another_cluster_is_not_judged_and_does_not_hammer(
    agent: FakeNomad, client: Client, allocation: str
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = jwt.encode(claims(allocation), key, algorithm="RS256", headers={"kid": "elsewhere"})
    check = checker(client)
    agent.calls.clear()
    for _ in range(5):
        assert await check.check(token) is None
    assert len([c for c in agent.calls if c.path == "/.well-known/jwks.json"]) == 1


async def test_a_forged_signature_under_a_known_key_id(agent: FakeNomad, client: Client, allocation: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = jwt.encode(claims(allocation), key, algorithm="RS256", headers={"kid": agent.identity.key_id})
    with pytest.raises(DeniedError, match="not good"):
        await checker(client).check(token)


def by_hand(header: dict[str, Any], payload: dict[str, Any], key: bytes = b"") -> str:
    """A token that no library would make: signed with what everybody knows, or with nothing."""
    said = b".".join(_base64url(json.dumps(part).encode()) for part in (header, payload))
    algorithm = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}.get(header["alg"])
    signature = hmac.new(key, said, algorithm).digest() if algorithm else b""
    return b".".join((said, _base64url(signature))).decode()


def _base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


async def is_refused(check: WorkloadIdentities, token: str) -> bool:
    """Denied for its signature, or not even judged."""
    try:
        return await check.check(token) is None
    except DeniedError as error:
        return "not good" in error.message


async def test_no_token_is_taken_for_one_that_the_public_key_signed(
    agent: FakeNomad, client: Client, allocation: str
) -> None:
    """The public key is everybody's: read as a shared secret, in any of its forms, it would let everybody in."""
    payload, kid = claims(allocation), agent.identity.key_id
    public = agent.identity.keys[kid].public_key()
    (row,) = agent.identity.jwks()["keys"]
    forms = [
        public.public_bytes(encoding, form)
        for encoding in (Encoding.PEM, Encoding.DER)
        for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1)
    ]
    forms += [row["n"].encode(), json.dumps(row).encode(), b""]
    for algorithm in ("HS256", "HS512"):
        for key in forms:
            with pytest.raises(DeniedError, match="not good"):
                await checker(client).check(by_hand({"alg": algorithm, "kid": kid, "typ": "JWT"}, payload, key))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "RS512", "PS256", "ES256", "EdDSA"])
async def test_other_algorithms_are_refused(
    agent: FakeNomad, client: Client, allocation: str, algorithm: str
) -> None:
    good = sign(agent, claims(allocation)).rpartition(".")[2]
    made = by_hand({"alg": algorithm, "kid": agent.identity.key_id}, claims(allocation))
    for token in (made, made + good):  # without a signature, and with one that fits another header
        assert await is_refused(checker(client), token), token


async def test_a_key_that_is_no_signing_key_of_nomads_signs_nothing(
    agent: FakeNomad, client: Client, allocation: str
) -> None:
    """Whatever else stands in the list of keys: a shared secret in it is none of ours, with or without its `alg`."""
    secret = b"k" * 64
    listed = agent.identity.jwks()
    shared = {"kty": "oct", "k": _base64url(secret).decode(), "use": "sig"}
    listed["keys"] += [{**shared, "kid": "plain"}, {**shared, "kid": "named", "alg": "HS256"}, {"kid": "broken"}, {}]
    agent.identity.jwks = lambda: listed  # type: ignore[method-assign]
    check = checker(client)
    for kid in ("plain", "named", "broken"):
        token = by_hand({"alg": "HS256", "kid": kid}, claims(allocation), secret)
        assert await is_refused(check, token), kid
    assert await check.check(sign(agent, claims(allocation))) is not None, "the others count all the same"


async def test_the_default_identity_is_denied_whatever_its_audience(
    agent: FakeNomad, client: Client, allocation: str
) -> None:
    payload = claims(allocation, sub="global:default:web:g:main:default", aud=["nomadproject.io", "snapbridge"])
    with pytest.raises(DeniedError, match="default identity") as caught:
        await checker(client).check(sign(agent, payload))
    assert "identity block of its own" in caught.value.hint


async def test_a_token_of_the_last_key_is_good_while_the_key_is_listed(
    agent: FakeNomad, client: Client, allocation: str
) -> None:
    keys = Keys(client, keep_seconds=300, least_seconds=0)
    check = WorkloadIdentities("east", IdentitySettings(), keys, Direct(client))
    before = sign(agent, claims(allocation))
    agent.identity.rotate()
    after = sign(agent, claims(allocation))
    assert await check.check(before) is not None
    assert await check.check(after) is not None
    agent.identity.rotate(forget_old=True)
    assert await check.check(sign(agent, claims(allocation))) is not None
    assert await check.check(before) is None, "a key that the cluster has given up is nobody's"


async def test_a_completed_allocation_is_denied(agent: FakeNomad, client: Client) -> None:
    await make_volume(client, "v2")
    row = job("once", "v2")
    row["TaskGroups"][0]["Tasks"][0]["Config"] = {"command": "/bin/true"}
    row["Type"] = "batch"
    await register(client, row)
    rows = await agent.job_settled("once")
    await until(lambda: rows[0].terminal, "the task has ended", 20)
    with pytest.raises(DeniedError, match="does not run"):
        await checker(client).check(sign(agent, claims(rows[0].id, nomad_job_id="once")))


async def test_keys_that_cannot_be_read_are_not_asked_for_at_the_pace_of_callers(
    agent: FakeNomad, client: Client, allocation: str
) -> None:
    agent.fail_next("GET", "/.well-known/jwks.json", times=50)
    check, token = checker(client), sign(agent, claims(allocation))
    counts = []
    for _ in range(5):
        with pytest.raises(UnavailableError):
            await check.check(token)
        counts.append(len([c for c in agent.calls if c.path == "/.well-known/jwks.json"]))
    assert counts == counts[:1] * 5, "one try with its repeats"


async def test_keys_that_cannot_be_read_are_no_denial(agent: FakeNomad, client: Client, allocation: str) -> None:
    agent.fail_next("GET", "/.well-known/jwks.json", times=5)
    with pytest.raises(UnavailableError):
        await checker(client).check(sign(agent, claims(allocation)))
    agent.clear_faults()
    agent.fail_next("GET", "/v1/allocation/*", times=5)
    with pytest.raises(UnavailableError):
        await checker(client).check(sign(agent, claims(allocation)))


async def test_a_rotated_key_is_fetched(agent: FakeNomad, client: Client, allocation: str) -> None:
    keys = Keys(client, keep_seconds=300, least_seconds=0)
    check = WorkloadIdentities("east", IdentitySettings(), keys, Direct(client))
    assert await check.check(sign(agent, claims(allocation))) is not None
    agent.identity.rotate(forget_old=True)
    assert await check.check(sign(agent, claims(allocation))) is not None
