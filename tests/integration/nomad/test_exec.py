"""Commands in real tasks of the fake agent: exit codes, output, refusals, and what hangs for good."""

from __future__ import annotations

import pathlib

import pytest

from adapters.nomad import exec as tasks
from adapters.nomad.client import Client
from adapters.nomad.exec import ExecError
from bridge.model.failure import FailureKind
from tests.integration.nomad.conftest import job, make_volume, register
from tests.integration.nomad.doubles import quick
from tests.support.nomad.agent import FakeNomad


@pytest.fixture
async def allocation(agent: FakeNomad, client: Client) -> str:
    """A running allocation whose task `main` is an exec-driver one."""
    await make_volume(client, "v1")
    row = job("web", "v1")
    row["TaskGroups"][0]["Tasks"][0]["Driver"] = "exec"
    await register(client, row)
    return str((await agent.job_settled("web"))[0].id)


async def test_exit_codes_and_output(client: Client, allocation: str) -> None:
    async def run(text: str) -> tasks.Ran:
        return await tasks.run(client, "default", allocation, "main", ["/bin/sh", "-c", text], timeout_seconds=20)

    assert await run("echo out; echo err >&2") in (tasks.Ran(0, "out\nerr"), tasks.Ran(0, "err\nout"))
    assert (await run("exit 3")).exit_code == 3
    assert (await run("kill -9 $$")).exit_code == 137
    long = await run("head -c 20000 /dev/zero | tr '\\0' x")
    assert (long.exit_code, len(long.output)) == (0, tasks.MOST_OUTPUT_BYTES)


@pytest.mark.parametrize(
    ("other", "task", "kind", "code"),
    [
        ("", "nope", FailureKind.REFUSED, "NOT_FOUND"),
        ("00000000-0000-0000-0000-000000000000", "main", FailureKind.REFUSED, "NOT_FOUND"),
        ("short", "main", FailureKind.REFUSED, "INVALID_ARGUMENT"),
    ],
)
async def test_what_nomad_refuses(
    client: Client, allocation: str, other: str, task: str, kind: FailureKind, code: str
) -> None:
    argv = ["/bin/sh", "-c", "true"]
    with pytest.raises(ExecError) as caught:
        await tasks.run(client, "default", other or allocation, task, argv, timeout_seconds=20)
    assert (caught.value.failure.kind, caught.value.failure.code) == (kind, code)


async def test_a_wedged_task_ends_at_the_time_limit(agent: FakeNomad, client: Client, allocation: str) -> None:
    async def hangs(*argv: str) -> None:
        with pytest.raises(ExecError) as caught:
            await tasks.run(client, "default", allocation, "main", argv, timeout_seconds=0.5)
        assert caught.value.failure.kind is FailureKind.UNSURE
        assert "restarted" in caught.value.failure.hint

    for _ in range(5):  # on a machine that stands still the time may be up before the command is there
        await hangs("/no/such/program")
        if agent.wedged:
            break
    await hangs("/bin/sh", "-c", "true")
    agent.unwedge(allocation, "main")


@pytest.mark.parametrize(
    ("driver_name", "capabilities", "runs"),
    [
        ("exec", '"alloc-exec"', True),
        ("exec", '"read-job"', False),
        ("raw_exec", '"alloc-exec"', False),
        ("raw_exec", '"alloc-exec", "alloc-node-exec"', True),
    ],
)
async def test_the_capabilities_that_a_token_needs(
    driver_name: str, capabilities: str, runs: bool, tmp_path: pathlib.Path
) -> None:
    async with FakeNomad(acl=True) as fake:
        boot = Client(quick(fake.url))
        management = tmp_path / "management"
        management.write_text(str((await boot.call("PUT", "/v1/acl/bootstrap")).data["SecretID"]))
        await boot.close()
        manager = Client(quick(fake.url, token_file=str(management)))
        rules = f'namespace "*" {{ capabilities = [{capabilities}] }}'
        await manager.call("PUT", "/v1/acl/policy/p", body={"Name": "p", "Rules": rules})
        body = {"Name": "t", "Type": "client", "Policies": ["p"]}
        own = tmp_path / "own"
        own.write_text(str((await manager.call("PUT", "/v1/acl/token", body=body)).data["SecretID"]))
        row = job("web")
        row["TaskGroups"][0]["Volumes"] = None
        row["TaskGroups"][0]["Tasks"][0]["Driver"] = driver_name
        await register(manager, row)
        allocation = (await fake.job_settled("web"))[0].id
        limited = Client(quick(fake.url, token_file=str(own)))

        async def run() -> tasks.Ran:
            argv = ["/bin/sh", "-c", "exit 4"]
            return await tasks.run(limited, "default", allocation, "main", argv, timeout_seconds=20)

        try:
            if runs:
                assert (await run()).exit_code == 4
            else:
                with pytest.raises(ExecError) as caught:
                    await run()
                assert (caught.value.failure.kind, caught.value.failure.code) == (
                    FailureKind.REFUSED,
                    "PERMISSION_DENIED",
                )
                assert "alloc-exec" in caught.value.failure.hint
        finally:
            await limited.close()
            await manager.close()
