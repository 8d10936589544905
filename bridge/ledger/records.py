"""Records in the store: load, compare-and-set, condemn, erase, and the keys that still need work.

Plain functions of a connection inside a transaction of the caller's; they commit nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import sqlalchemy as sa

from bridge.ledger import codec, journal, revision
from bridge.ledger.revision import Revisions
from bridge.ledger.schema import records, requests
from bridge.model.failure import ConflictError, InvalidError
from bridge.model.keys import Key
from bridge.model.snapshot import DeletionPolicy, Record

_MINE = records.c.key == sa.bindparam("of")
_LOAD = sa.select(records.c.body).where(_MINE)
_VERSION = sa.select(records.c.version).where(_MINE)
_SWAP = sa.update(records).where(
    _MINE,
    records.c.version == sa.bindparam("old"),
    sa.or_(sa.bindparam("final", type_=sa.Boolean), records.c.condemned.is_(False)),
)
_POLICY = sa.select(requests.c.policy).where(requests.c.key == sa.bindparam("of"))


def load(connection: sa.Connection, key: Key) -> Record | None:
    """The record of this key, or None."""
    body = connection.scalar(_LOAD, {"of": str(key)})
    return codec.loads(Record, body) if body is not None else None


def save(connection: sa.Connection, revisions: Revisions, key: Key, record: Record) -> Record:
    """Compare-and-set; ConflictError when it has moved on, InvalidError when it would take back a condemnation."""
    saved = dataclasses.replace(record, version=str(revisions.next()))
    values: dict[str, object] = {
        "condemned": saved.condemned,
        "version": int(saved.version),
        "body": codec.dumps(saved),
        "driver": saved.driver,
        "handle": saved.handle,
    }
    if not record.version:
        _insert(connection, key, values)
        return saved
    version = revision.parse(record.version, f"the record {key}")
    which = {"of": str(key), "old": version, "final": saved.condemned}
    if connection.execute(_SWAP, which | values).rowcount != 1:
        stored = connection.scalar(_VERSION, {"of": str(key)})
        if stored == version:
            raise InvalidError(f"the deletion of {key} is decided and cannot be taken back", field="condemned")
        raise revision.moved_on(f"the record {key}")
    return saved


def _insert(connection: sa.Connection, key: Key, values: dict[str, object]) -> None:
    text = codec.text(str(key), "key")
    if connection.scalar(_VERSION, {"of": text}) is not None:
        raise ConflictError(f"the record {key} exists already", hint="Read it again.", field="version")
    connection.execute(sa.insert(records), {"key": text, "cluster": key.cluster, **values})


def condemn(connection: sa.Connection, revisions: Revisions, key: Key, record: Record) -> Record:
    """Decide the deletion under the policy that is booked at this very moment. The first decision stands."""
    stored = load(connection, key)
    if stored is None or stored.version != record.version:
        raise revision.moved_on(f"the record {key}")
    if stored.condemned:
        return stored
    booked = connection.scalar(_POLICY, {"of": str(key)})
    policy = DeletionPolicy(booked) if booked is not None else stored.policy
    return save(connection, revisions, key, dataclasses.replace(record, condemned=True, policy=policy))


def erase(connection: sa.Connection, key: Key, record: Record, *, orphan: str, now: float) -> None:
    """Forget the record; what may be left on the backend goes to the audit in the same act."""
    stored = load(connection, key)
    if stored is None:
        return
    if stored.version != record.version:
        raise revision.moved_on(f"the record {key}")
    connection.execute(sa.delete(records).where(records.c.key == str(key)))
    if orphan:
        detail = {"orphan": orphan, "driver": stored.driver, "snapshot_name": stored.snapshot_name}
        if stored.handle:
            detail["handle"] = stored.handle
        journal.audit(connection, journal.AuditRow(now, str(key), "orphan", "snapbridge", detail))


def unfinished_keys(connection: sa.Connection, after: str, limit: int) -> Sequence[str]:
    """A page of keys, in order: every record, and every booked request that is not released yet."""
    kept = sa.select(records.c.key).where(records.c.key > after)
    held = sa.select(requests.c.key).where(requests.c.key > after, requests.c.held.is_(True))
    both = sa.union(kept, held).order_by(sa.literal_column("key")).limit(limit)
    return connection.scalars(both).all()
