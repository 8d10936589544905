"""The lock on a variable as leadership: one leads, it knows for how long, and it never resets the lock's times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from adapters.nomad.client import Client
from adapters.nomad.leadership import ACT_FRACTION, VariableLock, monotonic
from adapters.nomad.settings import LeadershipSettings
from bridge.model.failure import UnavailableError
from tests.integration.nomad.doubles import quick, running, until
from tests.support.nomad.agent import FakeNomad
from tests.support.nomad.settings import Settings as FakeSettings

LONG = 30.0
KEY = ("default", "snapbridge/leader")
TERMS = LeadershipSettings(ttl_seconds=10, delay_seconds=1)


class Watch:
    """A clock that a test may push on, as a process sees it that was stopped for a while."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return monotonic() + self.ahead


def replica(agent: FakeNomad, name: str, watch: Watch | None = None) -> VariableLock:
    terms = TERMS.model_copy(update={"address": f"http://{name}:7717"})
    return VariableLock(Client(quick(agent.url)), terms, name, (watch or Watch()).now)


@pytest.fixture
async def agent() -> AsyncIterator[FakeNomad]:
    """Locks end as early as Nomad's contract allows: after their TTL (in truth it is twice that)."""
    async with FakeNomad(settings=FakeSettings(lock_time_scale=0.5)) as fake:
        yield fake


@asynccontextmanager
async def taking_part(*replicas: VariableLock) -> AsyncIterator[list[asyncio.Task[None]]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(one.run())) for one in replicas]


async def test_one_leads_and_the_others_know_who(agent: FakeNomad) -> None:
    first, second = replica(agent, "one"), replica(agent, "two")
    assert "nobody is known to lead" in first.why_not()
    async with taking_part(first):
        await until(lambda: first.why_not() == "", "it leads", LONG)
        async with taking_part(second):
            await until(lambda: second.leader == "one", "the other sees it", LONG)
            assert second.why_not().endswith("one leads")
            assert second.leader_address == "http://one:7717"
            await asyncio.sleep(2.5)  # some renewals
            assert second.why_not() != ""
            assert first.why_not() == ""
    lock = agent.state.variables[KEY].lock
    assert lock is None, "given back at the stop"


async def test_a_leader_that_stops_is_followed_at_once(agent: FakeNomad) -> None:
    first, second = replica(agent, "one"), replica(agent, "two")
    async with taking_part(first) as (task,):
        await until(lambda: first.why_not() == "", "it leads", LONG)
        async with taking_part(second):
            await until(lambda: second.leader == "one", "the other sees it", LONG)
            task.cancel()
            await until(lambda: second.why_not() == "", "the lock was given back", LONG)
            assert first.why_not() != ""


async def test_a_leader_that_dies_is_followed_when_its_lock_ends(agent: FakeNomad) -> None:
    agent.settings = FakeSettings(lock_time_scale=0.2)  # nobody's own time is looked at here
    first, second = replica(agent, "one"), replica(agent, "two")
    async with taking_part(first) as (task,):
        await until(lambda: first.why_not() == "", "it leads", LONG)
        first._lock, dead = "", first._lock  # as kill -9 does: nothing is given back
        task.cancel()
        assert dead
        async with taking_part(second):
            await until(lambda: second.why_not() == "", "after TTL and delay", LONG)


async def test_renewals_leave_the_locks_times_alone(agent: FakeNomad) -> None:
    """A plain put with the lock's id would set them to 15 s."""
    first = replica(agent, "one")
    async with taking_part(first):
        await until(lambda: first.why_not() == "", "it leads", LONG)
        agent.calls.clear()
        await until(lambda: any("lock-renew" in call.query for call in agent.calls), "a renewal", LONG)
        lock = agent.state.variables[KEY].lock
        assert (lock.ttl_seconds, lock.delay_seconds) == (10.0, 1.0)
        writes = [call.query for call in agent.calls if call.method == "PUT"]
        assert all({"lock-renew", "lock-acquire", "lock-release"} & set(query) for query in writes)


