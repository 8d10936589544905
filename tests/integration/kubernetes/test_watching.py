"""Watching a server that misbehaves: no storm, nothing lost, nothing taken in twice."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from adapters.kubernetes import names, trim
from adapters.kubernetes.cache import Cache
from adapters.kubernetes.client import PAGE_SIZE, Client
from adapters.kubernetes.problem import ApiError
from adapters.kubernetes.reflector import Pace, Reflector
from bridge.model.failure import UnavailableError
from tests.integration.kubernetes import rogue as rogues


@contextlib.asynccontextmanager
async def reflecting(client: Client, **pace: float) -> AsyncIterator[tuple[Reflector, Cache]]:
    cache = Cache(trim.whole)
    reflector = Reflector(client, names.SNAPSHOTS, cache, pace=Pace(**pace))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reflector.run())
        try:
            yield reflector, cache
        finally:
            task.cancel()


async def until(what, seconds: float = 30.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)


async def stream(request: web.Request, *chunks: bytes, hold: float = 0.0, cut: bool = False) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for chunk in chunks:
        await response.write(chunk)
        await asyncio.sleep(0.01)
    await asyncio.sleep(hold)
    if cut and request.transport is not None:
        request.transport.abort()
    return response


@pytest.mark.parametrize("fault", ["closed at once", "500", "410", "410 in the stream", "garbage", "refused list"])
async def test_a_misbehaving_server_is_not_stormed(tmp_path: Path, fault: str) -> None:
    async with rogues.serving(tmp_path) as (rogue, client):

        async def watch(request: web.Request) -> web.StreamResponse:
            if fault == "500":
                return rogues.status(500)
            if fault == "410":
                return rogues.status(410, "Expired")
            if fault == "410 in the stream":
                gone = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"old"}}\n'
                return await stream(request, gone)
            if fault == "garbage":
                return await stream(request, b"<html>\n")
            return await rogue.closed(request)

        async def refused(request: web.Request) -> web.StreamResponse:
            return rogues.status(403, "Forbidden")

        rogue.on_watch = watch
        if fault == "refused list":
            rogue.on_list = refused
        started = time.monotonic()
        async with reflecting(client) as (reflector, _):
            await asyncio.sleep(3)
            asked = rogue.lists + rogue.watches
            assert asked <= most_requests(time.monotonic() - started)
            if fault == "refused list":
                await until(lambda: rogue.lists >= 2 and "cannot be read" in reflector.sentence)
            elif fault.startswith("410"):
                await until(lambda: rogue.lists >= 3 and reflector.sentence == "")
            else:
                await until(lambda: rogue.watches >= 2 and reflector.sentence == "")
                assert rogue.lists == 1


def most_requests(seconds: float) -> int:
    """A list and a watch for each try, with pauses that double: 10 in 3 s."""
    shortest = 0.8 * Pace().first
    return 2 * (int(math.log2(seconds / shortest + 1)) + 1)


async def test_a_cut_line_is_read_again_and_nothing_is_lost(tmp_path: Path) -> None:
    async with rogues.serving(tmp_path) as (rogue, client):
        last = rogues.line("ADDED", "b", "12")

        async def watch(request: web.Request) -> web.StreamResponse:
            if request.query["resourceVersion"] == "7":
                whole = rogues.line("ADDED", "a", "11")
                return await stream(request, whole[:10], whole[10:] + last[:20], cut=True)
            return await stream(request, last, hold=5)

        rogue.on_watch = watch
        async with reflecting(client, first=0.05) as (_, cache):
            await until(lambda: len(cache) == 2)
        assert rogue.positions[:2] == ["7", "11"]
        assert rogue.lists == 1


async def test_a_bookmark_moves_the_position(tmp_path: Path) -> None:
    async with rogues.serving(tmp_path) as (rogue, client):

        async def watch(request: web.Request) -> web.StreamResponse:
            mark = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"99"}}}\n'
            return await stream(request, mark)

        rogue.on_watch = watch
        async with reflecting(client, first=0.05) as (_, cache):
            await until(lambda: rogue.watches >= 2)
            assert len(cache) == 0
        assert rogue.positions[:2] == ["7", "99"]


async def test_a_line_of_eight_megabytes_is_read(tmp_path: Path) -> None:
    async with rogues.serving(tmp_path) as (rogue, client):

        async def watch(request: web.Request) -> web.StreamResponse:
            return await stream(request, rogues.line("ADDED", "big", "8", blob="x" * 8_000_000), hold=5)

        rogue.on_watch = watch
        async with reflecting(client) as (_, cache):
            await until(lambda: len(cache) == 1)


async def test_a_silent_watch_is_opened_again(tmp_path: Path) -> None:
    async with rogues.serving(tmp_path) as (rogue, client):

        async def watch(request: web.Request) -> web.StreamResponse:
            return await stream(request, hold=20)

        rogue.on_watch = watch
        async with reflecting(client, first=0.05, idle=0.3):
            await until(lambda: rogue.watches >= 2)


async def test_pages_are_followed_and_an_expired_token_starts_anew(tmp_path: Path) -> None:
    async with rogues.serving(tmp_path) as (rogue, client):
        expired = True

        async def pages(request: web.Request) -> web.StreamResponse:
            nonlocal expired
            token = request.query.get("continue", "")
            name = "b" if token else "a"
            if token and expired:
                expired = False
                return rogues.status(410, "Expired")
            metadata = {"resourceVersion": "7"} | ({} if token else {"continue": "more"})
            item = {"metadata": {"name": name, "namespace": "x", "uid": name, "resourceVersion": "3"}}
            assert request.query["limit"] == str(PAGE_SIZE)
            return web.json_response({"metadata": metadata, "items": [item]})

        rogue.on_list = pages
        async with reflecting(client, first=0.05) as (reflector, cache):
            await until(lambda: cache.synced)
            assert {item["metadata"]["name"] for item in cache.all()} == {"a", "b"}
            assert reflector.sentence == ""
        assert rogue.lists == 4


async def test_missing_definitions_are_named_with_the_remedy(tmp_path: Path) -> None:
    async with rogues.serving(tmp_path) as (rogue, client):

        async def missing(request: web.Request) -> web.StreamResponse:
            return rogues.status(404, "NotFound")

        rogue.on_list = missing
        async with reflecting(client) as (reflector, cache):
            await until(lambda: "no volumesnapshots" in reflector.sentence)
            assert "kubectl apply" in reflector.sentence
            assert not cache.synced


async def test_a_throttled_call_waits_as_long_as_the_server_says(tmp_path: Path) -> None:
    async with rogues.serving(tmp_path) as (rogue, client):

        async def throttled(request: web.Request) -> web.StreamResponse:
            if rogue.lists < 3:
                return rogues.status(429, "TooManyRequests", **{"Retry-After": "0.3"})
            return await rogue.empty_list(request)

        rogue.on_list = throttled
        started = time.monotonic()
        await client.page(names.SNAPSHOTS)
        assert time.monotonic() - started >= 0.6
        assert rogue.lists == 3


async def test_a_server_that_throttles_for_ever_is_given_up_on(tmp_path: Path) -> None:
    async with rogues.serving(tmp_path) as (rogue, client):

        async def throttled(request: web.Request) -> web.StreamResponse:
            return rogues.status(429, "TooManyRequests", **{"Retry-After": "0.05"})

        rogue.on_list = throttled
        with pytest.raises(ApiError) as caught:
            await client.page(names.SNAPSHOTS)
        assert caught.value.reason == "TooManyRequests"
        assert rogue.lists == 5


@pytest.mark.parametrize("body", ["not json", "[1]"])
async def test_an_answer_that_is_no_object_is_unavailable(tmp_path: Path, body: str) -> None:
    async with rogues.serving(tmp_path) as (rogue, client):

        async def odd(request: web.Request) -> web.StreamResponse:
            return web.Response(text=body)

        rogue.on_list = odd
        with pytest.raises(UnavailableError):
            await client.page(names.SNAPSHOTS)
