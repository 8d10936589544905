"""Playing recorded requests against the fake agent, in order, with the state that the recording had around them.

It must not show the fake anything of the answers; it gives it the requests only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import aiohttp
from yarl import URL

from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.replay_compare import Bindings, Comparison, compare_headers, compare_text

PATIENCE_SECONDS = 30.0
"""How much later than recorded an answer may come, on a machine that has other things to do."""
Case = dict[str, Any]
Step = Callable[["Player"], Awaitable[None]]


@dataclass(slots=True)
class Score:
    """What a replay of one file came to."""

    replayed: int = 0
    matched: int = 0
    excluded: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Script:
    """What a recording assumes: steps before a case, things that happen during it, and lists without an order."""

    before: dict[int, Step] = field(default_factory=dict)
    during: dict[int, Step] = field(default_factory=dict)  # one second after the request went out
    unordered: dict[int, frozenset[str]] = field(default_factory=dict)
    queries: dict[int, Callable[[Player], dict[str, str]]] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)


class Player:
    """One agent, one HTTP session and the names found so far."""

    def __init__(self, agent: FakeNomad, session: aiohttp.ClientSession) -> None:
        self.agent = agent
        self.session = session
        self.bindings = Bindings()
        self.kept: dict[str, Any] = {}  # what one step leaves for a later one

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """A request of a setup step; it must succeed."""
        url = f"{self.agent.url}{path}?{urlencode(query)}"
        async with self.session.request(method, URL(url, encoded=True), json=body) as response:
            text = await response.text()
            if response.status >= 300:
                raise AssertionError(f"setup: {method} {path}: {response.status} {text}")
            return json.loads(text) if text.strip() else None

    async def replay(self, case: Case, script: Script, place: int) -> list[str]:
        """Send one recorded request and compare the answer."""
        request, recorded = case["request"], case["response"]
        asked = request["query"]
        asked = dict(parse_qsl(asked)) if isinstance(asked, str) else asked
        query = {k: self._query(k, str(v)) for k, v in asked.items()}
        if place in script.queries:
            query.update(script.queries[place](self))
        url = URL(self.agent.url + self.bindings.translate(request["path"]) + _encoded(query), encoded=True)
        headers = {key: self.bindings.translate(value) for key, value in (request["headers"] or {}).items()}
        during = script.during.get(place)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            if during is not None:
                group.create_task(self._later(during))
            async with self.session.request(
                request["method"], url, data=self._body(request["body"]), headers=headers
            ) as response:
                text = await response.text()
        problems = self._compare(recorded, response, text, script.unordered.get(place, frozenset()))
        wanted_seconds = case.get("seconds") or 0
        if wanted_seconds > 0.9 and wanted_seconds < 60:
            took = loop.time() - began
            if not wanted_seconds - 0.15 <= took <= wanted_seconds + PATIENCE_SECONDS:
                problems.append(f"took {took:.2f} s instead of {wanted_seconds:.2f}")
        return problems

    async def _later(self, step: Step) -> None:
        await asyncio.sleep(1.0)
        await step(self)

    def _query(self, key: str, value: str) -> str:
        if key == "index" and value.isdigit():
            return str(self.bindings.headers.get(int(value), int(value)))
        if key == "cas" and value.isdigit():
            return str(self.bindings.indexes.get(int(value), int(value)))
        return self.bindings.translate(value)

    def _body(self, body: Any) -> str | None:
        if body is None:
            return None
        if isinstance(body, str):
            return body
        if body == {"Items": {"a": "<70000 times x>"}}:
            body = {"Items": {"a": "x" * 70000}}
        text = self.bindings.translate(json.dumps(body))
        wanted = body.get("JobModifyIndex") if isinstance(body, dict) else None
        if wanted in self.bindings.indexes:
            text = json.dumps({**json.loads(text), "JobModifyIndex": self.bindings.indexes[wanted]})
        return text

    def _compare(
        self, recorded: dict[str, Any], response: aiohttp.ClientResponse, text: str, unordered: frozenset[str]
    ) -> list[str]:
        problems = []
        if response.status != recorded["status"]:
            problems.append(f"status {response.status} instead of {recorded['status']}: {text[:200]}")
            return problems
        problems += compare_headers(recorded["headers"], response.headers.items())
        index, actual_index = recorded["headers"].get("X-Nomad-Index"), response.headers.get("X-Nomad-Index")
        if index and actual_index:
            self.bindings.headers[int(index)] = int(actual_index)
        body = recorded["body"]
        if body is None:
            if text.strip() not in ("", "null"):
                problems.append(f"body {text[:100]!r} instead of none")
        elif isinstance(body, str) and not text.startswith('"'):
            problem = compare_text(body, text, self.bindings)
            if problem:
                problems.append(problem)
        else:
            comparison = Comparison(self.bindings, unordered)
            comparison.value(body, json.loads(text))
            problems += comparison.problems
        return problems


def _encoded(query: dict[str, str]) -> str:
    return f"?{urlencode(query)}" if query else ""


def load(path: Path) -> list[Case]:
    cases: list[Case] = json.loads(path.read_text())
    return cases


async def play(player: Player, cases: list[Case], script: Script) -> Score:
    """Replay the plain HTTP cases of a file in order."""
    score = Score()
    for place, case in enumerate(cases):
        if place in script.before:
            await script.before[place](player)
        if place in script.excluded:
            score.excluded += 1
            continue
        problems = await player.replay(case, script, place)
        score.replayed += 1
        score.matched += not problems
        score.problems += [f"[{place}] {case['name']}: {problem}" for problem in problems]
    return score
