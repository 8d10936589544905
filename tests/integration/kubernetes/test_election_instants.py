"""The right to act, instant by instant: elections in this process against a real API server, with faults between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from adapters.kubernetes import connection, election
from adapters.kubernetes.client import Client
from adapters.kubernetes.decide.election import Scope, Terms
from adapters.kubernetes.settings import Settings
from bridge.model.failure import ElsewhereError
from tests.integration.kubernetes.stand import WallClock
from tests.support import httpproxy
from tests.support.bed import access, paths
from tests.support.bed.controlplane import ControlPlane

LONG = (60, 40.0, 0.2)
"""A lease that no machine is slow enough to lose."""
SHORT = (5, 3.0, 0.2)
"""One that ends in a test."""


class Watched:
    """An election in this process, and every instant (to 5 ms) at which it says that it may act."""

    def __init__(self, standing: election.Election) -> None:
        self.election = standing
        self.wins: list[bool] = []

    async def catch_up(self, led_before: bool) -> None:
        self.wins.append(led_before)

    async def run(self) -> None:
        await self.election.run(self.catch_up, lambda: None)

    @property
    def acts(self) -> bool:
        return not self.election.why_not("")


async def watched(
    namespace: str,
    kubeconfig: Path,
    name: str,
    drivers: Callable[[], Iterable[str]] = tuple,
    scope: Scope = Scope.BOTH,
    times: tuple[int, float, float] = LONG,
) -> Watched:
    given = Settings(kubeconfig=str(kubeconfig))
    client = Client(await connection.open_connection(given))
    terms = Terms(*times, scope)
    standing = election.Election(
        client,
        WallClock(),
        namespace=namespace,
        me=election.identity(name),
        terms=terms,
        drivers=drivers,
    )
    return Watched(standing)


async def until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not what():  # noqa: ASYNC110 - an instant is not announced
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_one_that_cannot_renew_stops_before_the_next_one_begins(
    control_plane: ControlPlane, namespace: str, moment: str
) -> None:
    """Its writes are cut off, or done and their answers lost; it may not act when it does not know that it leads."""
    async with httpproxy.running(control_plane.url, str(control_plane.certificate_authority)) as proxy:
        way = access.write_kubeconfig(
            paths.fresh("election") / "kubeconfig",
            proxy.url,
            control_plane.token,
            control_plane.certificate_authority,
        )
        first = await watched(namespace, way.kubeconfig, "first", times=SHORT)
        second = await watched(namespace, control_plane.kubeconfig, "second")
        tasks = [asyncio.create_task(first.run(), name="first")]
        await until(lambda: first.acts)
        tasks.append(asyncio.create_task(second.run(), name="second"))
        together = asyncio.create_task(never_both(first, second), name="watch")
        await until(lambda: "leader is first_" in second.election.why_not(""))
        assert first.acts
        proxy.strike = lambda when, what: when == moment and "/leases" in what
        await until(lambda: not first.acts)
        assert not second.acts
        if moment == "before":
            stopped = time.monotonic()
            await until(lambda: second.acts)
            print(f"nobody acts for {time.monotonic() - stopped:.2f} s")
            proxy.strike = lambda _when, _what: False
            await until(lambda: "leader is second_" in first.election.why_not(""))
            await asyncio.sleep(0.6)
            assert not first.acts
            assert first.wins == [False]
        else:
            # The renewals arrive, so that nobody can take it; but the holder must not trust what it was not told.
            await asyncio.sleep(1.0)
            assert not second.acts
            proxy.strike = lambda _when, _what: False
            await until(lambda: first.acts)
            assert first.wins == [False, True]
        assert not together.done(), "they have never acted at the same time"
        together.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, together, return_exceptions=True)


async def never_both(one: Watched, other: Watched) -> None:
    while True:
        assert not (one.acts and other.acts)
        await asyncio.sleep(0.005)


async def test_an_election_whose_task_has_crashed_does_not_go_on_acting(
    control_plane: ControlPlane, namespace: str
) -> None:
    broken = False

    def drivers() -> Iterable[str]:
        if broken:
            raise RuntimeError("a defect")
        return ()

    one = await watched(namespace, control_plane.kubeconfig, "one", drivers)
    task = asyncio.create_task(one.run(), name="one")
    await until(lambda: one.acts)
    broken = True
    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(30):
            await task
    assert not one.acts
    with pytest.raises(ElsewhereError):
        async with one.election.acting():
            raise AssertionError("it acts")


async def test_the_right_to_act_ends_by_itself_though_no_task_runs(
    control_plane: ControlPlane, namespace: str
) -> None:
    one = await watched(namespace, control_plane.kubeconfig, "one", times=(2, 1.2, 0.2))
    task = asyncio.create_task(one.run(), name="one")
    await until(lambda: one.acts)
    time.sleep(1.3)  # noqa: ASYNC251 - the whole loop stands still, as after SIGSTOP.
    assert not one.acts
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_halves_lead_beside_each_other_and_never_beside_both_in_one(
    control_plane: ControlPlane, namespace: str
) -> None:
    def drivers() -> Iterable[str]:
        return ("d.test",)

    where = control_plane.kubeconfig
    cluster = await watched(namespace, where, "cluster", scope=Scope.CLUSTER)
    driver = await watched(namespace, where, "driver", drivers, Scope.DRIVERS)
    both = await watched(namespace, where, "both", drivers)
    tasks = {one: asyncio.create_task(one.run()) for one in (cluster, driver)}
    try:
        await until(lambda: cluster.acts and driver.acts)
        assert not cluster.election.why_not("d.test")
        assert not driver.election.why_not("d.test")
        assert "its lease" in driver.election.why_not("another.test")
        async with driver.election.acting("d.test"), cluster.election.acting("d.test"):
            pass
        tasks[both] = asyncio.create_task(both.run())
        await stop(tasks, cluster)
        await until(lambda: both.acts)
        await until(lambda: "leader is driver_" in both.election.why_not("d.test"))
        await asyncio.sleep(0.5)
        assert driver.acts
        assert cluster.wins == driver.wins == [False]
        assert not driver.election.late()
        await stop(tasks, driver)
        await until(lambda: not both.election.why_not("d.test"))
    finally:
        for one in tuple(tasks):
            await stop(tasks, one)


async def stop(tasks: dict[Watched, asyncio.Task[None]], one: Watched) -> None:
    task = tasks.pop(one)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
