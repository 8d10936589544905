"""The event stream: the recorded lives, resumptions and denials against the fake agent, from the bare socket.

Of the live recording every line is compared with its payloads; runs of `CSIVolumeClaim` lines of one volume that say
the same are taken as one, as their number differs from run to run on a real agent (nomad-verified.md E).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.nomad import replay_scripts
from tests.support.nomad import replay_worlds as worlds
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.replay_compare import Comparison
from tests.support.nomad.replay_player import Case, Player, load, play
from tests.support.nomad.replay_streams import (
    PATIENCE_SECONDS,
    Seen,
    collect,
    compare_stream,
    open_stream,
    play_session,
    quiet,
    read_stream,
    session_form,
    stream_query,
)
from tests.support.nomad.settings import Settings

RECORDINGS = Path(__file__).parent / "recordings" / "nomad-2.0.6-dev"
EVENTS = load(RECORDINGS / "events.json")
_LIVE_FROM = 132  # the index at which the recorded live part begins; what is before was replayed from the buffer
_LEFT_OUT = "(left out)"


def _collapsed(lines: list[Any]) -> list[dict[str, Any]]:
    """The lines with repeated claims of one volume taken as one, and of a stopping allocation only the last word.

    How many updates a stopping allocation sends depends on how long its task takes to die.
    """
    kept: list[dict[str, Any]] = []
    for line in lines:
        if _is_stopping(line):
            continue
        if kept and _claim(line) is not None and _claim(line) == _claim(kept[-1]):
            kept[-1] = line
        else:
            kept.append(line)
    return kept


def _is_stopping(line: dict[str, Any]) -> bool:
    event = line["Events"][0]
    if event["Type"] != "AllocationUpdated" or event["Topic"] != "Allocation":
        return False
    row = event["Payload"]["Allocation"]
    return bool(row["DesiredStatus"] == "stop" and row["ClientStatus"] != "complete")


def _claim(line: dict[str, Any]) -> tuple[str, str] | None:
    event = line["Events"][0]
    if event["Type"] != "CSIVolumeClaim":
        return None
    return event["Key"], event["Payload"]["Volume"]["AccessMode"]


def _compare_live(player: Player, recorded: list[Any], seen: list[Any]) -> list[str]:
    left, right = _collapsed(recorded), _collapsed(seen)
    short = [[(e["Topic"], e["Type"]) for e in line["Events"]] for line in left]
    found = [[(e["Topic"], e["Type"]) for e in line["Events"]] for line in right]
    if short != found:
        wanted_text, found_text = ("\n".join(map(str, rows)) for rows in (short, found))
        return [f"lines\n{found_text}\ninstead of\n{wanted_text}"]
    comparison = Comparison(player.bindings)
    for place, (old, new) in enumerate(zip(left, right, strict=True)):
        for event, actual in zip(old["Events"], new["Events"], strict=True):
            name = f"{place} {event['Topic']} {event['Type']}"
            if event["Payload"] == _LEFT_OUT:
                actual = {**actual, "Payload": _LEFT_OUT}
            ended = actual["Payload"].get("Allocation") if isinstance(actual["Payload"], dict) else None
            if (
                ended
                and "DeploymentStatus" not in event["Payload"]["Allocation"]
                and ended["ClientStatus"] == "complete"
            ):
                # A stopped allocation's last health report is a race on the real client: in the same recording one
                # has it (index 149) and one has not (163).
                ended.pop("DeploymentStatus", None)
            comparison.value(event, actual, name)
    return comparison.problems


async def _life(player: Player) -> None:
    """What the recording did meanwhile: register, edit meta, stop, a volume made and deleted, purge."""
    spec = replay_scripts.ev_job()
    await worlds.run(player, spec)
    await asyncio.sleep(0.4)
    spec["Meta"]["csi_snapshot_retain"] = "48"
    await worlds.run(player, spec)
    await asyncio.sleep(0.4)
    await player.call("DELETE", "/v1/job/ev")
    await worlds.ended(player, "ev")
    await asyncio.sleep(0.1)
    await worlds.volume(player, "evv", RequestedCapacityMin=0)
    await player.call("DELETE", "/v1/volume/csi/evv/delete")
    await player.call("DELETE", "/v1/job/ev", purge="true")


def _live(seen: Seen, before: int) -> list[dict[str, Any]]:
    return [line for line in seen.lines if line and line["Index"] > before]


def _all_there(seen: Seen, before: int, recorded: list[Any]) -> bool:
    return seen.lines.count({}) >= 2 and len(_collapsed(_live(seen, before))) >= len(_collapsed(recorded))


async def test_a_job_seen_through_the_stream() -> None:
    case = EVENTS[0]
    settings = Settings(update_batch_seconds=0.3, task_setup_seconds=0.5, heartbeat_seconds=3.0, kill_scale=30.0)
    async with FakeNomad(settings=settings) as agent, aiohttp.ClientSession() as session:
        player = Player(agent, session)
        await worlds.plugins(player)
        await worlds.volume(player, "vol-c", RequestedCapacityMax=4194304, Parameters={"p": "1"}, **worlds.MOUNT)
        agent.hold("healthy")
        await asyncio.sleep(0.5)
        before = agent.state.index
        recorded = [x["line"] for x in case["response"]["lines"] if x["line"] and x["line"]["Index"] >= _LIVE_FROM]
        seen = Seen()
        loop = asyncio.get_running_loop()
        began = loop.time()
        reader, writer = await open_stream(player, stream_query(case, None), {})
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(collect(reader, seen))
            await _life(player)
            end = loop.time() + PATIENCE_SECONDS  # after it, what is missing is told below
            while not _all_there(seen, before, recorded) and loop.time() < end:  # noqa: ASYNC110 - nothing rings
                await asyncio.sleep(0.05)
            await quiet(reading, seen, 0.5)  # nothing more than was recorded
            reading.cancel()
        writer.close()
        live = _live(seen, before)
        problems = compare_stream(case, seen) + _compare_live(player, recorded, live)
    assert not problems, "\n".join(problems)
    assert seen.lines[0] == {}
    # One at once and one after its time, as recorded; on a slow machine one more whenever that time has passed again.
    assert 2 <= seen.lines.count({}) <= 1 + (loop.time() - began) / settings.heartbeat_seconds
    print("events (live): 1 replayed, 1 matched, 0 excluded")


Index = Callable[[FakeNomad], int]


def _indexes(agent: FakeNomad) -> list[int]:
    return [index for index, _ in agent.events.entries]


def _middle(agent: FakeNomad) -> int:
    wanted = [i for i, events in agent.events.entries if events[0]["Topic"] == "CSIVolume"]
    return wanted[len(wanted) // 2]


# The index that each recorded case asks for, in the fake's own terms; cases without one ask as recorded.
ASKED: dict[int, Index] = {
    1: _middle,
    2: lambda agent: max(_indexes(agent)),
    3: lambda agent: min(_indexes(agent)) - 1,
    14: lambda agent: agent.state.index + 1000,
    15: lambda agent: agent.state.index + 1,
    17: lambda agent: _gap(agent),
    18: lambda agent: agent.state.index + 1000,
}


def _gap(agent: FakeNomad) -> int:
    held = set(_indexes(agent))
    return next(i for i in range(min(held), max(held)) if i not in held)


def _first_index(place: int, agent: FakeNomad, asked: int | None, seen: Seen) -> list[str]:
    """Where the recorded stream began, seen from the buffer: the point of each of these cases."""
    held = _indexes(agent)
    first = seen.indexes[0] if seen.indexes else None
    expected: dict[int, Any] = {1: asked, 2: asked, 14: max(held), 15: max(held)}
    if place in (8, 9):
        name, topic = ("ev", "Job") if place == 8 else ("hostpath", "CSIVolume")
        expected[place] = min(
            index
            for index, events in agent.events.entries
            if any(e["Topic"] == topic and name in (e["Key"], *(e["FilterKeys"] or [])) for e in events)
        )
    if place == 17:
        expected[17] = min(index for index in held if index > (asked or 0))
    if place in expected and first != expected[place]:
        return [f"began at {first} instead of {expected[place]}"]
    if place in (3, 4, 5, 6, 11, 16) and (first is None or first > sorted(held)[len(held) // 2]):
        return [f"began at {first}: not at the oldest of {min(held)}"]
    return []


async def _prepare(player: Player, place: int) -> None:
    """Give the buffer the tail that the case speaks of."""
    if place in (2, 15):
        await worlds.volume(player, f"tailv{place}")
    if place in (14, 18):
        events = player.agent.events
        node = {
            "Topic": "Node",
            "Key": player.agent.state.node_id,
            "Namespace": "",
            "FilterKeys": None,
            "Payload": {},
        }
        events.publish(player.agent.state.commit("nodes"), "NodeStreamEvent", [node])
    if place == 17:
        player.agent.state.commit()
        await worlds.volume(player, "gapv")


async def test_resume_and_filters() -> None:
    problems: list[str] = []
    async with FakeNomad() as agent, aiohttp.ClientSession() as session:
        player = Player(agent, session)
        await worlds.plugins(player)
        await worlds.volume(player, "vol-c")
        await worlds.run(player, replay_scripts.ev_job())
        for place, case in enumerate(EVENTS):
            if place in (0, 13):
                continue
            await _prepare(player, place)
            asked = ASKED[place](agent) if place in ASKED else None
            seen = await read_stream(player, stream_query(case, asked), {}, 0.1)
            found = compare_stream(case, seen) + _first_index(place, agent, asked, seen)
            problems += [f"[{place}] {case['name']}: {problem}" for problem in found]
    print(f"events: 17 replayed, {17 - len({p.split(']')[0] for p in problems})} matched, 0 excluded")
    assert not problems, "\n".join(problems)


async def test_plugin_events_follow_the_plugin() -> None:
    """Restart, replacement and stop of a plugin: the types of its lines and the health that they carry."""
    case = EVENTS[13]
    async with FakeNomad() as agent, aiohttp.ClientSession() as session:
        player = Player(agent, session)
        await worlds.plugins(player)
        seen = Seen()
        reader, writer = await open_stream(player, stream_query(case, None), {})
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(collect(reader, seen))
            await quiet(reading, seen, 0.05)
            old = len(seen.lines)
            await agent.replace_plugin_allocation("slow")
            await worlds.stop(player, "csi-slow")
            await quiet(reading, seen, 0.1)
            reading.cancel()
        writer.close()
    problems = compare_stream(case, seen)
    recorded = [e for x in case["response"]["lines"] if x["line"] for e in x["line"]["Events"]]
    live = [event for line in seen.lines[old:] for event in line["Events"]]
    wanted_types = {e["Type"] for e in recorded}
    assert {e["Type"] for e in live} >= wanted_types, live
    health = [e["Payload"]["Plugin"]["ControllersHealthy"] for e in live if e["Key"] == "slow"]
    assert 1 in health[1:]
    assert health[-1] == 0
    assert any(e["Type"] == "NodeRegistration" and e["Key"] == "hostpath" for e in live)
    comparison = Comparison(player.bindings)
    for old_event in (e for e in recorded if isinstance(e["Payload"], dict)):
        same = [e for e in live if (e["Type"], e["Key"]) == (old_event["Type"], old_event["Key"])]
        wanted_health = old_event["Payload"]["Plugin"]["ControllersHealthy"]
        match = next((e for e in same if e["Payload"]["Plugin"]["ControllersHealthy"] == wanted_health), None)
        if match is None:
            problems.append(f"no {old_event['Type']} of {old_event['Key']} with {wanted_health} healthy controllers")
        else:
            comparison.bindings.names.clear()
            comparison.bindings.back.clear()
            comparison.value(old_event["Payload"], match["Payload"], old_event["Type"])
    assert not problems + comparison.problems, "\n".join(problems + comparison.problems)
    print("events (plugin): 1 replayed, 1 matched, 0 excluded")


async def _acl_case(player: Player, case: Case) -> list[str]:
    if "frames" in case["response"]:
        frames = await play_session(player, case)
        wanted, found = (session_form(f, player.bindings) for f in (case["response"]["frames"], frames))
        return [] if wanted == found else [f"{found} instead of {wanted}"]
    seen = await read_stream(player, case["request"]["query"], case["request"]["headers"], 0.15)
    problems = compare_stream(case, seen)
    if not case["response"]["lines"] and seen.closed:
        problems.append("the denied stream ended at once")
    return problems


async def test_acl_streams_and_sessions() -> None:
    cases = load(RECORDINGS / "acl.json")
    start = next(place for place, case in enumerate(cases) if "body" not in case["response"])
    problems: list[str] = []
    async with FakeNomad(acl=True) as agent, aiohttp.ClientSession() as session:
        player = Player(agent, session)
        player.kept["plugin job"] = cases[8]["request"]["body"]["Job"]
        await play(player, cases[:63], replay_scripts.ACL)  # makes the tokens, the plugin, the volume and the names
        for place, case in enumerate(cases[start:], start):
            problems += [f"[{place}] {case['name']}: {problem}" for problem in await _acl_case(player, case)]
    count = len(cases) - start
    print(f"acl streams: {count} replayed, {count - len({p.split(']')[0] for p in problems})} matched, 0 excluded")
    assert not problems, "\n".join(problems)


async def _denied(close_seconds: float, quiet_seconds: float) -> Seen:
    settings = Settings(denied_close_seconds=close_seconds)
    async with FakeNomad(settings=settings) as agent, aiohttp.ClientSession() as session:
        agent.deny_streams()
        return await read_stream(Player(agent, session), "topic=Job", {}, quiet_seconds)


async def test_a_denied_stream_closes_late() -> None:
    """nomad-verified.md A.1: 200, silence, and the end much later."""
    early, late = await _denied(60.0, 0.15), await _denied(0.3, PATIENCE_SECONDS)
    assert (early.status_line, early.lines, early.closed) == ("HTTP/1.1 200 OK", [], False)
    assert (late.lines, late.closed) == ([], True)
