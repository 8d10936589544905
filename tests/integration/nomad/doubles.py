"""Fakes at the bridge's ports, with state: where the adapter's hooks, plugins and secrets end in these tests."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from adapters.nomad.settings import Settings
from bridge.model.failure import BridgeError, NotFoundError
from bridge.model.keys import Key, group_key, snapshot_key
from bridge.model.plugin import NO_RULES, CallRules, Capability
from bridge.model.secret import SecretRef
from bridge.model.snapshot import SnapshotState, SnapshotStatus
from bridge.ports.orchestrator import SnapshotDraft
from bridge.ports.plugin import PluginCalls

QUICK = {
    "resync_seconds": 1.0,
    "plugin_seconds": 0.1,
    "backoff_first_seconds": 0.05,
    "backoff_most_seconds": 0.5,
    # Only what has no effect on the outcome may be short: a machine may stand still for some seconds.
    "stream_first_seconds": 20.0,
    "request_timeout_seconds": 30.0,
}


def quick(url: str, **more: object) -> Settings:
    """Settings with the short times of tests."""
    return Settings.model_validate({"address": url, **QUICK, **more})


class MemoryIntake:
    """Books drafts as the service does: a uid that was ever seen is never booked twice."""

    def __init__(self) -> None:
        self.booked: dict[str, SnapshotDraft] = {}
        self.asks: list[SnapshotDraft] = []
        self.groups: dict[str, tuple[str, tuple[str, ...], float | None]] = {}
        """Group's uid -> its name, its members' uids, its largest skew."""
        self.refuse: dict[str, BridgeError] = {}
        """Volume id -> what to answer instead."""
        self.states: dict[str, SnapshotStatus] = {}
        """Volume id -> how its snapshots stand; else they are ready."""
        self.on_ask: Callable[[SnapshotDraft], None] = lambda draft: None

    async def ask(self, draft: SnapshotDraft) -> Key:
        self.asks.append(draft)
        self.on_ask(draft)
        if draft.volume in self.refuse:
            raise self.refuse[draft.volume]
        self.booked.setdefault(draft.uid, draft)
        return snapshot_key(draft.cluster, draft.uid)

    async def ask_group(
        self, drafts: Sequence[SnapshotDraft], *, name: str, uid: str, max_skew_seconds: float | None = None
    ) -> Key:
        for draft in drafts:
            await self.ask(draft)
        self.groups.setdefault(uid, (name, tuple(draft.uid for draft in drafts), max_skew_seconds))
        return group_key(drafts[0].cluster, uid)

    async def status(self, key: Key) -> SnapshotStatus | None:
        draft = self.booked.get(key.uid)
        if draft is None:
            return None
        return self.states.get(draft.volume, SnapshotStatus(SnapshotState.READY, ready=True))

    def volumes(self) -> list[str]:
        return sorted(draft.volume for draft in self.booked.values())


@dataclasses.dataclass(slots=True)
class Announced:
    """One instance as it was announced last."""

    path: str = ""
    node: str = ""
    backend: str = ""
    calls: PluginCalls | None = None
    capabilities: frozenset[Capability] = frozenset()
    sentence: str = ""


class MemorySink:
    """A registry that only remembers, and notes every announcement in order."""

    def __init__(self) -> None:
        self.there: dict[str, Announced] = {}
        self.log: list[tuple[str, str]] = []
        self.rules: dict[str, CallRules] = {}
        self.expected: dict[str, str] = {}
        """Driver -> what is waited for, empty once it is not."""

    async def ensure_rules(self, driver: str, rules: CallRules) -> None:
        self.rules[driver] = rules

    async def ensure_expected(self, name: str, driver: str, sentence: str) -> None:
        self.expected[driver] = sentence

    async def ensure_socket(
        self, instance: str, path: str, *, backend: str = "", node: str = "", rules: CallRules = NO_RULES
    ) -> None:
        if instance not in self.there:
            self.log.append(("socket", instance))
        self.there[instance] = Announced(path=path, node=node, backend=backend)

    async def ensure_calls(
        self,
        calls: PluginCalls,
        capabilities: frozenset[Capability],
        *,
        endpoint: str,
        sentence: str = "",
        concurrency: int = 1,
    ) -> None:
        self.log.append(("calls", calls.id.instance))
        self.there[calls.id.instance] = Announced(calls=calls, capabilities=capabilities, sentence=sentence)

    async def ensure_no_instance(self, instance: str) -> None:
        self.log.append(("gone", instance))
        self.there.pop(instance, None)

    def sockets(self) -> list[str]:
        return sorted(one.path for one in self.there.values() if one.path)

    def api(self) -> list[PluginCalls]:
        return [one.calls for one in self.there.values() if one.calls is not None]


class MemorySecrets:
    """Secrets by reference text."""

    def __init__(self, values: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.values = dict(values or {})

    async def resolve(self, ref: SecretRef) -> Mapping[str, str]:
        if not ref:
            return {}
        if str(ref) not in self.values:
            raise NotFoundError(f"no secret {ref}")
        return self.values[str(ref)]


async def until(test: Callable[[], bool], what: str, timeout_seconds: float = 30.0) -> None:
    """Wait until it is so; the failure says what was waited for."""
    try:
        async with asyncio.timeout(timeout_seconds):
            while not test():  # noqa: ASYNC110 - what is looked at rings no bell
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not so after {timeout_seconds} s: {what}") from None


@asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run something beside the test, and stop it in the end. What it raised comes up."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
