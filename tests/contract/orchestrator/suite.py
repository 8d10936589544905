"""What every orchestrator's adapter must show, whichever it is.

To join: subclass `OrchestratorContract` in a module of your own, name the subclass `Test…`, and give it a fixture
`place` that yields a `Place`. Nothing here knows an orchestrator; what differs is in the place and in `Traits`.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from bridge.model.failure import ConflictError, InvalidError, NotFoundError
from bridge.model.keys import SNAPSHOT, Key, group_key, snapshot_key
from bridge.model.plugin import NO_RULES, CallRules, Capability
from bridge.model.snapshot import SnapshotStatus
from bridge.model.volume import Volume
from bridge.ports.orchestrator import Orchestrator, SnapshotDraft
from bridge.ports.plugin import PluginCalls

SETTLE_SECONDS = 20.0


class Place(abc.ABC):
    """One cluster to try an adapter on. It has at least one CSI volume, in use by nobody."""

    orchestrator: Orchestrator

    @property
    @abc.abstractmethod
    def known(self) -> Volume:
        """A volume that is known there."""

    @property
    def used(self) -> Volume | None:
        """A volume that somebody uses; None when this place cannot have one."""
        return None

    @abc.abstractmethod
    async def make(self, name: str) -> Volume:
        """A description, ready to be registered under this name, of a fresh volume that exists on the backend.

        Another call with the same name describes another volume of another handle.
        """

    @abc.abstractmethod
    def again(self) -> contextlib.AbstractAsyncContextManager[Orchestrator]:
        """A second adapter on the same cluster, as after a restart of the service. It is run by the suite."""

    def name(self, word: str) -> str:
        """A name that is valid there, made from a word of lower-case letters."""
        return word


class Heard:
    """A wake, an intake and a plugin sink that keep what they were told."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.drafts: list[SnapshotDraft] = []
        self.sockets: dict[str, tuple[str, str, str]] = {}
        self.rules: dict[str, CallRules] = {}
        self.calls: dict[str, PluginCalls] = {}
        self._changed = asyncio.Event()

    async def until_sockets(self, wanted: Mapping[str, tuple[str, str, str]]) -> None:
        """Return when all of these are announced."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while not wanted.items() <= self.sockets.items():
                self._changed.clear()
                await self._changed.wait()

    def wake(self, key: Key) -> None:
        self.keys.append(key)

    async def ask(self, draft: SnapshotDraft) -> Key:
        self.drafts.append(draft)
        return snapshot_key(draft.cluster, draft.uid or f"asked-{len(self.drafts)}")

    async def ask_group(
        self, drafts: Sequence[SnapshotDraft], *, name: str, uid: str, max_skew_seconds: float | None = None
    ) -> Key:
        self.drafts.extend(drafts)
        return group_key(drafts[0].cluster, uid)

    async def status(self, key: Key) -> SnapshotStatus | None:
        return None

    async def ensure_rules(self, driver: str, rules: CallRules) -> None:
        self.rules[driver] = rules

    async def ensure_expected(self, name: str, driver: str, sentence: str) -> None:
        """Nobody asks this one for a view."""

    async def ensure_socket(
        self, instance: str, path: str, *, backend: str = "", node: str = "", rules: CallRules = NO_RULES
    ) -> None:
        self.sockets[instance] = (path, backend, node)
        self._changed.set()

    async def ensure_calls(
        self,
        calls: PluginCalls,
        capabilities: frozenset[Capability],
        *,
        endpoint: str,
        sentence: str = "",
        concurrency: int = 1,
    ) -> None:
        self.calls[str(calls.id)] = calls

    async def ensure_no_instance(self, instance: str) -> None:
        self.sockets.pop(instance, None)
        self.calls.pop(instance, None)


@contextlib.asynccontextmanager
async def running(orchestrator: Orchestrator) -> AsyncIterator[Heard]:
    """The adapter at work until the end of the block, its view complete. It must not end by itself."""
    heard = Heard()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(orchestrator.run(heard.wake, heard, heard), name="orchestrator")
        try:
            await settled(orchestrator, task)
            yield heard
            assert not task.done(), "run must go on until it is cancelled"
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=SETTLE_SECONDS)
            assert task.done(), "run must end when it is cancelled"


async def settled(orchestrator: Orchestrator, task: asyncio.Task[None]) -> None:
    """Wait until its view is complete."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while sentence := orchestrator.ready():
            assert not task.done(), f"run ended while: {sentence}"
            await asyncio.sleep(0.02)


