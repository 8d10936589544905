"""Groups in the store: the book of their requests, their records, and the barrier's writes that span several rows.

Each verb is one closure in one transaction. It must not decide anything: who may write what is the callers' matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import sqlalchemy as sa

from bridge.ledger import codec, entries, journal, keeping, records, revision
from bridge.ledger.revision import Revisions
from bridge.ledger.schema import LIVE, group_records, groups
from bridge.ledger.writer import Writer
from bridge.model.failure import ConflictError, InvalidError
from bridge.model.group import GroupRecord
from bridge.model.keys import Key
from bridge.model.snapshot import DeletionPolicy, Record, SnapshotState, Wish
from bridge.ports.clock import Clock
from bridge.ports.group import GroupBook, GroupEntry
from bridge.ports.ledger import Entry

T = TypeVar("T")
_LAST_CHARACTER = "\U0010ffff"


class Runs(Protocol):
    """Where a read runs."""

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work(connection)` in one transaction and return what it returns."""
        ...


class SqlGroups:
    """The port `GroupBook` on the ledger's database. Made by the ledger, which closes what it stands on."""

    def __init__(self, writer: Writer, reader: Runs, revisions: Revisions, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._revisions = revisions
        self._clock = clock

    async def add(self, entry: GroupEntry, members: Sequence[Entry]) -> GroupEntry:
        """See the port."""
        return await self._writer.run(lambda c: _add(c, self._revisions, entry, members))

    async def entry(self, key: Key) -> GroupEntry | None:
        """See the port."""
        return await self._reader.run(lambda c: _entry(c, groups.c.key == str(key)))

    async def find(self, cluster: str, namespace: str, name: str) -> GroupEntry | None:
        """See the port."""
        return await self._reader.run(lambda c: _find(c, cluster, namespace, name))

    async def change(self, entry: GroupEntry) -> GroupEntry:
        """See the port."""
        return await self._writer.run(lambda c: _change(c, self._revisions, entry))

    async def list(self, *, cluster: str = "", namespace: str = "", uid_prefix: str = "") -> Sequence[GroupEntry]:
        """See the port."""
        return await self._reader.run(lambda c: _list(c, cluster, namespace, uid_prefix))

    async def load(self, key: Key) -> GroupRecord | None:
        """See ports.group.GroupLedger."""
        return await self._reader.run(lambda c: _load(c, key))

    async def save(self, key: Key, record: GroupRecord) -> GroupRecord:
        """See ports.group.GroupLedger."""
        return await self._writer.run(lambda c: _save(c, self._revisions, key, record))

    async def condemn(self, key: Key, record: GroupRecord) -> GroupRecord:
        """See ports.group.GroupLedger."""
        return await self._writer.run(lambda c: _condemn(c, self._revisions, key, record))

    async def erase(self, key: Key, record: GroupRecord, *, orphan: str = "") -> None:
        """See ports.group.GroupLedger."""
        now = self._clock.now()
        await self._writer.run(lambda c: _erase(c, key, record, orphan, now))

    async def keys(self) -> AsyncIterator[Key]:
        """Every record's key."""
        query = sa.select(group_records.c.key).order_by(group_records.c.key)
        for key in await self._reader.run(lambda c: c.scalars(query).all()):
            yield Key.parse(key)

    async def open(self, key: Key, record: GroupRecord, members: Sequence[tuple[Key, Record]]) -> Sequence[Record]:
        """See ports.group.Barrier."""

        def work(connection: sa.Connection) -> Sequence[Record]:
            _save(connection, self._revisions, key, record)
            return [records.save(connection, self._revisions, member, note) for member, note in members]

        return await self._writer.run(work)

    async def member_state(self, key: Key) -> SnapshotState | None:
        """See ports.group.Barrier."""
        entry = await self._reader.run(lambda c: entries.entry(c, key))
        if entry is None:
            return None
        return entry.status.state if entry.status is not None else SnapshotState.PENDING

    async def withdraw(self, keys: Sequence[Key]) -> None:
        """See ports.group.Barrier. Within the transaction nobody else writes, so nothing can have moved on."""

        def work(connection: sa.Connection) -> None:
            for key in keys:
                entry = entries.entry(connection, key)
                if entry is not None and entry.wish is not Wish.ABSENT:
                    entries.change(connection, self._revisions, dataclasses.replace(entry, wish=Wish.ABSENT))

        await self._writer.run(work)


def _add(connection: sa.Connection, revisions: Revisions, entry: GroupEntry, members: Sequence[Entry]) -> GroupEntry:
    if entry.version:
        raise InvalidError("a new group has no version yet", field="version")
    if connection.scalar(sa.select(groups.c.key).where(groups.c.key == str(entry.key))) is not None:
        raise ConflictError(f"the group {entry.key} is booked already", field="uid")
    taken = _find(connection, entry.key.cluster, entry.namespace, entry.name)
    if taken is not None and _state(taken) is not SnapshotState.RETAINED:
        raise ConflictError(
            f"the group name {entry.namespace}/{entry.name} is taken in the cluster {entry.key.cluster}",
            hint=f"Choose another name; that one is of {taken.key.uid}.",
            field="name",
        )
    saved = dataclasses.replace(entry, version=str(revisions.next()))
    connection.execute(sa.insert(groups), {"sequence": int(saved.version), **_columns(saved)})
    for member in members:
        entries.add(connection, revisions, member)
    return saved


def _entry(connection: sa.Connection, which: sa.ColumnElement[bool]) -> GroupEntry | None:
    body = connection.scalar(sa.select(groups.c.body).where(which))
    return codec.loads(GroupEntry, body) if body is not None else None


def _find(connection: sa.Connection, cluster: str, namespace: str, name: str) -> GroupEntry | None:
    query = (
        sa.select(groups.c.body)
        .where(
            groups.c.cluster == cluster,
            groups.c.namespace == namespace,
            groups.c.name == name,
            groups.c.state != SnapshotState.GONE.value,
        )
        .order_by(sa.case((LIVE, 0), else_=1), groups.c.created_at.desc(), groups.c.sequence.desc())
        .limit(1)
    )
    body = connection.scalar(query)
    return codec.loads(GroupEntry, body) if body is not None else None


def _change(connection: sa.Connection, revisions: Revisions, entry: GroupEntry) -> GroupEntry:
    what = f"the group {entry.key}"
    version = revision.parse(entry.version, what)
    if entry.wish is Wish.ABSENT:
        before = _entry(connection, groups.c.key == str(entry.key))
        for one in entry.members if before is not None and before.wish is not Wish.ABSENT else ():
            keeping.refuse_pinned(connection, one.key)
    saved = dataclasses.replace(entry, version=str(revisions.next()))
    mine = sa.update(groups).where(groups.c.key == str(entry.key), groups.c.version == version)
    if connection.execute(mine.values(**_columns(saved))).rowcount != 1:
        raise revision.moved_on(what)
    return saved


def _list(connection: sa.Connection, cluster: str, namespace: str, uid_prefix: str) -> Sequence[GroupEntry]:
    query = sa.select(groups.c.body).where(groups.c.state != SnapshotState.GONE.value)
    for column, wanted in (("cluster", cluster), ("namespace", namespace)):
        if wanted:
            query = query.where(groups.c[column] == wanted)
    if uid_prefix:
        query = query.where(groups.c.uid >= uid_prefix, groups.c.uid < uid_prefix + _LAST_CHARACTER)
    query = query.order_by(groups.c.created_at.desc(), groups.c.sequence.desc())
    return [codec.loads(GroupEntry, body) for body in connection.scalars(query)]


def _state(entry: GroupEntry) -> SnapshotState:
    return entry.status.state if entry.status is not None else SnapshotState.PENDING


def _columns(entry: GroupEntry) -> dict[str, Any]:
    return {
        "key": codec.text(str(entry.key), "key"),
        "cluster": entry.key.cluster,
        "uid": entry.key.uid,
        "namespace": entry.namespace,
        "name": entry.name,
        "policy": entry.policy.value,
        "state": _state(entry).value,
        "created_at": entry.created_at,
        "version": int(entry.version),
        "body": codec.dumps(entry),
    }


# -- records ---------------------------------------------------------------------------------------------------


def _load(connection: sa.Connection, key: Key) -> GroupRecord | None:
    body = connection.scalar(sa.select(group_records.c.body).where(group_records.c.key == str(key)))
    return codec.loads(GroupRecord, body) if body is not None else None


def _save(connection: sa.Connection, revisions: Revisions, key: Key, record: GroupRecord) -> GroupRecord:
    what = f"the record {key}"
    stored = _load(connection, key)
    if (stored.version if stored is not None else "") != record.version:
        raise revision.moved_on(what)
    if stored is not None and stored.condemned and not record.condemned:
        raise InvalidError(f"the deletion of {key} is decided and cannot be taken back", field="condemned")
    saved = dataclasses.replace(record, version=str(revisions.next()))
    values = {"condemned": saved.condemned, "version": int(saved.version), "body": codec.dumps(saved)}
    if stored is None:
        row = {"key": codec.text(str(key), "key"), "cluster": key.cluster, **values}
        connection.execute(sa.insert(group_records), row)
    else:
        connection.execute(sa.update(group_records).where(group_records.c.key == str(key)).values(**values))
    return saved


def _condemn(connection: sa.Connection, revisions: Revisions, key: Key, record: GroupRecord) -> GroupRecord:
    """Under the policy that is booked at this very moment. The first decision stands."""
    stored = _load(connection, key)
    if stored is None or stored.version != record.version:
        raise revision.moved_on(f"the record {key}")
    if stored.condemned:
        return stored
    booked = connection.scalar(sa.select(groups.c.policy).where(groups.c.key == str(key)))
    policy = DeletionPolicy(booked) if booked is not None else stored.policy
    return _save(connection, revisions, key, dataclasses.replace(record, condemned=True, policy=policy))


def _erase(connection: sa.Connection, key: Key, record: GroupRecord, orphan: str, now: float) -> None:
    stored = _load(connection, key)
    if stored is None:
        return
    if stored.version != record.version:
        raise revision.moved_on(f"the record {key}")
    connection.execute(sa.delete(group_records).where(group_records.c.key == str(key)))
    if orphan:
        detail = {"orphan": orphan, "driver": stored.driver, "group_name": stored.group_name}
        if stored.handle:
            detail["handle"] = stored.handle
        journal.audit(connection, journal.AuditRow(now, str(key), "orphan", "snapbridge", detail))


if TYPE_CHECKING:

    def _has_the_port(found: SqlGroups) -> GroupBook:
        return found
