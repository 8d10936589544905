"""The sample policies, rule by rule: what each is for works with it and is denied without it, on both agents."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from adapters.nomad import exec as tasks
from adapters.nomad.client import Client
from adapters.nomad.errors import AnswerError
from adapters.nomad.leadership import VariableLock
from adapters.nomad.settings import LeadershipSettings
from tests.contract.nomad.test_samples import SAMPLES, guarded
from tests.contract.nomad.world import PLUGIN, World, consumer_job
from tests.integration.nomad.doubles import running, until

__all__ = ["guarded"]

DENIED_SECONDS = 25.0


@dataclasses.dataclass(slots=True)
class Scene:
    """What the probes act on."""

    place: World
    volume: str
    job: str
    client: Client
    """With the policy that is tried."""
    allocation: str

    async def call(self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None) -> Any:
        return (await self.client.call(method, path, query or {"namespace": "default"}, body=body)).data


Probe = Callable[[Scene], Awaitable[object]]


async def list_jobs(scene: Scene) -> None:
    assert await scene.call("GET", "/v1/jobs", {"namespace": "*", "meta": "true"})
    assert await scene.call("GET", "/v1/volumes", {"namespace": "*", "type": "csi"})


async def read_job(scene: Scene) -> None:
    """The stream: a denied one is 200 and silence."""
    query = [("namespace", "*"), ("topic", "Job"), ("topic", "CSIPlugin")]
    await scene.call("GET", f"/v1/job/{scene.job}")
    await scene.call("GET", f"/v1/volume/csi/{scene.volume}")
    async with scene.client.lines("/v1/event/stream", query) as lines, asyncio.timeout(DENIED_SECONDS):
        assert await anext(lines, None) is not None


async def cut(scene: Scene) -> None:
    body = {"Snapshots": [{"SourceVolumeID": scene.volume, "PluginID": PLUGIN, "Name": scene.place.fresh("s")}]}
    made = (await scene.call("PUT", "/v1/volumes/snapshot", body=body))["Snapshots"][0]["ID"]
    await scene.call("DELETE", "/v1/volumes/snapshot", {"plugin_id": PLUGIN, "snapshot_id": made})


async def read_variables(scene: Scene) -> None:
    listed = await scene.call("GET", "/v1/vars", {"namespace": "*", "prefix": "snapbridge/"})
    assert "snapbridge/there" in [row["Path"] for row in listed]
    await scene.call("GET", "/v1/var/snapbridge/there")


async def read_summary(scene: Scene) -> None:
    await scene.call("GET", "/v1/var/snapbridge/status/there")


async def write_variable(scene: Scene) -> None:
    await scene.call("PUT", f"/v1/var/snapbridge/status/{scene.place.fresh('w')}", body={"Items": {"a": "b"}})


async def lead(scene: Scene) -> None:
    """Take the lock of replicas, and give it back."""
    terms = LeadershipSettings(ttl_seconds=10)
    lock = VariableLock(Client(scene.client.settings), terms)
    async with running(lock.run()):
        await until(lambda: lock.why_not() == "" or lock.trouble != "", "it leads or says why not", 60)
        if lock.trouble:
            raise AnswerError(403, lock.trouble)


async def destroy_variable(scene: Scene) -> None:
    path = f"/v1/var/snapbridge/status/{scene.place.fresh('d')}"
    await scene.place.client.call("PUT", path, {"namespace": "default"}, body={"Items": {"a": "b"}})
    await scene.call("DELETE", path)


async def read_plugin(scene: Scene) -> None:
    assert await scene.call("GET", "/v1/plugins", {"type": "csi"})
    await scene.call("GET", f"/v1/plugin/csi/{PLUGIN}")


async def read_agent(scene: Scene) -> None:
    assert await scene.call("GET", "/v1/agent/self", {})


async def next_allocations(scene: Scene) -> None:
    assert await scene.call("GET", f"/v1/job/csi-{PLUGIN}/allocations")


async def scale(scene: Scene) -> None:
    body = {"Count": 1, "Target": {"Group": "g"}, "Message": "a test"}
    try:
        await scene.call("POST", f"/v1/job/{scene.job}/scale", body=body)
    except AnswerError as error:
        if error.status != 400:  # a deployment is under way, as a real agent says for 10 s: it was allowed
            raise


async def stop_and_start(scene: Scene) -> None:
    """As a revert of a job does that cannot be scaled: its own spec with Stop."""
    job = (await scene.place.client.get(f"/v1/job/{scene.job}", {"namespace": "default"})).data
    body = {"Job": job, "EnforceIndex": True, "JobModifyIndex": job["JobModifyIndex"]}
    await scene.call("POST", "/v1/jobs", body=body)


async def run_in_a_task(scene: Scene) -> None:
    ran = await tasks.run(scene.client, "default", scene.allocation, "main", ["/bin/true"], timeout_seconds=60)
    assert ran.exit_code == 0


RULES: list[tuple[str, str, list[Probe]]] = [
    ("policy.hcl", '"list-jobs"', [list_jobs]),
    ("policy.hcl", '"read-job"', [read_job]),
    ("policy.hcl", '"csi-write-volume"', [cut]),
    ("policy.hcl", 'snapbridge/*: "read"', [read_variables]),
    ("policy.hcl", 'snapbridge/status/*: "read"', [read_summary]),
    ("policy.hcl", 'snapbridge/status/*: "write"', [write_variable]),
    ("policy.hcl", 'snapbridge/status/*: "destroy"', [destroy_variable]),
    ("policy.hcl", 'snapbridge/leader*: "read"', [lead]),
    ("policy.hcl", 'snapbridge/leader*: "write"', [lead]),
    ("policy.hcl", "plugin {", [read_plugin, cut]),
    ("policy.hcl", "agent {", [read_agent]),
    ("policy-node.hcl", '"read-job"', [next_allocations]),
    ("policy-node.hcl", "plugin {", [read_plugin]),
    ("policy-revert.hcl", '"scale-job"', [scale]),
    ("policy-revert-any.hcl", '"submit-job"', [scale, stop_and_start]),
    ("policy-revert-any.hcl", '"csi-mount-volume"', [stop_and_start]),
    ("policy-quiesce.hcl", '"alloc-exec"', [run_in_a_task]),
    ("policy-quiesce.hcl", '"alloc-node-exec"', [run_in_a_task]),
]


def text_of(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8")


def without(text: str, rule: str) -> str:
    """The policy without one block, or without one capability (of one path of variables)."""
    if rule.endswith("{"):
        return re.sub(rf"^{re.escape(rule)}.*?^}}\n", "", text, flags=re.S | re.M)
    path, colon, capability = rule.rpartition(": ")
    start = text.index(f'path "{path}" {{') if colon else 0
    return text[:start] + re.sub(rf"{capability},?", "", text[start:], count=1)


def rules_of(text: str) -> list[str]:
    """Every capability and every block of a policy, named as in RULES."""
    rules: list[str] = []
    path = ""
    for line in text.splitlines():
        if opened := re.match(r' +path "(.*)" \{', line):
            path = f"{opened[1]}: "
        elif re.match(r"(plugin|agent|node|operator) \{", line):
            rules.append(line)
        elif not line.lstrip().startswith(("#", "policy =", "namespace")):
            rules += [path + capability for capability in re.findall(r'"[a-z-]+"', line.partition("#")[0])]
    return rules


def test_every_rule_of_every_policy_is_named_here() -> None:
    assert {path.name for path in SAMPLES.glob("policy*.hcl")} == {name for name, _, _ in RULES}
    for name in {name for name, _, _ in RULES}:
        rules = rules_of(text_of(name))
        assert sorted(rules) == sorted(rule for file, rule, _ in RULES if file == name), name
        for rule in rules:
            assert rules_of(without(text_of(name), rule)) == [one for one in rules if one != rule]


async def works(probe: Probe, scene: Scene) -> bool:
    """Whether it was allowed. Anything but a denial is a failure of the test."""
    try:
        await probe(scene)
    except AnswerError as error:
        if "Permission denied" in error.text:
            return False
        raise
    except TimeoutError:
        return False  # the stream's silence
    except tasks.ExecError as error:
        if error.failure.code == "PERMISSION_DENIED":
            return False
        raise
    except AssertionError:
        return False  # a list that hides what may not be seen
    return True


@pytest.mark.timeout(240)
async def test_each_rule_is_needed_and_all_together_suffice(guarded: tuple[World, str]) -> None:
    place, _ = guarded
    volume, job = place.fresh("v"), place.fresh("user")
    await place.volume(volume)
    for name in ("there", "status/there"):
        query = {"namespace": "default"}
        await place.client.call("PUT", f"/v1/var/snapbridge/{name}", query, body={"Items": {"a": "b"}})
    await place.run_job(consumer_job(job, volume))
    await place.allocation(job, "running")
    helper = place.fresh("raw")
    await place.run_job(consumer_job(helper, volume, driver="raw_exec") | {"TaskGroups": [_plain()]})
    allocation = (await place.allocation(helper, "running"))["ID"]
    wrong: list[str] = []
    for name, rule, probes in RULES:
        base = [] if name in ("policy.hcl", "policy-node.hcl") else [text_of("policy.hcl")]
        for text, expected in (([*base, text_of(name)], True), ([*base, without(text_of(name), rule)], False)):
            client = await _client(place, text)
            scene = Scene(place, volume, job, client, allocation)
            for probe in probes:
                if await works(probe, scene) is not expected:
                    wrong.append(f"{name} {'with' if expected else 'without'} {rule}: {probe.__name__}")
            await client.close()
    assert wrong == []
    for one in (job, helper):
        await place.purge(one)


def _plain() -> dict[str, Any]:
    task = {
        "Name": "main", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["600"]},
        "KillTimeout": 100_000_000, "Resources": {"CPU": 20, "MemoryMB": 32},
    }  # fmt: skip
    return {"Name": "g", "Count": 1, "Tasks": [task]}


async def _client(place: World, texts: list[str]) -> Client:
    """A client whose token has these policies and nothing else."""
    names = []
    for text in texts:
        names.append(place.fresh("policy"))
        path = f"/v1/acl/policy/{names[-1]}"
        await place.client.call("PUT", path, body={"Name": names[-1], "Rules": text})
    body = {"Name": names[-1], "Type": "client", "Policies": names}
    answer = await place.client.call("PUT", "/v1/acl/token", body=body)
    file = place.store / f"token-{names[-1]}"
    file.write_text(str(answer.data["SecretID"]))
    return Client(place.settings(token_file=str(file)))