async def test_the_answer_that_was_lost_is_found_again(agent: FakeNomad) -> None:
    """The lock was taken and the answer cut: the variable carries our name, so it is ours at once."""
    first = replica(agent, "one")
    agent.cut_next("PUT", "/v1/var/snapbridge/leader", after=True)
    async with taking_part(first):
        await until(lambda: first.why_not() == "", "it leads", LONG)
        acquired = [call for call in agent.calls if "lock-acquire" in call.query]
        assert len(acquired) == 1


async def test_our_own_time_ends_before_the_locks(agent: FakeNomad) -> None:
    """A process that was stopped wakes up and may not act, before any timer of its has fired."""
    watch = Watch()
    first = replica(agent, "one", watch)
    async with taking_part(first):
        await until(lambda: first.why_not() == "", "it leads", LONG)
        agent.delay("PUT", "/v1/var/*", 2.0)
        watch.ahead += 10 * ACT_FRACTION
        assert "not renewed in time" in first.why_not()
        agent.clear_faults()
        await until(lambda: first.why_not() == "", "a renewal that is granted gives it back", LONG)


async def test_what_is_not_answered_is_lost_when_our_time_is_over(agent: FakeNomad) -> None:
    watch = Watch()
    first = replica(agent, "one", watch)
    async with taking_part(first):
        await until(lambda: first.why_not() == "", "it leads", LONG)
        agent.fail_next("*", "/v1/var/*", status=500, text="No cluster leader", times=-1)
        over = asyncio.create_task(first.lost())
        await until(lambda: any(call.status == 500 for call in agent.calls), "a renewal that failed", LONG)
        await asyncio.sleep(0.2)
        assert first.why_not() == ""
        assert not over.done(), "an election of Nomad's own servers is outlived"
        watch.ahead += 10.0
        await until(over.done, "lost", LONG)
        agent.clear_faults()
        await until(lambda: first.why_not() == "", "its own lock is found again by its name, or taken anew", LONG)


async def test_a_lock_that_another_took_is_lost_at_once(agent: FakeNomad) -> None:
    first = replica(agent, "one")
    async with taking_part(first):
        await until(lambda: first.why_not() == "", "it leads", LONG)
        held = agent.state.variables[KEY]
        held.lock.id, held.items = "11111111-1111-1111-1111-111111111111", {"holder": "two"}
        await until(lambda: first.why_not().endswith("two leads"), "the renewal is refused", LONG)


async def test_a_nomad_without_locks_makes_no_leader() -> None:
    """Before 1.7 the call is a plain write that succeeds; two replicas would both lead."""
    async with FakeNomad(settings=FakeSettings(version="1.6.5")) as agent:
        first = replica(agent, "one")
        async with taking_part(first):
            await until(lambda: "since 1.7" in first.trouble, "it is said", LONG)
            assert first.why_not() != ""


async def test_a_token_that_may_not_write_is_said() -> None:
    async with FakeNomad(acl=True) as agent:
        first = replica(agent, "one")
        async with taking_part(first):
            await until(lambda: "Permission denied" in first.trouble, "it is said", LONG)
            assert "policy" in first.trouble


async def test_nothing_is_written_by_who_does_not_lead(agent: FakeNomad) -> None:
    reason = ["two leads"]
    client = Client(quick(agent.url), fence=lambda: reason[0])
    with pytest.raises(UnavailableError, match="was not sent: two leads"):
        await client.call("PUT", "/v1/var/x", body={"Items": {"a": "b"}})
    assert (await client.get("/v1/jobs")).data == []
    assert not [call for call in agent.calls if call.method == "PUT"]
    reason[0] = ""
    await client.call("PUT", "/v1/var/x", body={"Items": {"a": "b"}})
    await client.close()
