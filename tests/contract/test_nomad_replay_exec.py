"""Exec and actions: the recorded websocket sessions against the fake agent, frame by frame."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from tests.support.nomad import replay_worlds as worlds
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.replay_player import Case, Player, Script, load
from tests.support.nomad.replay_streams import play_session, session_form

RECORDINGS = Path(__file__).parent / "recordings" / "nomad-2.0.6-dev"
_EXEC_TASK = "df64154d-ccff-5d88-cd3f-7e5d3250e76f"
_PLUGIN_TASK = "41687fab-dbcc-61ce-2a20-9ff231df578d"


async def _world(player: Player) -> None:
    await worlds.plugins(player)
    await worlds.volume(player, "vol-b")
    action = {"Name": "freeze", "Command": "/bin/sh", "Args": ["-c", "echo frozen"]}
    allocation = await worlds.run(player, worlds.job("web", "vol-b", worlds.task("t", Actions=[action])))
    player.bindings.bind(_EXEC_TASK, allocation)
    player.bindings.bind(_PLUGIN_TASK, player.agent.state.plugins["hostpath"].allocation_id)


async def _session(player: Player, case: Case) -> list[str]:
    frames = await play_session(player, case)
    wanted, found = (session_form(f, player.bindings) for f in (case["response"]["frames"], frames))
    return [] if wanted == found else [f"{found} instead of {wanted}"[:600]]


async def test_exec() -> None:
    cases = load(RECORDINGS / "exec.json")
    problems: list[str] = []
    matched = 0
    async with FakeNomad() as agent, aiohttp.ClientSession() as session:
        player = Player(agent, session)
        await _world(player)
        for place, case in enumerate(cases):
            plain = "frames" not in case["response"]
            found = await (player.replay(case, Script(), place) if plain else _session(player, case))
            matched += not found
            problems += [f"[{place}] {case['name']}: {problem}" for problem in found]
    print(f"exec: {len(cases)} replayed, {matched} matched, 0 excluded")
    assert not problems, "\n".join(problems)


async def test_a_wedged_task_cannot_be_stopped() -> None:
    """nomad-verified.md A.3: after an exec of a missing program the allocation stays until its executor is killed."""
    case = load(RECORDINGS / "exec.json")[28]
    async with FakeNomad() as agent, aiohttp.ClientSession() as session:
        player = Player(agent, session)
        await _world(player)
        await play_session(player, case, limit_seconds=0.1)
        await player.call("DELETE", "/v1/job/web")
        (allocation,) = agent.state.job_allocations("default", "web")
        await agent.state.change(0.3)
        assert not allocation.terminal
        assert agent.state.volumes[("default", "vol-b")].writers
        agent.unwedge(allocation.id, "t")
        await worlds.ended(player, "web")
        assert not agent.state.volumes[("default", "vol-b")].writers
