"""One of several replicas of the service: it stands by, leads, and stands by again. One of them has the ledger open.

The ledger's own lock is a second wall: who leads opens it only when the one before has closed it, so a leader that
was stopped and wakes up has either ended its writing or still keeps everybody else out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from bridge.api.server import serve
from bridge.api.standby import make_standby_app
from bridge.app import config, metrics, wiring
from bridge.ledger.store import SqlLedger
from bridge.model.failure import InvalidError, LockedError, UnavailableError
from bridge.ports.adapter import Catalogue
from bridge.ports.health import Check
from bridge.ports.leadership import Leadership, Marks
from bridge.service import supervise

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 0.3


def election(settings: config.Config, catalogue: Catalogue) -> Leadership | None:
    """The election that the config names. InvalidError when it names two."""
    found = [(one.name, catalogue.leadership(one.kind, one.settings)) for one in settings.clusters]
    named = [(name, one) for name, one in found if one is not None]
    if len(named) > 1:
        raise InvalidError(
            f"the clusters {named[0][0]!r} and {named[1][0]!r} both hold an election; one service has one leader",
            field="clusters",
            hint="keep `leadership` in one of them",
        )
    return named[0][1] if named else None


async def serve_alone_or_in_turn(settings: config.Config, catalogue: Catalogue, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; where the config holds an election, only while we lead."""
    leadership = election(settings, catalogue)
    if leadership is None:
        await wiring.run(settings, catalogue, stop)
        return
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(supervise.guard("leadership", leadership.run), name="leadership")
        try:
            while not stop.is_set():
                await _round(settings, catalogue, leadership, stop)
        finally:
            keeper.cancel()


async def _round(settings: config.Config, catalogue: Catalogue, leadership: Leadership, stop: asyncio.Event) -> None:
    """Stand by until we lead and the ledger is ours; serve until that ends."""
    standby = Standby(settings, leadership)
    async with contextlib.AsyncExitStack() as stack:
        async with standby.answering():
            made = await _enter(settings, catalogue, standby, stop, stack)
        if made is None:
            return
        log.info("leading", extra={"action": "lead"})
        over = asyncio.Event()

        async def watch() -> None:
            await _first_of(stop.wait(), leadership.lost())
            over.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(watch(), name="leadership-watch")
            await supervise.run_until(over, made.tasks(), first=made.stop)
    log.info("no longer leading", extra={"action": "stand-by"})


async def _enter(
    settings: config.Config,
    catalogue: Catalogue,
    standby: Standby,
    stop: asyncio.Event,
    stack: contextlib.AsyncExitStack,
) -> wiring.Service | None:
    """The assembled service, once we lead and nobody else has the ledger open; None when we are to stop."""
    leadership = standby.leadership
    while True:
        await _first_of(stop.wait(), leadership.gained())
        if stop.is_set():
            return None
        try:
            made = await stack.enter_async_context(wiring.assembled(settings, catalogue, leadership.why_not))
            await know_ledger(made.ledger, settings, leadership)
        except LockedError as error:
            standby.waiting = f"this replica leads and waits for the ledger: {error}"
        except UnavailableError as error:
            standby.waiting = f"this replica leads and cannot begin: {error}"
        else:
            return made
        await stack.aclose()
        await asyncio.sleep(_AGAIN_SECONDS)


async def know_ledger(ledger: SqlLedger, settings: config.Config, leadership: Marks) -> None:
    """InvalidError unless this is the ledger that the last leader had: with another one, every snapshot would seem
    to be nobody's. Then its mark is left for the next leader, before anything is done."""
    last = await leadership.last_mark()
    if last and not await ledger.has_mark(last):
        raise InvalidError(
            f"the ledger {settings.service.ledger_url} is not the one that the last leader had, or is an older copy",
            field="service.data_dir",
            hint="Give every replica the same data_dir, on storage that all of them mount. If the ledger was put "
            f"back on purpose, remove {leadership.mark_place}.",
        )
    await leadership.leave_mark(await ledger.mark())


async def _first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Return when the first of them does; the others are given up."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Standby:
    """The door of a replica that does not lead, and its health."""

    def __init__(self, settings: config.Config, leadership: Leadership) -> None:
        self._settings = settings
        self.leadership = leadership
        self.waiting = ""
        """Why we do not serve although we lead."""

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer while the block runs."""
        settings = self._settings.api.settings(authenticated_otherwise=True)
        app = make_standby_app(health=self, measures=metrics.Metrics(), settings=settings, leader=self._leader)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(serve(app, settings), name="standby-api")
            try:
                yield
            finally:
                task.cancel()

    def _leader(self) -> tuple[str, str]:
        return self.waiting or self.leadership.why_not(), self.leadership.leader_address

    def alive(self) -> str:
        """See the port."""
        return ""

    def checks(self) -> Sequence[Check]:
        """Not ready to serve requests; with a hopeless reason first."""
        trouble = self.leadership.trouble
        sentence = self.waiting or self.leadership.why_not() or "taking over"
        return [*([Check("election", trouble)] if trouble else []), Check("leadership", sentence)]
