"""The ledger and the book in one store. Each verb is one closure in one transaction; the verbs hold no state."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import sqlalchemy as sa

from bridge.ledger import codec, entries, journal, keeping, marks, records
from bridge.ledger.groups import SqlGroups
from bridge.ledger.revision import Revisions
from bridge.ledger.writer import Writer
from bridge.model.failure import InvalidError
from bridge.model.keys import Key
from bridge.model.operation import Operation
from bridge.model.pin import Pin
from bridge.model.snapshot import Record
from bridge.model.volume import Origin, Volume
from bridge.ports.clock import Clock
from bridge.ports.ledger import Book, Entry, EntryFilter, Ledger, Page

T = TypeVar("T")
_KEYS_PER_PAGE = 1000


class Runs(Protocol):
    """Where a read runs: a thread of its own, or the writer's for a store in memory."""

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work(connection)` in one transaction and return what it returns."""
        ...


class SqlLedger:
    """Both ports, `Ledger` and `Book`, on one SQL database. Made by `opening.open_ledger` only.

    Errors: ConflictError and InvalidError as the ports say; UnavailableError when the store fails (disk full,
    read-only, closed), and then nothing of that write was kept.
    """

    def __init__(
        self, writer: Writer, reader: Runs, revisions: Revisions, clock: Clock, warnings: tuple[str, ...]
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._revisions = revisions
        self._clock = clock
        self._warnings = warnings
        self.groups = SqlGroups(writer, reader, revisions, clock)
        """The port `GroupBook`, on the same database."""

    def warnings(self) -> tuple[str, ...]:
        """Sentences about this store that its owner should know (an old SQLite)."""
        return self._warnings

    async def mark(self) -> str:
        """What tells this opening from every other, of this and of every other ledger."""
        return await self._reader.run(marks.newest)

    async def has_mark(self, mark: str) -> bool:
        """Whether this is the ledger that had this mark, or a later copy of it."""
        return await self._reader.run(functools.partial(marks.is_there, mark=mark))

    @property
    def commits(self) -> int:
        """Transactions since the opening; fewer than writes when they were gathered."""
        return self._writer.commits

    async def load(self, key: Key) -> Record | None:
        """See ports.ledger.Ledger."""
        return await self._reader.run(functools.partial(records.load, key=key))

    async def save(self, key: Key, record: Record) -> Record:
        """See ports.ledger.Ledger."""
        return await self._writer.run(lambda c: records.save(c, self._revisions, key, record))

    async def condemn(self, key: Key, record: Record) -> Record:
        """See ports.ledger.Ledger. A record that is condemned already is returned as it stands."""
        return await self._writer.run(lambda c: records.condemn(c, self._revisions, key, record))

    async def erase(self, key: Key, record: Record, *, orphan: str = "") -> None:
        """See ports.ledger.Ledger."""
        now = self._clock.now()
        await self._writer.run(lambda c: records.erase(c, key, record, orphan=orphan, now=now))

    async def keys(self) -> AsyncIterator[Key]:
        """Every record's key, and every booked request's that is not released. Not one moment's view: a walk."""
        after = ""
        while True:
            page = await self._reader.run(
                functools.partial(records.unfinished_keys, after=after, limit=_KEYS_PER_PAGE)
            )
            for key in page:
                yield Key.parse(key)
            if len(page) < _KEYS_PER_PAGE:
                return
            after = page[-1]

    async def add(self, entry: Entry) -> Entry:
        """See ports.ledger.Book."""
        return await self._writer.run(lambda c: entries.add(c, self._revisions, entry))

    async def entry(self, key: Key) -> Entry | None:
        """See ports.ledger.Book."""
        return await self._reader.run(functools.partial(entries.entry, key=key))

    async def find(self, cluster: str, namespace: str, name: str) -> Entry | None:
        """See ports.ledger.Book. Where no live one has the name, the newest retained one is returned."""
        return await self._reader.run(lambda c: entries.find(c, cluster, namespace, name))

    async def change(self, entry: Entry) -> Entry:
        """See ports.ledger.Book."""
        return await self._writer.run(lambda c: entries.change(c, self._revisions, entry))

    async def list(self, which: EntryFilter, *, limit: int = 100, token: str = "") -> Page:
        """See ports.ledger.Book. InvalidError for a token that is not ours, a state that is none, a limit below 1."""
        return await self._reader.run(lambda c: entries.list_page(c, which, limit=limit, token=token))

    async def holders(self, driver: str, handle: str, *, adopted_only: bool = False) -> Sequence[Entry]:
        """See ports.ledger.Book."""
        return await self._reader.run(lambda c: entries.holders(c, driver, handle, adopted_only=adopted_only))

    async def recorded(self, driver: str, handles: Sequence[str]) -> frozenset[str]:
        """See ports.ledger.Book."""
        return await self._reader.run(lambda c: keeping.recorded(c, driver, handles))

    async def open_sources(self, driver: str) -> frozenset[str]:
        """See ports.ledger.Book."""
        return await self._reader.run(lambda c: keeping.open_sources(c, driver))

    async def pin(self, pin: Pin) -> Pin:
        """See ports.ledger.Book."""
        return await self._writer.run(lambda c: keeping.pin(c, pin))

    async def unpin(self, key: Key, owner: str = "") -> bool:
        """See ports.ledger.Book."""
        return await self._writer.run(lambda c: keeping.unpin(c, key, owner))

    async def pins(self, keys: Sequence[Key]) -> Sequence[Pin]:
        """See ports.ledger.Book."""
        return await self._reader.run(lambda c: keeping.pins(c, keys))

    async def put_origin(self, origin: Origin) -> None:
        """See ports.ledger.Book."""
        await self._writer.run(lambda c: keeping.put_origin(c, origin))

    async def made_from(self, driver: str, handle: str) -> Sequence[Origin]:
        """See ports.ledger.Book."""
        return await self._reader.run(lambda c: keeping.made_from(c, driver, handle))

    async def origins(self, cluster: str) -> Sequence[Origin]:
        """See ports.ledger.Book."""
        return await self._reader.run(lambda c: keeping.origins_of(c, cluster))

    async def put_operation(self, operation: Operation) -> Operation:
        """See ports.ledger.Book."""
        return await self._writer.run(lambda c: journal.put_operation(c, self._revisions, operation))

    async def operation(self, operation_id: str) -> Operation | None:
        """See ports.ledger.Book."""
        return await self._reader.run(functools.partial(journal.operation, operation_id=operation_id))

    async def operations(self, *, running: bool = False, limit: int = 100) -> Sequence[Operation]:
        """See ports.ledger.Book."""
        if limit < 1:
            raise InvalidError(f"a list of {limit} operations cannot be", hint="Ask for 1 or more.", field="limit")
        return await self._reader.run(lambda c: journal.list_operations(c, running=running, limit=limit))

    async def claim(self, scope: str, idempotency_key: str, digest: str, result: str) -> str:
        """See ports.ledger.Book. A claim is remembered for seven days."""
        wanted, now = journal.Claim(scope, idempotency_key, digest, result), self._clock.now()
        return await self._writer.run(lambda c: journal.claim(c, wanted, now))

    async def unclaim(self, scope: str, idempotency_key: str, result: str) -> None:
        """See ports.ledger.Book."""
        await self._writer.run(lambda c: journal.unclaim(c, scope, idempotency_key, result))

    async def put_volume(self, volume: Volume) -> None:
        """See ports.ledger.Book."""
        await self._writer.run(lambda c: journal.put_volume(c, volume))

    async def drop_volume(self, cluster: str, namespace: str, name: str) -> None:
        """See ports.ledger.Book."""
        await self._writer.run(lambda c: journal.drop_volume(c, cluster, namespace, name))

    async def volumes(self, cluster: str) -> Sequence[Volume]:
        """See ports.ledger.Book."""
        return await self._reader.run(functools.partial(journal.list_volumes, cluster=cluster))

    async def audit(self, key: str, verb: str, who: str, detail: Mapping[str, str]) -> None:
        """See ports.ledger.Book."""
        row = journal.AuditRow(self._clock.now(), codec.text(key, "audit.key"), verb, who, detail)
        await self._writer.run(lambda c: journal.audit(c, row))

    async def trail(self, *, key: str = "", limit: int = 100) -> Sequence[journal.AuditRow]:
        """The audit, newest first; of one key, or of all."""
        return await self._reader.run(lambda c: journal.trail(c, key=key, limit=limit))


if TYPE_CHECKING:

    def _has_both_ports(ledger: SqlLedger) -> tuple[Ledger, Book]:
        return ledger, ledger
