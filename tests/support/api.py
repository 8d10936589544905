"""The real API over the in-memory desk, served on a free loopback port by a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from bridge.api.application import make_app
from bridge.api.server import serve
from bridge.api.settings import ApiSettings
from bridge.model.failure import BridgeError
from bridge.ports.health import Check
from bridge.ports.identity import Authenticator
from tests.support.desk import MemoryDesk

T = TypeVar("T")
START_SECONDS = 60.0


@dataclasses.dataclass(slots=True)
class Pulse:
    """A Health that says what it is told to."""

    dead: str = ""
    found: tuple[Check, ...] = (Check("ledger"), Check("plugin rbd", "it does not answer", fatal=False))

    def alive(self) -> str:
        return self.dead

    def checks(self) -> Sequence[Check]:
        return self.found


@dataclasses.dataclass(slots=True)
class Counted:
    """Measures that remember what was counted."""

    content_type: str = "text/plain; version=0.0.4; charset=utf-8"
    requests: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)

    def look(self) -> None:
        pass

    def exposition(self) -> bytes:
        return b"snapbridge_up 1\n"

    def request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        self.requests.append((method, route, status))


@dataclasses.dataclass(slots=True)
class Running:
    """A server that answers."""

    addresses: tuple[str, ...]
    desk: MemoryDesk
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        """The first address."""
        return self.addresses[0]

    def call(self, work: Callable[[], T]) -> T:
        """Run it on the server's own loop."""

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(30)


@contextlib.contextmanager
def running(
    desk: MemoryDesk | None = None,
    *,
    settings: ApiSettings | None = None,
    authenticators: Sequence[Authenticator] = (),
) -> Iterator[Running]:
    """Serve until the block ends; then stop as the service does."""
    desk = desk or MemoryDesk()
    chosen = settings or ApiSettings(port=0, shutdown_seconds=1.0)
    ready = threading.Event()
    found: dict[str, object] = {}

    async def main() -> None:
        app = make_app(desk, health=Pulse(), measures=Counted(), settings=chosen, authenticators=authenticators)

        def started(addresses: Sequence[str]) -> None:
            found["addresses"] = tuple(addresses)
            ready.set()

        found["loop"] = asyncio.get_running_loop()
        task = found["task"] = asyncio.create_task(serve(app, chosen, started=started), name="api")
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def run() -> None:
        try:
            asyncio.run(main())
        except (BridgeError, OSError) as error:
            found["error"] = error
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="api under test", daemon=True)
    thread.start()
    assert ready.wait(START_SECONDS), "the API did not start"
    if "error" in found:
        raise found["error"]  # type: ignore[misc]
    loop, task = found["loop"], found["task"]
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(task, asyncio.Task)
    try:
        yield Running(found["addresses"], desk, loop)  # type: ignore[arg-type]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(START_SECONDS)
        assert not thread.is_alive(), "the API did not stop"
