"""SQLite as the ledger wants it: the newest library at hand, WAL, every commit on disk before it is answered.

It opens connections and reads errors; it knows no table.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import NullPool, StaticPool

from bridge.model.failure import BridgeError, ConflictError, InvalidError, UnavailableError

SAFE_VERSION = (3, 51, 3)
"""The first SQLite without the WAL-reset bug, which can damage a file."""
BUSY_TIMEOUT_SECONDS = 5.0
MEMORY = ""
"""The path of a ledger that is never on disk."""


def driver() -> ModuleType:
    """The DBAPI module with the newest SQLite: pysqlite3 bundles one, Python's own links the system's."""
    try:
        bundled = importlib.import_module("pysqlite3.dbapi2")
    except ImportError:  # no wheel for this platform: the system's library, with a warning if it is old
        return sqlite3
    return bundled if bundled.sqlite_version_info >= sqlite3.sqlite_version_info else sqlite3


def version_warning(version: tuple[int, ...]) -> str:
    """A sentence about this SQLite version; empty when there is nothing to say.

    >>> version_warning((3, 53, 4))
    ''
    """
    if version >= SAFE_VERSION:
        return ""
    return (
        f"SQLite {'.'.join(map(str, version))} is linked, which can damage a ledger under load (WAL-reset bug, fixed "
        "in 3.51.3); install the package pysqlite3 or a newer SQLite"
    )


def prepare(path: str) -> None:
    """Make the file, readable by us only, before SQLite opens it. InvalidError says why it cannot be."""
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise InvalidError(
            f"the ledger {path} cannot be opened for writing: {error.strerror}",
            hint="Give service.data_dir (or service.ledger) a place that this user may write to.",
            field="service.ledger",
        ) from error


def engine(path: str, *, read_only: bool = False, first: Callable[[Any], None] | None = None) -> sa.Engine:
    """An engine whose connections begin what they will do: writers at once (BEGIN IMMEDIATE), readers lazily.

    `first` gets each new driver's connection before anything is changed, and may refuse the file.
    """
    module = driver()

    def connect() -> Any:
        connection = module.connect(
            path or ":memory:",
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_SECONDS,
            cached_statements=256,
        )
        try:
            if first is not None:
                first(connection)
            for pragma in _pragmas(read_only):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    pool = NullPool if path else StaticPool
    made = sa.create_engine("sqlite+pysqlite://", module=module, creator=connect, poolclass=pool)
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
    event.listen(made, "begin", lambda connection: connection.exec_driver_sql(begin))
    return made


def _pragmas(read_only: bool) -> tuple[str, ...]:
    if read_only:
        return ("query_only = ON",)
    return (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "journal_size_limit = 67108864",
    )


_FULL, _READONLY, _NOTADB, _CORRUPT, _CANTOPEN, _IOERR, _CONSTRAINT = 13, 8, 26, 11, 14, 10, 19

_ANSWERS: dict[int, tuple[Callable[..., BridgeError], str, str]] = {
    _FULL: (UnavailableError, "the disk of the ledger {path} is full", "Free space; the work goes on by itself."),
    _READONLY: (UnavailableError, "the ledger {path} cannot be written: read-only", "Mount it writable."),
    _NOTADB: (
        InvalidError,
        "{path} is not a ledger: the file is not an SQLite database",
        "Name another file in service.ledger; this one was left as it is.",
    ),
    _CORRUPT: (
        UnavailableError,
        "the ledger {path} is damaged",
        "Stop the service, keep a copy, and restore the file from a backup.",
    ),
    _CANTOPEN: (UnavailableError, "the ledger {path} cannot be opened", "Check that its directory exists."),
    _IOERR: (UnavailableError, "the disk of the ledger {path} fails", "Look at the kernel's log."),
    _CONSTRAINT: (ConflictError, "a row of the ledger {path} stands against this: {text}", ""),
}


def explain(error: Exception, path: str) -> BridgeError:
    """The clear error for what SQLite said. The original stays chained by the caller."""
    if isinstance(error, UnicodeEncodeError):
        return InvalidError("a text that is not valid Unicode can be in no ledger", hint="Write it as UTF-8.")
    original = getattr(error, "orig", None) or error
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    kind, message, hint = _ANSWERS.get(code, (UnavailableError, "the ledger {path} does not work: {text}", ""))
    return kind(message.format(path=path or "in memory", text=original), hint=hint)
