"""What a cluster holds, followed by watches: now, and every version that was ever seen. It writes nothing.

Tests wait for a condition on it (`until`) instead of asking the API server again and again, and look back at the
stages that an object went through. One thread of its own runs the watches, and whatever else a test wants to run
beside itself (`Backstage.run`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import aiohttp

from tests.support.bed import access

Object = dict[str, Any]
T = TypeVar("T")

SNAPSHOT_GROUP = "/apis/snapshot.storage.k8s.io/v1"
KINDS = {
    "volumesnapshots": SNAPSHOT_GROUP,
    "volumesnapshotcontents": SNAPSHOT_GROUP,
    "persistentvolumeclaims": "/api/v1",
    "events": "/api/v1",
}
_LONGEST_LINE_BYTES = 4 << 20
_DEADLINE_SECONDS = 30.0
_UNTIL_SECONDS = 60.0
"""Patient: a machine with other work is slow, and only what never comes waits for all of it."""
_TLS_GOODBYE_SECONDS = 0.25
"""A TLS connection ends a little after its session was closed."""


class Backstage:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="backstage", daemon=True)

    def run(self, work: Coroutine[Any, Any, T], seconds: float = _DEADLINE_SECONDS) -> T:
        """Run it there; its result or its error comes back here."""
        return self.start(work).result(seconds)

    def start(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Let it run there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def __enter__(self) -> Backstage:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_DEADLINE_SECONDS)
        self.loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(_TLS_GOODBYE_SECONDS)
        await self.loop.shutdown_asyncgens()


class Mirror:
    """The objects of `KINDS`, by kind, namespace and name. Safe to use from several threads."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._now: dict[tuple[str, str, str], Object] = {}
        self._past: dict[tuple[str, str, str], list[Object]] = {}
        self._broken = ""
        self._changes = 0

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """The object as last seen, or None when it is gone."""
        with self._moved:
            return self._now.get((kind, namespace, name))

    def all(self, kind: str) -> list[Object]:
        """Every object of a kind."""
        with self._moved:
            return [found for (one, _, _), found in self._now.items() if one == kind]

    def past(self, kind: str, name: str, namespace: str = "") -> list[Object]:
        """Every version seen, the oldest first; the last state of a deleted object is among them."""
        with self._moved:
            return list(self._past.get((kind, namespace, name), ()))

    def until(self, what: str, holds: Callable[[], T | None], seconds: float = _UNTIL_SECONDS) -> T:
        """Wait until it gives something true, and give that; an AssertionError says what did not come about."""
        deadline = time.monotonic() + seconds
        while True:
            with self._moved:
                assert not self._broken, self._broken
                looked_at = self._changes
            found = holds()  # without the lock: it may ask a server, and the watches must go on meanwhile
            if found:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"not within {seconds:.0f} s: {what}")
            with self._moved:
                if self._changes == looked_at:
                    self._moved.wait(min(left, 0.25))

    # -- the watching side

    async def follow(self, admin: access.Access, synced: Callable[[str], None]) -> None:
        """Watch until cancelled. `synced` is told each kind once it was read."""
        context = ssl.create_default_context(cafile=str(admin.certificate_authority))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
        headers = {"Authorization": f"Bearer {admin.token}"}
        connector = aiohttp.TCPConnector(ssl=context)
        async with (
            aiohttp.ClientSession(
                admin.url, connector=connector, headers=headers, timeout=timeout, read_bufsize=_LONGEST_LINE_BYTES
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            for kind in KINDS:
                group.create_task(self._follow(session, kind, synced), name=f"mirror {kind}")

    async def _follow(self, session: aiohttp.ClientSession, kind: str, synced: Callable[[str], None]) -> None:
        try:
            while True:
                found = await self._read(session, kind)
                self._replace(kind, found["items"])
                synced(kind)
                params = {"watch": "1", "resourceVersion": found["metadata"]["resourceVersion"]}
                async with session.get(f"{KINDS[kind]}/{kind}", params=params) as answer:
                    answer.raise_for_status()
                    async for line in answer.content:
                        event = json.loads(line)
                        if event["type"] == "ERROR":  # the server begins anew, and so do we
                            break
                        self._take(kind, event["type"], event["object"])
        except (aiohttp.ClientError, KeyError, ValueError) as error:
            self._break(f"the watch of {kind} has failed: {error!r}")

    async def _read(self, session: aiohttp.ClientSession, kind: str) -> Object:
        """A kind that was defined a moment ago is not served at once."""
        for _ in range(300):
            async with session.get(f"{KINDS[kind]}/{kind}") as answer:
                if answer.status == 200:
                    found: Object = await answer.json()
                    return found
            await asyncio.sleep(0.1)
        raise ValueError(f"{kind} is not served: {answer.status}")

    def _replace(self, kind: str, found: list[Object]) -> None:
        """A list, at the start and after a server has closed a watch that it found too slow."""
        with self._moved:
            known = {_place(one) for one in found}
            for one in [one for one in self.all(kind) if _place(one) not in known]:
                self._take(kind, "DELETED", one)
            for one in found:
                before = self._now.get((kind, *_place(one)))
                if before is None or before["metadata"]["resourceVersion"] != one["metadata"]["resourceVersion"]:
                    self._take(kind, "MODIFIED", one)

    def _take(self, kind: str, change: str, found: Object) -> None:
        place = (kind, *_place(found))
        with self._moved:
            self._past.setdefault(place, []).append(found)
            if change == "DELETED":
                self._now.pop(place, None)
            else:
                self._now[place] = found
            self._changes += 1
            self._moved.notify_all()

    def _break(self, why: str) -> None:
        with self._moved:
            self._broken = why
            self._moved.notify_all()


def _place(found: Object) -> tuple[str, str]:
    return found["metadata"].get("namespace", ""), found["metadata"]["name"]


@contextlib.contextmanager
def following(backstage: Backstage, admin: access.Access) -> Iterator[Mirror]:
    """A mirror that has read everything and goes on watching."""
    mirror, left, read = Mirror(), set(KINDS), threading.Event()

    def synced(kind: str) -> None:
        left.discard(kind)
        if not left:
            read.set()

    task = backstage.start(mirror.follow(admin, synced))
    try:
        assert read.wait(_DEADLINE_SECONDS), f"not read: {sorted(left)}"
        yield mirror
    finally:
        task.cancel()
        concurrent.futures.wait([task], _DEADLINE_SECONDS)
