"""The driver's records: one small JSON file each, written whole or not at all, and all of them in memory.

A record is committed by the rename of its file; after kill -9 at any point the old or the new one is there.
It must not know what a record means: volumes, snapshots and uses are all the same to it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic

from adapters.localdisk import layout as layouts
from adapters.localdisk import records
from adapters.localdisk.records import R

# Called with the name of each step just before or after it matters. Production passes `no_step`.
Steps = Callable[[str], None]


def no_step(name: str) -> None:
    """Does nothing."""


class StoreError(RuntimeError):
    """A record cannot be read. Nothing is guessed: the text names the file and the remedy."""


class Table(Generic[R]):
    """All records of one kind, by id. Safe to use from several threads."""

    def __init__(self, kind: type[R], folder: Path, *, durable: bool, steps: Steps) -> None:
        self._kind: type[R] = kind
        self._folder = folder
        self._durable = durable
        self._steps = steps
        self._name = kind.__name__.lower()
        self._lock = threading.Lock()
        self._records: dict[str, R] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            if path.name.startswith(layouts.TEMPORARY):
                path.unlink()
            elif path.suffix == ".json":
                record = self._read(path)
                self._records[record.id] = record

    def _read(self, path: Path) -> R:
        try:
            record: R = records.from_json(self._kind, json.loads(path.read_text()))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path} is not a record ({error}): restore it from a backup, or move it away"
            ) from error
        if path.stem != record.id:
            raise StoreError(f"{path} holds the record of {record.id}: rename it back")
        return record

    def get(self, key: str) -> R | None:
        return self._records.get(key)

    def all(self) -> list[R]:
        """A copy of the list, in no order."""
        with self._lock:
            return list(self._records.values())

    def put(self, record: R) -> None:
        """Commits a record. Raises OSError; then the old one still counts."""
        final = self._folder / f"{record.id}.json"
        scratch = self._folder / f"{layouts.TEMPORARY}{record.id}.json"
        data: dict[str, Any] = records.to_json(record)
        with scratch.open("w") as file:
            json.dump(data, file)
            file.flush()
            if self._durable:
                os.fsync(file.fileno())
        self._steps(f"{self._name} record written")
        scratch.rename(final)
        if self._durable:
            self._settle(final, fresh=record.id not in self._records)
        self._steps(f"{self._name} record committed")
        with self._lock:
            self._records[record.id] = record

    def _settle(self, final: Path, *, fresh: bool) -> None:
        try:
            sync_folder(self._folder)
        except OSError:
            # The caller will clean up what a new record stands for, so the record must not outlive that.
            if fresh:
                final.unlink(missing_ok=True)
            raise

    def remove(self, key: str) -> None:
        """Forgets a record; an unknown one is fine."""
        (self._folder / f"{key}.json").unlink(missing_ok=True)
        if self._durable:
            sync_folder(self._folder)
        self._steps(f"{self._name} record removed")
        with self._lock:
            self._records.pop(key, None)


class Store:
    """The tables of one state directory, read at construction."""

    def __init__(self, layout: layouts.Layout, *, durable: bool, steps: Steps = no_step) -> None:
        def table(kind: type[R]) -> Table[R]:
            folder = layout.records(kind.__name__.lower() + "s")
            return Table(kind, folder, durable=durable, steps=steps)

        self.volumes = table(records.Volume)
        self.singles = table(records.Snapshot)
        self.groups = table(records.Group)
        self.uses = table(records.Use)

    def volume(self, key: str) -> records.Volume | None:
        """A volume that is not being deleted."""
        found = self.volumes.get(key)
        return None if found is None or found.deleting else found

    def snapshot(self, key: str) -> records.Snapshot | None:
        """A snapshot, a member of a group too, that is not being deleted."""
        single = self.singles.get(key)
        if single is not None:
            return None if single.deleting else single
        return next((s for s in self._members() if s.id == key), None)

    def live_volumes(self) -> list[records.Volume]:
        """In the order of their making."""
        return sorted((v for v in self.volumes.all() if not v.deleting), key=order)

    def live_snapshots(self) -> list[records.Snapshot]:
        """Members of groups included, in the order of their cuts."""
        singles = [s for s in self.singles.all() if not s.deleting]
        return sorted(singles + self._members(), key=order)

    def _members(self) -> list[records.Snapshot]:
        return [s for g in self.groups.all() if not g.deleting for s in g.members]

    def uses_of(self, volume_id: str) -> list[records.Use]:
        return [u for u in self.uses.all() if u.volume_id == volume_id]


def order(record: records.Volume | records.Snapshot) -> tuple[int, str]:
    """The key that lists and page tokens go by."""
    return record.created_ns, record.id


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
