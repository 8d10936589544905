"""How the agent is reached: TLS both ways, a name that is not the address, a task's socket, tokens that change."""

from __future__ import annotations

import pathlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adapters.nomad.adapter import NomadOrchestrator, build
from adapters.nomad.client import Client, ssl_context
from adapters.nomad.sdk import reads
from adapters.nomad.settings import Settings, Tls
from bridge.model.failure import InvalidError, UnavailableError
from tests.integration.nomad.conftest import job, make_volume, register
from tests.integration.nomad.doubles import MemoryIntake, MemorySecrets, MemorySink, quick, running, until
from tests.integration.nomad.test_hooks import ON
from tests.support.node_pki import Authority
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver

LONG = 30.0
POLICY = (pathlib.Path(__file__).parents[3] / "configs" / "nomad" / "policy.hcl").read_text()


def server_context(
    paths: tuple[pathlib.Path, pathlib.Path], *, clients: pathlib.Path | None = None
) -> ssl.SSLContext:
    """An agent's own side; with `clients` it wants certificates of that authority (`verify_https_client`)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*paths)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[NomadOrchestrator]:
    """The whole adapter over this connection: lists, stream, version by python-nomad."""
    adapter = build("east", settings, secrets=MemorySecrets())
    async with running(adapter.run(lambda key: None, MemoryIntake(), MemorySink())):
        await until(lambda: adapter.ready() == "", "ready", LONG)
        yield adapter


async def test_tls_with_an_authority_of_ones_own(tmp_path: pathlib.Path) -> None:
    pki, foreign = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    async with FakeNomad(tls=server_context(pki.issue("agent", loopback=True))) as agent:
        assert agent.url.startswith("https://")
        async with working(quick(agent.url, tls={"ca_file": str(pki.path)})) as adapter:
            assert adapter.version == (2, 0, 6)
            assert len(agent.events.subscribers) == 1
        for tls in ({}, {"ca_file": str(foreign.path)}):
            client = Client(quick(agent.url, tls=tls))
            with pytest.raises(UnavailableError, match=r"(?i)certificate"):
                await client.get("/v1/jobs")
            sdk = reads(client.settings, client)
            with pytest.raises(UnavailableError, match="cannot be reached"):
                await sdk.agent()
            sdk.close()
            await client.close()


async def test_the_name_in_the_certificate_may_differ_from_the_address(tmp_path: pathlib.Path) -> None:
    """Nomad's own certificates are for `client.global.nomad`, and the agent is dialled at 127.0.0.1."""
    pki = Authority(tmp_path)
    async with FakeNomad(tls=server_context(pki.issue("agent", dns="client.global.nomad"))) as agent:
        ca = {"ca_file": str(pki.path)}
        async with working(quick(agent.url, tls={**ca, "server_name": "client.global.nomad"})) as adapter:
            assert adapter.version == (2, 0, 6)
        for tls in (ca, {**ca, "server_name": "server.global.nomad"}):
            client = Client(quick(agent.url, tls=tls))
            with pytest.raises(UnavailableError, match=r"(?i)mismatch|not valid for"):
                await client.get("/v1/jobs")
            sdk = reads(client.settings, client)
            with pytest.raises(UnavailableError):
                await sdk.agent()
            sdk.close()
            await client.close()


async def test_an_agent_that_wants_our_certificate(tmp_path: pathlib.Path) -> None:
    pki, foreign = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    ours, theirs = pki.issue("snapbridge"), foreign.issue("stranger")
    server = server_context(pki.issue("agent", loopback=True), clients=pki.path)
    async with FakeNomad(tls=server) as agent:
        ca = {"ca_file": str(pki.path)}
        with_ours = {**ca, "cert_file": str(ours[0]), "key_file": str(ours[1])}
        async with working(quick(agent.url, tls=with_ours)) as adapter:
            assert adapter.version == (2, 0, 6)
        for tls in (ca, {**ca, "cert_file": str(theirs[0]), "key_file": str(theirs[1])}):
            client = Client(quick(agent.url, tls=tls))
            with pytest.raises(UnavailableError):
                await client.get("/v1/jobs")
            await client.close()


def test_files_that_are_no_certificates_are_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(InvalidError, match="check ca_file, cert_file and key_file"):
        ssl_context(Tls(ca_file=str(tmp_path / "empty")))
    with pytest.raises(InvalidError, match="TLS files cannot be used"):
        ssl_context(Tls(ca_file=str(tmp_path / "nothing")))


