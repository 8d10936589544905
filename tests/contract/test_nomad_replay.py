"""The fake Nomad agent is held to the recordings of a real one (Nomad 2.0.6-dev, see docs).

Each recorded request is sent to the fake in the recorded order; status, Nomad's headers and the body are compared.
Ids are matched by a bijection, times and indexes by kind, error texts word by word. `replay_scripts` lists the
exclusions with their reasons.
"""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.support.nomad import replay_scripts
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.replay_player import Case, Player, Script, load, play
from tests.support.nomad.settings import Settings

RECORDINGS = Path(__file__).parent / "recordings" / "nomad-2.0.6-dev"
# A task that is told to stop ends by itself, as recorded, however slow the machine is.
SETTINGS = Settings(kill_scale=10.0)
PLAIN = {
    "volumes": replay_scripts.VOLUMES,
    "snapshots": replay_scripts.SNAPSHOTS,
    "plugins": replay_scripts.PLUGINS,
    "jobs": replay_scripts.JOBS,
    "variables": replay_scripts.VARIABLES,
    "blocking": replay_scripts.BLOCKING,
    "errors": replay_scripts.ERRORS,
    "agent": replay_scripts.AGENT,
}


@pytest.mark.parametrize("name", PLAIN)
async def test_plain_answers(name: str) -> None:
    script: Script = PLAIN[name]
    cases = load(RECORDINGS / f"{name}.json")
    async with FakeNomad(settings=SETTINGS) as agent, aiohttp.ClientSession() as session:
        score = await play(Player(agent, session), cases, script)
    print(f"{name}: {score.replayed} replayed, {score.matched} matched, {score.excluded} excluded")
    assert not score.problems, "\n".join(score.problems)
    assert score.replayed + score.excluded == len(cases)


def _plain(cases: list[Case]) -> int:
    """How many cases are plain HTTP; the streams and websockets come after them."""
    return next((place for place, case in enumerate(cases) if "body" not in case["response"]), len(cases))


async def test_acl() -> None:
    cases = load(RECORDINGS / "acl.json")
    count = _plain(cases)
    async with FakeNomad(acl=True, settings=SETTINGS) as agent, aiohttp.ClientSession() as session:
        player = Player(agent, session)
        player.kept["plugin job"] = cases[8]["request"]["body"]["Job"]
        score = await play(player, cases[:count], replay_scripts.ACL)
    print(f"acl: {score.replayed} replayed, {score.matched} matched, {score.excluded} excluded")
    assert not score.problems, "\n".join(score.problems)


def test_every_recorded_case_is_accounted_for() -> None:
    """530 cases; the tests of this and the sibling files replay all but the exclusions, which have a reason each."""
    total = sum(len(load(path)) for path in RECORDINGS.glob("*.json"))
    exclusions = {
        (name, place): reason for name, script in PLAIN.items() for place, reason in script.excluded.items()
    }
    for (name, place), reason in exclusions.items():
        print(f"excluded: {name}[{place}]: {reason}")
    assert total == 530
    assert len(exclusions) == 2
    assert {path.stem for path in RECORDINGS.glob("*.json")} == {*PLAIN, "acl", "events", "exec", "identity"}
