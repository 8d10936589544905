"""`snapbridge nomad run` between Nomad and the service: who changes the job meanwhile, what fails, job files."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.nomad.client import Client
from adapters.nomad.commands import run as runs
from bridge.cli.main import main
from bridge.model.failure import Failure, FailureKind
from tests.integration.nomad.conftest import make_volume
from tests.support.api import Running, running
from tests.support.desk import MemoryDesk
from tests.support.nomad.agent import FakeNomad

HCL = """
job "shop" {
  meta { release = "2" }
  group "g" {
    count = 0
    volume "data" {
      type            = "csi"
      source          = "db"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
    }
    task "main" {
      driver = "raw_exec"
      config { command = "/bin/true" }
    }
  }
}
"""


@pytest.fixture
def service() -> Iterator[Running]:
    with running(MemoryDesk(by_hand=True)) as found:
        yield found


async def command(agent: FakeNomad, service: Running, *words: str, stdin: str = "") -> tuple[int, str, str]:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "bridge", "nomad", *words],
        input=stdin, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "NOMAD_ADDR": agent.url, "SNAPBRIDGE_ADDR": service.url, "NO_COLOR": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def job(release: str) -> dict[str, Any]:
    block = {"Type": "csi", "Source": "db", "AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    task = {"Name": "main", "Driver": "raw_exec", "Config": {"command": "/bin/true"}}
    group = {"Name": "g", "Count": 0, "Volumes": {"data": block}, "Tasks": [task]}
    return {"ID": "shop", "Type": "service", "Meta": {"release": release}, "TaskGroups": [group]}


async def version(client: Client) -> tuple[int, str]:
    row = (await client.get("/v1/job/shop")).data
    return row["Version"], row["Meta"]["release"]


async def until_asked(service: Running) -> None:
    for _ in range(1200):
        if service.desk.drafts:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no snapshot was asked for")


async def let_it_be_ready(service: Running) -> None:
    for _ in range(3):
        service.call(service.desk.advance)


async def test_a_job_that_changed_meanwhile_is_not_overwritten(
    agent: FakeNomad, client: Client, service: Running
) -> None:
    await make_volume(client, "db")
    await client.call("PUT", "/v1/jobs", body={"Job": job("1")})
    asked = asyncio.create_task(command(agent, service, "run", "-", stdin=json.dumps(job("2"))))
    await until_asked(service)
    assert await version(client) == (0, "1"), "nothing is registered before the snapshot is there"
    await client.call("PUT", "/v1/jobs", body={"Job": job("somebody else's")})
    await let_it_be_ready(service)
    code, out, err = await asked
    assert (code, out) == (5, "")
    assert "the job changed meanwhile; nothing was registered" in err
    assert "the snapshots stay" in err
    assert await version(client) == (1, "somebody else's")
    (draft,) = service.desk.drafts
    assert (draft.volume, dict(draft.labels)["job_version"], dict(draft.labels)["job"]) == ("db", "0", "shop")


async def test_a_snapshot_that_fails_registers_nothing(agent: FakeNomad, client: Client, service: Running) -> None:
    await make_volume(client, "db")
    await client.call("PUT", "/v1/jobs", body={"Job": job("1")})
    asked = asyncio.create_task(command(agent, service, "run", "-", stdin=json.dumps(job("2"))))
    await until_asked(service)
    service.desk.failure = Failure(FailureKind.REFUSED, "INVALID_ARGUMENT", "the pool is full")
    await let_it_be_ready(service)
    code, _, err = await asked
    assert code == 1
    assert "the job was not registered" in err
    assert await version(client) == (0, "1")


async def test_hcl_is_read_by_nomad_and_a_version_without_instances_mounts_its_volume_all_the_same(
    agent: FakeNomad, client: Client, service: Running
) -> None:
    await make_volume(client, "db")
    code, out, err = await command(agent, service, "run", "--require-snapshot", "-", stdin=HCL)
    assert code == 1
    assert "is new: there is nothing to snapshot" in err
    code, out, err = await command(agent, service, "run", "--detach", "-", stdin=HCL)
    assert (code, out) == (0, "job shop registered as version 0\n"), err
    assert await version(client) == (0, "2")
    code, _, err = await command(agent, service, "run", "-", stdin="job {")
    assert code == 2
    assert "could not read -" in err
    code, _, err = await command(agent, service, "run", "no-such-file")
    assert code == 2
    assert "no-such-file cannot be read" in err


async def test_a_job_file_without_a_namespace_means_the_one_of_the_environment(
    agent: FakeNomad,
    client: Client,
    service: Running,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As for `nomad job run`. Else it would be registered a second time, in `default`, and nothing snapshotted."""
    file = tmp_path / "shop.nomad.hcl"

    async def registered(namespace: str, text: str) -> tuple[int, str, str]:
        file.write_text(text)
        monkeypatch.setenv("NOMAD_NAMESPACE", namespace)
        code = await asyncio.to_thread(main, ["nomad", "run", "--detach", str(file)])
        return code, *capsys.readouterr()

    for name, value in (("NOMAD_ADDR", agent.url), ("SNAPBRIDGE_ADDR", service.url), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    agent.state.put_namespace("prod")
    await make_volume(client, "db", Namespace="prod")
    await client.call("PUT", "/v1/jobs", {"namespace": "prod"}, body={"Job": {**job("1"), "Namespace": "prod"}})
    asked = asyncio.create_task(registered("prod", HCL))
    await until_asked(service)
    await let_it_be_ready(service)
    code, out, err = await asked
    assert (code, out) == (0, "job shop registered as version 1\n"), err
    assert [draft.namespace for draft in service.desk.drafts] == ["prod"]
    assert (await client.get("/v1/jobs", {"namespace": "default", "prefix": "shop"})).data == []
    code, out, err = await registered("prod", HCL.replace('job "shop" {', 'job "own" {\n  namespace = "default"'))
    assert (code, out) == (0, "job own registered as version 0\n"), err
    assert (await client.get("/v1/job/own", {"namespace": "default"})).data["Version"] == 0
    code, _, err = await registered("nowhere", HCL)
    assert code == 4
    assert 'job "shop" is in nonexistent namespace "nowhere"' in err
    assert "make the namespace, or name another one" in err


def test_a_variables_value_is_never_a_template() -> None:
    assert runs._quoted('a "b" ${c} %{if} 😀') == '"a \\"b\\" $${c} %%{if} 😀"'


async def test_without_the_service_nothing_is_registered(agent: FakeNomad, client: Client, service: Running) -> None:
    await make_volume(client, "db")
    await client.call("PUT", "/v1/jobs", body={"Job": job("1")})
    env = {**os.environ, "NOMAD_ADDR": agent.url, "SNAPBRIDGE_ADDR": "http://127.0.0.1:1"}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "bridge", "nomad", "run", "-"], input=json.dumps(job("2")),
        capture_output=True, text=True, check=False, timeout=120, env=env,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no service answers" in done.stderr
    assert await version(client) == (0, "1")
