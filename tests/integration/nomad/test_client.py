"""The client against a fake agent: errors, tokens, deadlines, long lines."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from adapters.nomad.client import Client, part
from adapters.nomad.errors import AnswerError
from adapters.nomad.sdk import Direct, reads
from bridge.model.failure import UnavailableError
from tests.integration.nomad.conftest import make_volume
from tests.integration.nomad.doubles import quick
from tests.support.nomad.agent import FakeNomad


async def test_an_error_answer_keeps_nomads_text(client: Client) -> None:
    with pytest.raises(AnswerError) as caught:
        await client.get("/v1/volume/csi/nope")
    assert (caught.value.status, caught.value.text) == (404, "volume not found")


async def test_an_agent_that_is_not_there() -> None:
    client = Client(quick("http://127.0.0.1:1"))
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await client.get("/v1/jobs")
    await client.close()


async def test_an_agent_that_does_not_answer(agent: FakeNomad) -> None:
    client = Client(quick(agent.url, request_timeout_seconds=0.2))
    agent.delay("GET", "/v1/jobs", 5)
    with pytest.raises(UnavailableError, match="did not answer GET /v1/jobs in time"):
        await client.get("/v1/jobs")
    await client.close()


async def test_index_and_blocking(client: Client) -> None:
    first = await client.get("/v1/volumes", {"type": "csi", "namespace": "*"})
    waiting = asyncio.create_task(
        client.wait("/v1/volumes", {"type": "csi", "namespace": "*"}, index=first.index, wait_seconds=120)
    )
    await asyncio.sleep(0.1)
    await make_volume(client, "data")
    second = await asyncio.wait_for(waiting, 30)
    assert second.index > first.index


async def test_ids_are_quoted_whole(client: Client) -> None:
    await make_volume(client, "pa%5B0%5D", ID="pa[0]")
    answer = await client.get(f"/v1/volume/csi/{part('pa[0]')}")
    assert answer.data["ID"] == "pa[0]"


async def test_a_region_is_sent(agent: FakeNomad) -> None:
    client = Client(quick(agent.url, region="mars"))
    with pytest.raises(AnswerError, match="No path to region"):
        await client.get("/v1/jobs")
    await client.close()


async def test_a_token_file_is_read_again_when_it_was_denied(tmp_path: pathlib.Path) -> None:
    """A token that was replaced while we held the old one: one denied call, one good one, no error to anybody."""
    file = tmp_path / "token"
    async with FakeNomad(acl=True) as agent:
        boot = Client(quick(agent.url))
        management = (await boot.call("PUT", "/v1/acl/bootstrap")).data["SecretID"]
        await boot.close()
        file.write_text("9f7a7d2e-0000-0000-0000-000000000000\n")
        client = Client(quick(agent.url, token_file=str(file)))
        with pytest.raises(AnswerError) as caught:
            await client.get("/v1/jobs")
        assert caught.value.status == 403
        file.write_text(f"{management}\n")
        assert (await client.get("/v1/jobs")).data == []
        sdk = reads(client.settings, client)
        assert (await sdk.agent())["config"]["ACL"]["Enabled"] is True
        sdk.close()
        await client.close()


async def test_a_token_file_that_is_missing_is_named(agent: FakeNomad) -> None:
    client = Client(quick(agent.url, token_file="/nowhere/token"))
    with pytest.raises(UnavailableError, match="/nowhere/token"):
        await client.get("/v1/jobs")
    await client.close()


@pytest.mark.parametrize("content", [b"", b" \n", b"two tokens\n", b"one\ntwo\n", b"\xff\xfe\x00", b"caf\xc3\xa9"])
async def test_a_token_file_without_one_token_is_named_and_read_again(
    agent: FakeNomad, tmp_path: pathlib.Path, content: bytes
) -> None:
    """Without a word of what is in it; and nobody goes on as nobody, which would look like missing rights."""
    file = tmp_path / "token"
    file.write_bytes(content)
    client = Client(quick(agent.url, token_file=str(file)))
    agent.calls.clear()
    with pytest.raises(UnavailableError, match="does not hold one token") as caught:
        await client.get("/v1/jobs")
    assert str(file) in caught.value.message
    assert "two tokens" not in str(caught.value)
    assert agent.calls == []
    file.write_text("9f7a7d2e-0000-0000-0000-000000000000\n")
    assert (await client.get("/v1/jobs")).data is not None
    file.write_bytes(content)
    assert await client.token.get(fresh=True) == "9f7a7d2e-0000-0000-0000-000000000000", "it is just being written"
    assert {call.token for call in agent.calls} == {"9f7a7d2e-0000-0000-0000-000000000000"}
    await client.close()


async def test_python_nomad_and_the_client_read_the_same(agent: FakeNomad, client: Client) -> None:
    await make_volume(client, "data")
    allocation = next(iter(agent.state.allocations))
    sdk = reads(client.settings, client)
    for reader in (sdk, Direct(client)):
        row = await reader.allocation(allocation)
        assert row["JobID"] == "csi-hostpath"
        assert (await reader.job("default", "csi-hostpath"))["Type"] == "system"
        assert (await reader.agent())["config"]["Version"]["Version"] == "2.0.6"
        with pytest.raises(AnswerError) as caught:
            await reader.allocation("00000000-0000-0000-0000-000000000000")
        assert caught.value.status == 404
    sdk.close()


async def test_python_nomad_does_not_take_its_token_from_the_environment(
    agent: FakeNomad, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMAD_TOKEN", "environment-token")
    sdk = reads(client.settings, client)
    await sdk.agent()
    sdk.close()
    assert {call.token for call in agent.calls} <= {"", None}
