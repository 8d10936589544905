"""The queue: once each, serial per key, delayed return. Time is virtual."""

from __future__ import annotations

import asyncio

import pytest

from bridge.model.keys import snapshot_key
from bridge.service.queue import KeyQueue
from tests.support.memory import VirtualClock

A, B = snapshot_key("c", "a"), snapshot_key("c", "b")


async def test_a_key_added_twice_is_taken_once() -> None:
    queue = KeyQueue(VirtualClock())
    queue.add(A)
    queue.add(A)
    assert await queue.take() == A
    assert len(queue) == 0


async def test_a_key_added_during_its_own_turn_runs_again_and_never_beside_itself() -> None:
    queue = KeyQueue(VirtualClock())
    queue.add(A)
    await queue.take()
    queue.add(A)
    assert len(queue) == 0
    queue.done(A)
    assert await queue.take() == A


async def test_keys_come_in_the_order_they_were_added() -> None:
    queue = KeyQueue(VirtualClock())
    queue.add(B)
    queue.add(A)
    assert [await queue.take(), await queue.take()] == [B, A]


async def test_a_delayed_key_comes_when_it_is_due_and_not_before() -> None:
    clock = VirtualClock()
    queue = KeyQueue(clock)
    queue.add_after(A, 30)
    assert await queue.take() == A
    assert clock.now() == pytest.approx(1_000_030.0)


async def test_the_earlier_of_two_returns_counts() -> None:
    clock = VirtualClock()
    queue = KeyQueue(clock)
    queue.add_after(A, 30)
    queue.add_after(A, 5)
    queue.add_after(A, 60)
    assert await queue.take() == A
    assert clock.now() == pytest.approx(1_000_005.0)
    queue.done(A)
    assert queue.idle
    assert "delayed=0" in repr(queue)


async def test_adding_now_overrides_a_delay() -> None:
    clock = VirtualClock()
    queue = KeyQueue(clock)
    queue.add_after(A, 30)
    queue.add(A)
    assert await queue.take() == A
    assert clock.now() == 1_000_000.0


async def test_a_waiting_taker_is_woken() -> None:
    queue = KeyQueue(VirtualClock())
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        taken = group.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add(B)
    assert taken.result() == B


async def test_many_takers_share_the_keys() -> None:
    queue = KeyQueue(VirtualClock())
    keys = [snapshot_key("c", str(number)) for number in range(100)]
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        takers = [group.create_task(queue.take()) for _ in keys]
        await asyncio.sleep(0)
        for key in keys:
            queue.add(key)
    assert {taker.result() for taker in takers} == set(keys)
