"""A program that writes the way databases do, and the check of what a cut has kept of it.

For each number, in this order: a checksummed record is appended to a log and fsynced; a row is committed to an SQLite
database in WAL mode; the number is acknowledged. So at any moment: acknowledged <= rows <= log records. A cut at one
moment must show just that, with the acknowledged numbers of the time before it; two files (or two volumes) copied at
different moments break it.

    python -m tests.support.database LOG DATABASE
"""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from tests.support.bed import paths

_RECORD = struct.Struct("<QI")
_PADDING = 200


def write(log: Path, database: Path) -> None:
    """Writes until killed. Prints each acknowledged number."""
    store = sqlite3.connect(database, isolation_level=None)
    store.execute("PRAGMA journal_mode=WAL")
    store.execute("PRAGMA synchronous=FULL")
    store.execute("PRAGMA wal_autocheckpoint=20")
    store.execute("CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, padding BLOB)")
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while True:
        number += 1
        os.write(handle, _RECORD.pack(number, zlib.crc32(str(number).encode())))
        os.fsync(handle)
        store.execute("INSERT INTO entries VALUES (?, ?)", (number, os.urandom(_PADDING)))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Kept:
    """What a copy holds: numbers 1 to these."""

    log_records: int
    rows: int


class BrokenError(AssertionError):
    """The copy is not one that a moment could have left."""


def read(log: Path, database: Path) -> Kept:
    """Opens a copy as the database would after a crash. Raises BrokenError."""
    records = 0
    data = log.read_bytes()
    for number, checksum in _RECORD.iter_unpack(data[: len(data) - len(data) % _RECORD.size]):
        if number != records + 1 or checksum != zlib.crc32(str(number).encode()):
            break
        records = number
    store = sqlite3.connect(database)
    try:
        verdict = store.execute("PRAGMA integrity_check").fetchone()[0]
        count, last = store.execute("SELECT count(*), coalesce(max(number), 0) FROM entries").fetchone()
    except sqlite3.DatabaseError as error:
        raise BrokenError(f"SQLite cannot open the copy: {error}") from error
    finally:
        store.close()
    if verdict != "ok" or count != last:
        raise BrokenError(f"the database is damaged: {verdict}, {count} rows, the last is {last}")
    return Kept(records, last)


def check(log: Path, database: Path, acknowledged: int) -> Kept:
    """Raises BrokenError unless the copy is a prefix with everything acknowledged before the cut began."""
    kept = read(log, database)
    if not acknowledged <= kept.rows <= kept.log_records:
        raise BrokenError(f"{acknowledged} were acknowledged, the copy holds {kept}")
    return kept


class Writer:
    """The program as a process. A context manager: it is killed at the end."""

    def __init__(self, log: Path, database: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.database", str(log), str(database)],
            stdout=subprocess.PIPE, text=True, cwd=paths.REPOSITORY,
        )  # fmt: skip
        self.acknowledged = 0
        self._reader = threading.Thread(target=self._read, name="acknowledgements")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.acknowledged = int(line)

    def more(self, count: int, seconds: float = 30.0) -> None:
        """Waits until so many more numbers are acknowledged."""
        goal, deadline = self.acknowledged + count, time.monotonic() + seconds
        while self.acknowledged < goal:
            assert time.monotonic() < deadline, f"the writer stands still at {self.acknowledged}"
            time.sleep(0.001)

    def __enter__(self) -> Writer:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
