"""Opens a ledger: lock, file, schema, threads; and closes it again. The only way in for the other rings."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from bridge.ledger import journal, migrate, sqlite
from bridge.ledger.lock import FileLock
from bridge.ledger.reader import Reader
from bridge.ledger.revision import Revisions
from bridge.ledger.schema import epochs
from bridge.ledger.store import SqlLedger
from bridge.ledger.writer import Writer
from bridge.model.failure import InvalidError
from bridge.ports.clock import Clock


@contextlib.asynccontextmanager
async def open_ledger(url: str, clock: Clock) -> AsyncIterator[SqlLedger]:
    """The ledger at `sqlite:///PATH` (a file, made if it is missing) or `sqlite://` (in memory, gone at the end).

    LockedError: another process has it. InvalidError: the URL, the place or the file is not good, or a newer
    program wrote it. UnavailableError: the disk fails. What was there is left as it was.
    """
    path = _path(url)
    lock = FileLock(path) if path else None
    if path:
        sqlite.prepare(path)
    if lock is not None:
        lock.acquire()
    try:
        explain = functools.partial(sqlite.explain, path=path)
        writer = Writer(sqlite.engine(path, first=functools.partial(migrate.refuse_foreign, path=path)), explain)
        writer.start()
        reader: Reader | None = None
        try:
            revisions = Revisions(await writer.run(functools.partial(_set_up, path=path, now=clock.now())))
            reader = Reader(sqlite.engine(path, read_only=True), explain) if path else None
            yield SqlLedger(writer, reader or writer, revisions, clock, _warnings())
        finally:
            if reader is not None:
                await reader.close()
            await writer.close()
    finally:
        if lock is not None:
            lock.release()


def _path(url: str) -> str:
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername != "sqlite" or parsed.host or parsed.query:
        shown = parsed.render_as_string(hide_password=True) if parsed is not None else repr(url)
        raise InvalidError(
            f"the ledger cannot be opened: {shown} is not a URL that it knows",
            hint="Write sqlite:///PATH for a file (four slashes for an absolute path), or sqlite:// for memory.",
            field="service.ledger",
        )
    database = parsed.database or sqlite.MEMORY
    if "\x00" in database:
        raise InvalidError("the ledger's path contains a NUL byte", field="service.ledger")
    return "" if database == ":memory:" else database


def _set_up(connection: sa.Connection, *, path: str, now: float) -> int:
    """Bring the schema up and begin a new epoch, in one transaction. Returns the epoch."""
    migrate.upgrade(connection, path)
    last: int = connection.scalar(sa.select(sa.func.max(epochs.c.epoch))) or 0
    connection.execute(sa.delete(epochs).where(epochs.c.epoch < last - 100))
    connection.execute(sa.insert(epochs).values(epoch=last + 1, opened_at=now))
    journal.forget_old_claims(connection, now)
    return last + 1


def _warnings() -> tuple[str, ...]:
    sentence = sqlite.version_warning(sqlite.driver().sqlite_version_info)
    return (sentence,) if sentence else ()