class OrchestratorContract:
    """The behaviours. Each test runs on a place of its own."""

    async def test_it_says_who_it_is(self, place: Place) -> None:
        assert place.orchestrator.cluster
        assert "/" not in place.orchestrator.cluster
        assert place.orchestrator.kind

    async def test_durable_requests_come_with_their_keeper_or_not_at_all(self, place: Place) -> None:
        durable = place.orchestrator.traits.durable_requests
        assert (place.orchestrator.requests is not None) is durable
        assert durable or place.orchestrator.ledger is None

    async def test_every_listed_volume_can_be_found(self, place: Place) -> None:
        async with running(place.orchestrator):
            listed = await place.orchestrator.volumes.list()
            assert place.known in listed
            for volume in listed:
                assert volume.cluster == place.orchestrator.cluster
                assert volume.handle
                assert volume.driver
                assert await place.orchestrator.volumes.find(volume.namespace, volume.name) == volume
            names = [(volume.namespace, volume.name) for volume in listed]
            assert len(names) == len(set(names))

    async def test_a_list_can_be_of_one_namespace(self, place: Place) -> None:
        async with running(place.orchestrator):
            everything = await place.orchestrator.volumes.list()
            here = await place.orchestrator.volumes.list(place.known.namespace)
            assert sorted(here, key=str) == sorted(
                (v for v in everything if v.namespace == place.known.namespace), key=str
            )
            assert list(await place.orchestrator.volumes.list("no-such-namespace")) == []

    async def test_a_missing_volume_is_not_found_by_name(self, place: Place) -> None:
        async with running(place.orchestrator):
            for namespace, name in (
                (place.known.namespace, "no-such-volume"),
                ("no-such-namespace", place.known.name),
            ):
                with pytest.raises(NotFoundError, match=name):
                    await place.orchestrator.volumes.find(namespace, name)

    @pytest.mark.parametrize("name", ["n" * 1000, "../../etc", "a b?c#d&e=f", "数据", "", "a\x00b", "*", "%2e%2e"])
    async def test_a_strange_name_is_not_found_or_not_valid(self, place: Place, name: str) -> None:
        async with running(place.orchestrator):
            with pytest.raises((NotFoundError, InvalidError)):
                await place.orchestrator.volumes.find(place.known.namespace, name)
            assert await place.orchestrator.volumes.find(place.known.namespace, place.known.name) == place.known

    async def test_a_registered_volume_is_found_and_listed_once(self, place: Place) -> None:
        volumes = place.orchestrator.volumes
        async with running(place.orchestrator):
            fresh = await place.make(place.name("restored"))
            for _ in range(3):
                await volumes.register(fresh, place.known)
            found = await volumes.find(fresh.namespace, fresh.name)
            assert (found.driver, found.handle, found.mode) == (fresh.driver, fresh.handle, fresh.mode)
            assert found.cluster == place.orchestrator.cluster
            assert [v.handle for v in await volumes.list(fresh.namespace) if v.name == fresh.name] == [fresh.handle]
            assert await volumes.find(place.known.namespace, place.known.name) == place.known

    async def test_a_volume_can_be_registered_without_a_source_description(self, place: Place) -> None:
        async with running(place.orchestrator):
            fresh = await place.make(place.name("alone"))
            await place.orchestrator.volumes.register(fresh, None)
            assert (await place.orchestrator.volumes.find(fresh.namespace, fresh.name)).handle == fresh.handle

    async def test_a_name_of_another_handle_is_a_conflict_and_stays(self, place: Place) -> None:
        volumes = place.orchestrator.volumes
        async with running(place.orchestrator):
            first = await place.make(place.name("taken"))
            await volumes.register(first, place.known)
            second = await place.make(place.name("taken"))
            assert second.handle != first.handle
            with pytest.raises(ConflictError):
                await volumes.register(second, place.known)
            assert (await volumes.find(first.namespace, first.name)).handle == first.handle
            onto_known = dataclasses.replace(second, namespace=place.known.namespace, name=place.known.name)
            with pytest.raises(ConflictError):
                await volumes.register(onto_known, place.known)
            assert await volumes.find(place.known.namespace, place.known.name) == place.known

    async def test_a_forgotten_volume_is_gone_and_its_name_free(self, place: Place) -> None:
        volumes = place.orchestrator.volumes
        async with running(place.orchestrator):
            first = await place.make(place.name("fleeting"))
            await volumes.register(first, place.known)
            forgotten = await volumes.forget(first.namespace, first.name)
            assert forgotten is not None
            assert (forgotten.driver, forgotten.handle) == (first.driver, first.handle)
            with pytest.raises(NotFoundError):
                await volumes.find(first.namespace, first.name)
            assert await volumes.forget(first.namespace, first.name) is None
            second = await place.make(place.name("fleeting"))
            await volumes.register(second, place.known)
            assert (await volumes.find(second.namespace, second.name)).handle == second.handle

    async def test_forgetting_an_unknown_volume_is_nothing(self, place: Place) -> None:
        async with running(place.orchestrator):
            assert await place.orchestrator.volumes.forget(place.known.namespace, "no-such-volume") is None

    async def test_a_volume_in_use_is_not_forgotten(self, place: Place) -> None:
        if place.used is None:
            return
        async with running(place.orchestrator):
            with pytest.raises(ConflictError):
                await place.orchestrator.volumes.forget(place.used.namespace, place.used.name)
            found = await place.orchestrator.volumes.find(place.used.namespace, place.used.name)
            assert found.handle == place.used.handle
            assert found.users

    async def test_what_was_registered_is_known_after_a_restart(self, place: Place) -> None:
        async with running(place.orchestrator):
            fresh = await place.make(place.name("lasting"))
            await place.orchestrator.volumes.register(fresh, place.known)
        async with place.again() as second, running(second):
            assert (await second.volumes.find(fresh.namespace, fresh.name)).handle == fresh.handle
            await second.volumes.register(fresh, place.known)
            assert await second.volumes.find(place.known.namespace, place.known.name) == place.known

    async def test_it_can_be_run_again_after_a_cancel(self, place: Place) -> None:
        async with running(place.orchestrator) as first:
            before = dict(first.sockets)
        async with running(place.orchestrator) as second:
            assert await place.orchestrator.volumes.find(place.known.namespace, place.known.name) == place.known
            await second.until_sockets(before)

    async def test_it_wakes_only_its_own_keys(self, place: Place) -> None:
        async with running(place.orchestrator) as heard:
            await asyncio.sleep(0.1)
        assert all((key.cluster, key.kind) == (place.orchestrator.cluster, SNAPSHOT) for key in heard.keys)
        assert all(draft.cluster == place.orchestrator.cluster for draft in heard.drafts)

    async def test_nobody_uses_an_unknown_snapshot(self, place: Place) -> None:
        async with running(place.orchestrator):
            unknown = snapshot_key(place.orchestrator.cluster, "no-such-snapshot")
            assert await place.orchestrator.in_use(unknown, "no-such-handle") == ""

    async def test_an_unknown_request_is_not_there(self, place: Place) -> None:
        requests = place.orchestrator.requests
        if requests is None:
            return
        async with running(place.orchestrator):
            assert await requests.observe(snapshot_key(place.orchestrator.cluster, "no-such-snapshot")) is None
            assert all([key.cluster == place.orchestrator.cluster async for key in requests.keys()])  # noqa: SIM118
