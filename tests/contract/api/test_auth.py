"""Who may call: tokens, workloads, this host, and web pages of other sites."""

from __future__ import annotations

import os

import pytest

from bridge.api.settings import ApiSettings
from bridge.api.tokens import TokenFile
from bridge.model.failure import DeniedError, InvalidError, UnavailableError
from bridge.ports.identity import Caller
from tests.contract.api.conftest import client_of
from tests.support.desk import MemoryDesk

TOKEN = "correct-horse-battery"


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Workloads:
    """Judges tokens that start with `wl-`."""

    async def check(self, bearer: str) -> Caller | None:
        if not bearer.startswith("wl-"):
            return None
        if bearer == "wl-expired":
            raise DeniedError("the workload's token has expired")
        if bearer == "wl-down":
            raise UnavailableError("the keys cannot be fetched")
        return Caller("job/shop", volumes=frozenset({"db"}), labels=(("job", "shop"),))


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# people\nalice {TOKEN}\nsecond-token-of-somebody  # no name\n")
    return path


async def test_tokens_of_the_file_are_callers(token_file):
    async with client_of(MemoryDesk(), ApiSettings(token_file=str(token_file))) as client:
        for token, name in ((TOKEN, "alice"), ("second-token-of-somebody", "token")):
            answer = await client.get("/v1/whoami", headers=_bearer(token))
            assert (await answer.json())["name"] == name


@pytest.mark.parametrize(
    "headers",
    [
        {},
        _bearer(TOKEN[:-1]),
        _bearer(TOKEN + "x"),
        _bearer("people"),
        {"Authorization": TOKEN},
        {"Authorization": "Basic " + TOKEN},
        {"Authorization": "Bearer "},
        {"Authorization": ""},
    ],
)
async def test_nobody_else_is(token_file, headers):
    async with client_of(MemoryDesk(), ApiSettings(token_file=str(token_file))) as client:
        answer = await client.get("/v1/whoami", headers=headers)
        body = await answer.json()
        assert (answer.status, body["code"]) == (401, "UNAUTHENTICATED")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert body["hint"]
        assert TOKEN not in str(body)


async def test_every_route_under_v1_wants_a_credential_and_the_probes_do_not(token_file):
    async with client_of(MemoryDesk(), ApiSettings(token_file=str(token_file))) as client:
        page = await (await client.get("/v1/openapi.json", headers=_bearer(TOKEN))).json()
        for path, methods in page["paths"].items():
            for method in methods:
                answer = await client.request(method.upper(), path.replace("{ref}", "x"))
                assert answer.status == 401, (method, path)
        for path in ("/livez", "/readyz", "/healthz", "/metrics"):
            assert (await client.get(path)).status == 200


async def test_a_changed_file_counts_and_a_missing_one_closes_the_door(token_file):
    watched = TokenFile(str(token_file), look_seconds=0)
    async with client_of(MemoryDesk(), authenticators=[watched]) as client:
        assert (await client.get("/v1/whoami", headers=_bearer(TOKEN))).status == 200
        token_file.write_text("alice another-token-of-alice\n")
        os.utime(token_file, ns=(1, 1))
        assert (await client.get("/v1/whoami", headers=_bearer(TOKEN))).status == 401
        assert (await client.get("/v1/whoami", headers=_bearer("another-token-of-alice"))).status == 200
        token_file.unlink()
        assert (await client.get("/v1/whoami", headers=_bearer("another-token-of-alice"))).status == 503


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", "a b c\n", "alice short\n"])
def test_a_token_file_that_is_not_good_is_refused_at_the_start(tmp_path, text):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(InvalidError) as caught:
        TokenFile(str(path)).load()
    assert caught.value.hint
    assert "short" not in str(caught.value)


async def test_workloads_are_asked_after_the_tokens(token_file):
    desk = MemoryDesk()
    settings = ApiSettings(token_file=str(token_file))
    async with client_of(desk, settings, authenticators=[Workloads()]) as client:
        for token, status in (("wl-good", 200), ("wl-expired", 401), ("wl-down", 503), (TOKEN, 200), ("other", 401)):
            assert (await client.get("/v1/whoami", headers=_bearer(token))).status == status, token
        body = {"name": "a", "volume": "db", "labels": {"app": "x", "job": "somebody-else"}}
        assert (await client.post("/v1/snapshots", json=body, headers=_bearer("wl-good"))).status == 202
        assert desk.drafts[0].labels == {"app": "x", "job": "shop"}
        assert desk.drafts[0].asked_by == "job/shop"
        body = {"name": "b", "volume": "logs"}
        answer = await client.post("/v1/snapshots", json=body, headers=_bearer("wl-good"))
        assert (answer.status, (await answer.json())["code"]) == (403, "DENIED")


async def test_a_caller_with_limits_may_not_make_the_service_read_secrets(token_file):
    desk = MemoryDesk()
    body = {"name": "a", "volume": "db", "secrets": {"create": "file:/etc/passwd"}}
    settings = ApiSettings(token_file=str(token_file))
    async with client_of(desk, settings, authenticators=[Workloads()]) as client:
        answer = await client.post("/v1/snapshots", json=body, headers=_bearer("wl-good"))
        assert (answer.status, (await answer.json())["field"]) == (403, "secrets")
        assert desk.drafts == []
        assert (await client.post("/v1/snapshots", json=body, headers=_bearer(TOKEN))).status == 202


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7717", "127.0.0.1:7717", "127.8.8.8", "[::1]:7717", "a.localhost"]
)
async def test_this_host_needs_no_token(client, host):
    answer = await client.get("/v1/whoami", headers={"Host": host})
    assert (await answer.json())["name"] == "local"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "[::1", "a b"]
)
@pytest.mark.parametrize("path", ["/v1/whoami", "/metrics"])
async def test_a_name_that_points_here_by_rebinding_does_not_help(client, host, path):
    answer = await client.get(path, headers={"Host": host})
    assert (answer.status, (await answer.json())["code"]) == (403, "HOST_NOT_ALLOWED")


async def test_pages_of_other_sites_may_not_call(client, desk):
    headers = {"Host": "localhost:7717", "Origin": "http://evil.example"}
    answer = await client.post("/v1/snapshots", json={"name": "a", "volume": "db"}, headers=headers)
    assert (answer.status, (await answer.json())["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert desk.drafts == []
    same = {"Host": "localhost:7717", "Origin": "http://localhost:7717"}
    assert (await client.get("/v1/whoami", headers=same)).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_the_door_is_not_left_open(host):
    with pytest.raises(InvalidError) as caught:
        ApiSettings(host=host).check()
    assert caught.value.field == "api.host"
    ApiSettings(host=host, token_file="tokens").check()
    ApiSettings(host=host, authenticated_otherwise=True).check()


async def test_a_token_file_that_goes_bad_is_our_trouble_and_is_not_told_of(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"alice {TOKEN}\n")
    tokens = TokenFile(str(path), look_seconds=0)
    tokens.load()
    for bad in ("short\n", None):
        if bad is None:
            path.unlink()
        else:
            path.write_text(bad)
        with pytest.raises(UnavailableError) as caught:
            await tokens.check(TOKEN)
        assert str(tmp_path) not in f"{caught.value} {caught.value.hint}"
    path.write_text(f"alice {TOKEN}\n")
    assert await tokens.check(TOKEN) is not None


async def test_a_token_may_hold_a_number_sign(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# ours\nalice abcdefghijklmnopq#rst # of Alice\n")
    tokens = TokenFile(str(path))
    assert await tokens.check("abcdefghijklmnopq") is None
    assert await tokens.check("abcdefghijklmnopq#rst") is not None
