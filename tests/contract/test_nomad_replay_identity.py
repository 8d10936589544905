"""Workload identities and the Task API: the recorded keys, claims, environment and answers against the fake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt

from tests.support.nomad import replay_scripts
from tests.support.nomad import replay_worlds as worlds
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.drivers import HostPathDriver
from tests.support.nomad.replay_compare import Comparison
from tests.support.nomad.replay_player import Case, Player, Script, load

RECORDINGS = Path(__file__).parent / "recordings" / "nomad-2.0.6-dev"
CASES = load(RECORDINGS / "identity.json")
_NOWHERE = "99999999-9999-4999-8999-999999999999"


@asynccontextmanager
async def _task_api(player: Player, allocation_id: str) -> AsyncIterator[Player]:
    """A player whose requests go over the task's own API socket."""
    socket = player.agent.runner.live[allocation_id].processes["t"].secrets / "api.sock"
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
        inner = Player(player.agent, session)
        inner.bindings = player.bindings
        yield inner


def _tokens(player: Player, allocation_id: str) -> tuple[str, str]:
    secrets = player.agent.runner.live[allocation_id].processes["t"].secrets
    return (secrets / "nomad_token").read_text(), (secrets / "nomad_bridge.jwt").read_text()


def _check_token(player: Player, case: Case, token: str) -> list[str]:
    recorded = case["response"]
    comparison = Comparison(player.bindings)
    header: dict[str, Any] = jwt.get_unverified_header(token)
    comparison.value(recorded["headers"], header, "header")
    key = jwt.PyJWK(next(k for k in player.agent.identity.jwks()["keys"] if k["kid"] == header["kid"]))
    claims = jwt.decode(token, key, algorithms=["RS256"], options={"verify_aud": False})
    comparison.value(recorded["body"], claims, "claims")
    return comparison.problems


def _check_files(player: Player, case: Case, allocation_id: str) -> list[str]:
    """The recorded listing and environment: the same files with the same modes, and each recorded variable."""
    process = player.agent.runner.live[allocation_id].processes["t"]
    problems = []
    for line in case["response"]["body"].splitlines():
        name, sign, _ = line.partition("=")
        if sign:
            if name not in process.environment:
                problems.append(f"no variable {name}")
        elif line.endswith((".jwt", "nomad_token")):
            path = process.secrets / line.split()[-1]
            if not path.exists() or oct(path.stat().st_mode & 0o777) != "0o644":
                problems.append(f"no file {path.name} of mode 0644")
    return problems


async def _without_acl() -> list[str]:
    problems: list[str] = []
    async with FakeNomad() as agent, aiohttp.ClientSession() as session:
        player = Player(agent, session)
        await worlds.plugins(player)
        allocation_id = await replay_scripts.ident_job(player)
        for place in (0, 1):
            problems += [f"[{place}] {p}" for p in await player.replay(CASES[place], Script(), place)]
        default, named = _tokens(player, allocation_id)
        problems += [f"[2] {p}" for p in _check_token(player, CASES[2], named)]
        problems += [f"[3] {p}" for p in _check_token(player, CASES[3], default)]
        problems += [f"[4] {p}" for p in _check_files(player, CASES[4], allocation_id)]
        async with _task_api(player, allocation_id) as inner:
            problems += [f"[5] {p}" for p in await inner.replay(CASES[5], Script(), 5)]
            volumes = await player.call("GET", "/v1/volumes", type="csi")
            for place, token in ((6, "wrong"), (7, default), (8, f"Bearer {named}")):
                player.bindings.names["<token>"] = token
                # The recording shortened the body to a sentence that says that it is TCP's list.
                case = json.loads(json.dumps(CASES[place]))
                assert "same list" in case["response"]["body"]
                case["response"]["body"] = volumes
                problems += [f"[{place}] {p}" for p in await inner.replay(case, Script(), place)]
    return problems


async def _with_acl() -> list[str]:
    problems: list[str] = []
    async with FakeNomad(acl=True) as agent, aiohttp.ClientSession() as session:
        player = Player(agent, session)
        token = agent.acl.add_token("Bootstrap Token", [], kind="management")
        session.headers["X-Nomad-Token"] = token["SecretID"]
        await agent.add_plugin("hostpath", HostPathDriver())
        for name in ("d", "d2"):
            await worlds.volume(player, name, RequestedCapacityMin=0)
        allocation_id = await replay_scripts.ident_job(player)
        del session.headers["X-Nomad-Token"]
        default, named = _tokens(player, allocation_id)
        for name, value in (("default identity JWT", default), ("named identity JWT", named)):
            player.bindings.names[f"<{name}>"] = value
        player.bindings.names["<unknown uuid>"] = _NOWHERE
        async with _task_api(player, allocation_id) as inner:
            for place in range(9, 14):
                problems += [f"[{place}] {p}" for p in await inner.replay(CASES[place], Script(), place)]
        rules = 'namespace "default" { policy = "write" }\nplugin { policy = "read" }'
        agent.acl.add_policy("ident", rules, {"Namespace": "default", "JobID": "ident"})
        for place in (14, 15):
            problems += [f"[{place}] {p}" for p in await player.replay(CASES[place], Script(), place)]
        session.headers["X-Nomad-Token"] = token["SecretID"]
        await player.call("DELETE", "/v1/job/ident")
        del session.headers["X-Nomad-Token"]
        problems += [f"[16] {p}" for p in await player.replay(CASES[16], Script(), 16)]
        # A task that dies before its stop has begun is started once more, and would outlive this one's kill.
        async with asyncio.timeout(60):
            while any(not one.terminal for one in agent.state.job_allocations("default", "ident")):
                live = agent.runner.live.get(allocation_id)
                if live is not None and "t" in live.processes:
                    await live.processes["t"].kill()
                await agent.state.change(0.05)
        problems += [f"[17] {p}" for p in await player.replay(CASES[17], Script(), 17)]
    return problems


async def test_identity() -> None:
    problems = await _without_acl() + await _with_acl()
    print(f"identity: 18 replayed, {18 - len({p.split(']')[0] for p in problems})} matched, 0 excluded")
    assert not problems, "\n".join(problems)
    assert len(CASES) == 18