async def test_a_tasks_own_socket(tmp_path: pathlib.Path) -> None:
    """The Task API: HTTP over a unix socket, with a token even where ACLs are off."""
    async with FakeNomad() as agent:
        await agent.add_plugin("hostpath", HostPathDriver())
        path = agent.data_dir / "api.sock"
        door = await agent.open_task_api(path)
        assert door is not None
        token = tmp_path / "token"
        token.write_text("anything")
        intake = MemoryIntake()
        client = Client(quick(f"unix://{path}", token_file=str(token)))
        await make_volume(client, "v1")
        adapter = build("east", client.settings, secrets=MemorySecrets())
        async with running(adapter.run(lambda key: None, intake, MemorySink())):
            await until(lambda: adapter.ready() == "", "ready", LONG)
            assert adapter.version == (2, 0, 6)
            await register(client, job("web", "v1", meta=ON))
            await until(lambda: len(intake.booked) == 1, "a deploy is seen over the socket", LONG)
        nobody = build("east", quick(f"unix://{path}"), secrets=MemorySecrets())
        async with running(nobody.run(lambda key: None, intake, MemorySink())):
            words = ("Unauthorized", "task API wants a token")
            await until(lambda: all(word in nobody.ready() for word in words), "it wants a token", LONG)
        await client.close()
        await door.cleanup()


async def test_a_workload_identity_that_is_renewed(tmp_path: pathlib.Path) -> None:
    """The job's own identity with the sample policy; Nomad writes a new one into the file, and the old one ends."""
    async with FakeNomad(acl=True) as agent:
        boot = Client(quick(agent.url))
        management = tmp_path / "management"
        management.write_text(str((await boot.call("PUT", "/v1/acl/bootstrap")).data["SecretID"]))
        await boot.close()
        manager = Client(quick(agent.url, token_file=str(management)))
        await agent.add_plugin("hostpath", HostPathDriver())
        await make_volume(manager, "v1")
        await register(manager, job("snapbridge", "none") | {"TaskGroups": [_group()]})
        (allocation,) = await agent.job_settled("snapbridge")
        rules = {"Name": "snapbridge", "Rules": POLICY, "JobACL": {"Namespace": "default", "JobID": "snapbridge"}}
        await manager.call("PUT", "/v1/acl/policy/snapbridge", body=rules)
        identity = {"Name": "default", "Audience": ["nomadproject.io"], "TTL": 0}
        file = tmp_path / "nomad_token"
        file.write_text(agent.identity.sign(allocation, "main", identity))
        intake = MemoryIntake()
        adapter = build("east", quick(agent.url, token_file=str(file)), secrets=MemorySecrets())
        async with running(adapter.run(lambda key: None, intake, MemorySink())):
            await until(lambda: adapter.ready() == "", f"ready: {adapter.ready()}", LONG)
            assert adapter.version == (2, 0, 6)
            agent.identity.rotate(forget_old=True)  # every older token is worth nothing now
            agent.end_streams()
            await until(lambda: adapter.ready() != "", "denied", LONG)
            file.write_text(agent.identity.sign(allocation, "main", identity))
            await until(lambda: adapter.ready() == "", "the new one is taken", LONG)
            await register(manager, job("web", "v1", meta=ON))
            await until(lambda: intake.volumes() == ["v1"], "and it works", LONG)
        await manager.close()


def _group() -> dict[str, object]:
    task = {"Name": "main", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["60"]},
            "KillTimeout": 100_000_000}  # fmt: skip
    return {"Name": "g", "Count": 1, "Tasks": [task]}


async def test_python_nomad_takes_a_replaced_token_too(tmp_path: pathlib.Path) -> None:
    async with FakeNomad(acl=True) as agent:
        boot = Client(quick(agent.url))
        management = str((await boot.call("PUT", "/v1/acl/bootstrap")).data["SecretID"])
        await boot.close()
        file = tmp_path / "token"
        file.write_text("9f7a7d2e-0000-0000-0000-000000000000")
        client = Client(quick(agent.url, token_file=str(file)))
        await client.token.get()
        file.write_text(management)
        sdk = reads(client.settings, client)
        assert (await sdk.agent())["config"]["ACL"]["Enabled"] is True
        assert [call.status for call in agent.calls if call.path == "/v1/agent/self"] == [403, 200]
        sdk.close()
        await client.close()
