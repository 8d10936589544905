"""What keeps a snapshot in the store: pins, volumes that were made from it, and whether its handle is on record.

Plain functions of a connection inside a transaction of the caller's; they commit nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from bridge.ledger import codec
from bridge.ledger.schema import group_records, groups, origins, records, requests
from bridge.ledger.schema import pins as pins_table
from bridge.model.failure import ConflictError, PinnedError
from bridge.model.group import GroupRecord
from bridge.model.keys import Key
from bridge.model.pin import Pin
from bridge.model.snapshot import Record, Wish
from bridge.model.volume import Origin
from bridge.ports.group import GroupEntry
from bridge.ports.ledger import Entry

_MOST_AT_ONCE = 500
"""Values in one query: SQLite has a limit."""
UNPIN = "`snapbridge snapshot unpin` lets it go; a pin of an operation goes with that operation"


def pin(connection: sa.Connection, pin: Pin) -> Pin:
    """Keep it. A wish to delete it that was booked first stands."""
    body = connection.scalar(sa.select(requests.c.body).where(requests.c.key == str(pin.key)))
    condemned = connection.scalar(sa.select(records.c.condemned).where(records.c.key == str(pin.key)))
    entry = codec.loads(Entry, body) if body is not None else None
    if condemned or (entry is not None and (entry.wish is Wish.ABSENT or _group_goes(connection, entry))):
        raise ConflictError(
            "its deletion was asked for already, so it cannot be pinned",
            hint="a retained snapshot is taken back with `snapbridge snapshot set-policy`",
            field="snapshot",
        )
    values = {
        "key": codec.text(str(pin.key), "pin.key"),
        "owner": codec.text(pin.owner, "pin.owner"),
        "who": codec.text(pin.who, "pin.who"),
        "why": codec.text(pin.why, "pin.why"),
        "pinned_at": pin.pinned_at,
    }
    unpin(connection, pin.key, pin.owner)
    connection.execute(sa.insert(pins_table).values(**values))
    return pin


def _group_goes(connection: sa.Connection, entry: Entry) -> bool:
    """Whether it is the member of a group whose deletion was asked for: it goes with that."""
    if entry.group is None:
        return False
    body = connection.scalar(sa.select(groups.c.body).where(groups.c.key == str(entry.group)))
    return body is not None and codec.loads(GroupEntry, body).wish is Wish.ABSENT


def unpin(connection: sa.Connection, key: Key, owner: str) -> bool:
    """Let this owner's pin go; whether there was one."""
    mine = (pins_table.c.key == str(key)) & (pins_table.c.owner == owner)
    return connection.execute(sa.delete(pins_table).where(mine)).rowcount > 0


def pins(connection: sa.Connection, keys: Sequence[Key]) -> Sequence[Pin]:
    """The pins of these keys, oldest first."""
    found: list[Pin] = []
    texts = [str(key) for key in keys]
    for start in range(0, len(texts), _MOST_AT_ONCE):
        query = sa.select(pins_table).where(pins_table.c.key.in_(texts[start : start + _MOST_AT_ONCE]))
        found += [
            Pin(Key.parse(row.key), row.owner, row.who, row.why, row.pinned_at) for row in connection.execute(query)
        ]
    return sorted(found, key=lambda one: (one.pinned_at, one.owner))


def refuse_pinned(connection: sa.Connection, key: Key) -> None:
    """PinnedError when somebody keeps it, unless its deletion was asked for before that."""
    found = pins(connection, [key])
    body = connection.scalar(sa.select(requests.c.body).where(requests.c.key == str(key))) if found else None
    if body is not None and codec.loads(Entry, body).wish is not Wish.ABSENT:
        raise PinnedError(f"the snapshot is {found[0]}", hint=UNPIN, field="snapshot")


def recorded(connection: sa.Connection, driver: str, handles: Sequence[str]) -> frozenset[str]:
    """Which of these snapshots are on record: by a record of theirs, or by an adoption that is just booked."""
    handles = [handle for handle in handles if handle]
    found: set[str] = set()
    for start in range(0, len(handles), _MOST_AT_ONCE):
        some = list(handles[start : start + _MOST_AT_ONCE])
        for table in (records, requests):
            query = sa.select(table.c.handle).where(table.c.driver == driver, table.c.handle.in_(some))
            if table is requests:
                query = query.where(requests.c.state != "gone")
            found.update(connection.scalars(query))
    wanted = set(handles)
    for group in _groups(connection, driver):
        found |= {member.handle for member in group.members} & wanted
    return frozenset(found)


def open_sources(connection: sa.Connection, driver: str) -> frozenset[str]:
    """Handles of volumes with an open note. A record with an open note has no handle yet, so few rows are read."""
    query = sa.select(records.c.body).where(records.c.driver == driver, records.c.handle == "")
    found = [codec.loads(Record, body) for body in connection.scalars(query)]
    single = {one.note.volume_handle for one in found if one.note_open and one.note is not None}
    groups = [one for one in _groups(connection, driver) if one.note_open and one.note is not None]
    return frozenset(single | {handle for one in groups if one.note for handle in one.note.volume_handles})


def _groups(connection: sa.Connection, driver: str) -> list[GroupRecord]:
    """The records of this driver's groups; there are few."""
    found = [codec.loads(GroupRecord, body) for body in connection.scalars(sa.select(group_records.c.body))]
    return [one for one in found if one.driver == driver]


def put_origin(connection: sa.Connection, origin: Origin) -> None:
    """Remember it; the same volume's earlier row is replaced."""
    mine = sa.and_(
        origins.c.cluster == origin.cluster, origins.c.driver == origin.driver, origins.c.handle == origin.handle
    )
    connection.execute(sa.delete(origins).where(mine))
    connection.execute(
        sa.insert(origins).values(
            cluster=origin.cluster,
            driver=origin.driver,
            handle=codec.text(origin.handle, "origin.handle"),
            source=origin.content.handle,
            body=codec.dumps(origin),
        )
    )


def made_from(connection: sa.Connection, driver: str, handle: str) -> Sequence[Origin]:
    """The volumes that were made from it, oldest first."""
    query = sa.select(origins.c.body).where(origins.c.driver == driver, origins.c.source == handle)
    found = [codec.loads(Origin, body) for body in connection.scalars(query)]
    return sorted(found, key=lambda one: (one.made_at, one.handle))


def origins_of(connection: sa.Connection, cluster: str) -> Sequence[Origin]:
    """From what the volumes of a cluster were made."""
    query = sa.select(origins.c.body).where(origins.c.cluster == cluster)
    return [codec.loads(Origin, body) for body in connection.scalars(query)]
