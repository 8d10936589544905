"""Booked requests in the store: book, find, compare-and-set, and list newest first in stable pages.

Plain functions of a connection inside a transaction of the caller's; they commit nothing.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from bridge.ledger import codec, keeping, revision
from bridge.ledger.revision import Revisions
from bridge.ledger.schema import LIVE, records, request_labels, request_users, requests
from bridge.model.failure import ConflictError, InvalidError
from bridge.model.keys import Key
from bridge.model.snapshot import HandleSource, SnapshotState, Wish
from bridge.ports.ledger import Entry, EntryFilter, Page

_NEWEST = (requests.c.created_at.desc(), requests.c.sequence.desc())
_MINE = requests.c.key == sa.bindparam("of")
_BODY = sa.select(requests.c.body).where(_MINE)
_VERSION = sa.select(requests.c.version).where(_MINE)
_SWAP = sa.update(requests).where(_MINE, requests.c.version == sa.bindparam("old"))
_LABELS = sa.select(request_labels.c.name, request_labels.c.value).where(request_labels.c.key == sa.bindparam("of"))
_NAMED = (
    sa.select(requests.c.body)
    .where(
        requests.c.cluster == sa.bindparam("cluster"),
        requests.c.namespace == sa.bindparam("namespace"),
        requests.c.name == sa.bindparam("name"),
        requests.c.state != SnapshotState.GONE.value,
    )
    .order_by(sa.case((LIVE, 0), else_=1), *_NEWEST)
    .limit(1)
)
_LAST_CHARACTER = "\U0010ffff"


def add(connection: sa.Connection, revisions: Revisions, entry: Entry) -> Entry:
    """Book it. ConflictError when its key is booked or its name is taken."""
    if entry.version:
        raise InvalidError("a new entry has no version yet", field="version")
    saved = dataclasses.replace(entry, version=str(revisions.next()))
    values = _columns(saved)
    if connection.scalar(_VERSION, {"of": values["key"]}) is not None:
        raise ConflictError(f"the snapshot {entry.key} is booked already", field="uid")
    taken = find(connection, entry.key.cluster, entry.namespace, entry.name)
    if taken is not None and _state(taken) not in (SnapshotState.GONE, SnapshotState.RETAINED):
        raise ConflictError(
            f"the snapshot name {entry.namespace}/{entry.name} is taken in the cluster {entry.key.cluster}",
            hint=f"Choose another name; that one is of {taken.key.uid}.",
            field="name",
        )
    connection.execute(sa.insert(requests), {"sequence": int(saved.version), **values})
    _put_labels(connection, saved)
    _put_users(connection, saved)
    return saved


def entry(connection: sa.Connection, key: Key) -> Entry | None:
    """The entry of this key, or None."""
    body = connection.scalar(_BODY, {"of": str(key)})
    return codec.loads(Entry, body) if body is not None else None


def find(connection: sa.Connection, cluster: str, namespace: str, name: str) -> Entry | None:
    """The live entry of that name; else the newest one of that name whose snapshot was retained; else None."""
    body = connection.scalar(_NAMED, {"cluster": cluster, "namespace": namespace, "name": name})
    return codec.loads(Entry, body) if body is not None else None


def change(connection: sa.Connection, revisions: Revisions, entry: Entry) -> Entry:
    """Compare-and-set. Its place in the list stays. PinnedError when a pinned one is to be withdrawn."""
    what = f"the snapshot {entry.key}"
    if entry.wish is Wish.ABSENT:
        keeping.refuse_pinned(connection, entry.key)
    version = revision.parse(entry.version, what)
    saved = dataclasses.replace(entry, version=str(revisions.next()))
    which = {"of": str(entry.key), "old": version}
    if connection.execute(_SWAP, which | _columns(saved)).rowcount != 1:
        raise revision.moved_on(what)
    booked = connection.execute(_LABELS, {"of": str(saved.key)})
    if {row.name: row.value for row in booked} != dict(saved.labels):
        connection.execute(sa.delete(request_labels).where(request_labels.c.key == str(saved.key)))
        _put_labels(connection, saved)
    return saved


def list_page(connection: sa.Connection, which: EntryFilter, *, limit: int, token: str) -> Page:
    """One page, newest first. Entries booked later never shift a page that is still to come."""
    if limit < 1:
        raise InvalidError(f"a page of {limit} entries cannot be", hint="Ask for 1 or more.", field="limit")
    query = sa.select(requests.c.created_at, requests.c.sequence, requests.c.body).where(*_conditions(which))
    if token:
        query = query.where(sa.tuple_(requests.c.created_at, requests.c.sequence) < sa.tuple_(*_read_token(token)))
    rows = connection.execute(query.order_by(*_NEWEST).limit(limit + 1)).all()
    items = tuple(codec.loads(Entry, row.body) for row in rows[:limit])
    return Page(items, _make_token(rows[limit - 1]) if len(rows) > limit else "")


def holders(connection: sa.Connection, driver: str, handle: str, *, adopted_only: bool) -> Sequence[Entry]:
    """Live entries whose snapshot on the backend is this one."""
    if not handle:
        return []
    adopted = sa.select(requests.c.body).where(requests.c.driver == driver, requests.c.handle == handle, LIVE)
    kept = [codec.loads(Entry, body) for body in connection.scalars(adopted)]
    if adopted_only:
        return kept
    query = sa.select(requests.c.body).join(records, records.c.key == requests.c.key)
    query = query.where(records.c.driver == driver, records.c.handle == handle, LIVE)
    known = {one.key for one in kept}
    cut = [codec.loads(Entry, body) for body in connection.scalars(query)]
    return [*kept, *(one for one in cut if one.key not in known)]


def _conditions(which: EntryFilter) -> list[sa.ColumnElement[bool]]:
    conditions = [requests.c.state != SnapshotState.GONE.value]
    for column in ("cluster", "namespace", "volume", "driver"):
        wanted = getattr(which, column)
        if wanted:
            conditions.append(requests.c[column] == wanted)
    if which.states:
        conditions.append(requests.c.state.in_([_known_state(state) for state in which.states]))
    if which.uid_prefix:
        # A range, not LIKE: it uses the index, and no character in the prefix has a meaning of its own.
        conditions.append(requests.c.uid >= which.uid_prefix)
        conditions.append(requests.c.uid < which.uid_prefix + _LAST_CHARACTER)
    for name, value in which.labels.items():
        labelled = sa.select(request_labels.c.key).where(
            request_labels.c.name == name, request_labels.c.value == value
        )
        conditions.append(requests.c.key.in_(labelled))
    conditions += [requests.c.key.in_(_used_by(name, value)) for name, value in which.users.items()]
    return conditions


def _used_by(name: str, value: str) -> sa.Select[tuple[str]]:
    """The keys whose volume was used by this; a value that ends in `*` is the start of one."""
    found = sa.select(request_users.c.key).where(request_users.c.name == name)
    if not value.endswith("*"):
        return found.where(request_users.c.value == value)
    start = value[:-1]
    return found.where(request_users.c.value >= start, request_users.c.value < start + _LAST_CHARACTER)


def _known_state(state: str) -> str:
    try:
        return SnapshotState(state).value
    except ValueError:
        known = ", ".join(s.value for s in SnapshotState)
        raise InvalidError(f"there is no state {state!r}", hint=f"Use one of {known}.", field="state") from None


def _state(entry: Entry) -> SnapshotState:
    return entry.status.state if entry.status is not None else SnapshotState.PENDING


def _columns(entry: Entry) -> dict[str, Any]:
    return {
        "body": codec.dumps(entry),
        "key": str(entry.key),
        "cluster": entry.key.cluster,
        "uid": entry.key.uid,
        "namespace": entry.namespace,
        "name": entry.name,
        "volume": entry.volume,
        "driver": entry.driver,
        "policy": entry.policy.value,
        "state": _state(entry).value,
        "held": entry.held,
        "created_at": entry.created_at,
        "version": int(entry.version),
        "handle": entry.source.handle if isinstance(entry.source, HandleSource) else "",
    }


def _put_labels(connection: sa.Connection, entry: Entry) -> None:
    rows = [{"key": str(entry.key), "name": name, "value": value} for name, value in entry.labels.items()]
    if rows:
        connection.execute(sa.insert(request_labels), rows)


def _put_users(connection: sa.Connection, entry: Entry) -> None:
    """Written once: who had the volume at that time does not change."""
    rows = [
        {"key": str(entry.key), "name": name, "value": value}
        for name, values in entry.users.items()
        for value in dict.fromkeys(values)
    ]
    if rows:
        connection.execute(sa.insert(request_users), rows)


def _make_token(row: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([row.created_at, row.sequence])).decode().rstrip("=")


def _read_token(token: str) -> tuple[float, int]:
    """The place that a token names. InvalidError when it is not one of ours."""
    try:
        created_at, sequence = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True))
    except (binascii.Error, orjson.JSONDecodeError, ValueError, TypeError):
        created_at, sequence = None, None
    if isinstance(created_at, float) and type(sequence) is int and 0 <= sequence < 2**63:
        return created_at, sequence
    raise InvalidError("this page token is not one of ours", hint="Start again without a token.", field="next_token")
