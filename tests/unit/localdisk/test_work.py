"""Claims and threads: one operation per object, others told ABORTED, none lost when its caller goes away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import grpc
import pytest

from adapters.localdisk import failures
from adapters.localdisk.work import Claims, Work


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    found = Work(threads=4)
    yield found
    await found.close()


@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [
        ((["a"], []), (["a"], []), False),
        ((["a"], []), ([], ["a"]), False),
        (([], ["a"]), (["a"], []), False),
        (([], ["a"]), ([], ["a"]), True),
        ((["a"], ["b"]), (["c"], ["b"]), True),
        ((["a"], ["b"]), (["b"], ["c"]), False),
    ],
)
def test_who_may_hold_what(
    first: tuple[list[str], list[str]], second: tuple[list[str], list[str]], allowed: bool
) -> None:
    claims = Claims()
    with claims.held(*first):
        if allowed:
            with claims.held(*second):
                pass
        else:
            with pytest.raises(failures.DriverError) as caught, claims.held(*second):
                pass
            assert caught.value.code is grpc.StatusCode.ABORTED
    with claims.held(*second):
        pass


def test_a_refused_claim_holds_nothing() -> None:
    claims = Claims()
    with claims.held(["b"]):
        with pytest.raises(failures.DriverError), claims.held(["a", "b"]):
            pass
        with claims.held(["a"]):
            pass


async def test_work_goes_on_without_its_caller_and_keeps_its_claim(work: Work) -> None:
    begun, finish = threading.Event(), threading.Event()

    def operation() -> None:
        begun.set()
        finish.wait(30)

    caller = asyncio.create_task(work.run(operation, alone=["a"]))
    await asyncio.to_thread(begun.wait, 30)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    with pytest.raises(failures.DriverError):
        await work.run(lambda: None, alone=["a"])
    finish.set()
    async with asyncio.timeout(30):
        while True:
            try:
                assert await work.run(lambda: "free", alone=["a"]) == "free"
                break
            except failures.DriverError:
                await asyncio.sleep(0.01)


async def test_an_error_reaches_the_caller_and_frees_the_claim(work: Work) -> None:
    def operation() -> None:
        raise OSError("broken")

    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            await work.run(operation, alone=["a"])


async def test_the_loop_is_not_blocked(work: Work) -> None:
    finish = threading.Event()
    caller = asyncio.create_task(work.run(lambda: finish.wait(30), alone=["a"]))
    ticks = 0
    for _ in range(5):
        await asyncio.sleep(0.001)
        ticks += 1
    finish.set()
    assert await caller
    assert ticks == 5


async def test_close_waits_for_what_runs() -> None:
    work = Work(threads=1)
    done: list[str] = []
    finish = threading.Event()

    def operation() -> None:
        finish.wait(30)
        done.append("yes")

    caller = asyncio.create_task(work.run(operation))
    await asyncio.sleep(0.01)
    asyncio.get_running_loop().call_later(0.05, finish.set)
    await work.close()
    assert done == ["yes"]
    await caller
