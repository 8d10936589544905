"""What is kept besides snapshots: operations, idempotency claims, remembered volumes, and the audit.

Plain functions of a connection inside a transaction of the caller's; they commit nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from bridge.ledger import codec, revision
from bridge.ledger.revision import Revisions
from bridge.ledger.schema import audit as audit_table
from bridge.ledger.schema import idempotency, operations, volumes
from bridge.model.failure import ConflictError
from bridge.model.operation import Operation, OperationState
from bridge.model.volume import Volume

CLAIM_KEPT_SECONDS = 7 * 86_400.0
"""How long an idempotency key is remembered."""


@dataclasses.dataclass(frozen=True, slots=True)
class AuditRow:
    """One line of the audit. `at` is seconds since the epoch."""

    at: float
    key: str
    verb: str
    who: str
    detail: Mapping[str, str]


def put_operation(connection: sa.Connection, revisions: Revisions, operation: Operation) -> Operation:
    """Insert or compare-and-set."""
    saved = dataclasses.replace(operation, version=str(revisions.next()))
    what = f"the operation {operation.id}"
    values = {
        "state": saved.state.value,
        "created_at": saved.created_at,
        "version": int(saved.version),
        "body": codec.dumps(saved),
    }
    if not operation.version:
        if connection.scalar(sa.select(operations.c.version).where(operations.c.id == saved.id)) is not None:
            raise ConflictError(f"{what} exists already", field="id")
        connection.execute(sa.insert(operations).values(id=saved.id, sequence=int(saved.version), **values))
        return saved
    mine = (operations.c.id == saved.id) & (operations.c.version == revision.parse(operation.version, what))
    if connection.execute(sa.update(operations).where(mine).values(**values)).rowcount != 1:
        raise revision.moved_on(what)
    return saved


def operation(connection: sa.Connection, operation_id: str) -> Operation | None:
    """One operation, or None."""
    body = connection.scalar(sa.select(operations.c.body).where(operations.c.id == operation_id))
    return codec.loads(Operation, body) if body is not None else None


def list_operations(connection: sa.Connection, *, running: bool, limit: int) -> Sequence[Operation]:
    """Newest first."""
    query = sa.select(operations.c.body).order_by(operations.c.created_at.desc(), operations.c.sequence.desc())
    if running:
        query = query.where(operations.c.state == OperationState.RUNNING.value)
    return [codec.loads(Operation, body) for body in connection.scalars(query.limit(limit))]


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A result bound to an idempotency key; `digest` is of what was asked."""

    scope: str
    key: str
    digest: str
    result: str


def claim(connection: sa.Connection, wanted: Claim, now: float) -> str:
    """The result that counts: the first one bound to this key."""
    values = dataclasses.asdict(wanted)
    for field, value in values.items():
        codec.text(value, f"idempotency.{field}")
    mine = (idempotency.c.scope == wanted.scope) & (idempotency.c.key == wanted.key)
    row = connection.execute(sa.select(idempotency.c.digest, idempotency.c.result).where(mine)).first()
    if row is None:
        connection.execute(sa.insert(idempotency).values(created_at=now, **values))
        return wanted.result
    if row.digest != wanted.digest:
        raise ConflictError(
            "this idempotency key was used for another request",
            hint="Send a new key with a new request.",
            field="Idempotency-Key",
        )
    return str(row.result)


def unclaim(connection: sa.Connection, scope: str, key: str, result: str) -> None:
    """Drop the claim, if it is bound to this result and to no other."""
    mine = (idempotency.c.scope == scope) & (idempotency.c.key == key) & (idempotency.c.result == result)
    connection.execute(sa.delete(idempotency).where(mine))


def forget_old_claims(connection: sa.Connection, now: float) -> None:
    """Drop the claims that nobody can mean any more."""
    connection.execute(sa.delete(idempotency).where(idempotency.c.created_at < now - CLAIM_KEPT_SECONDS))


def put_volume(connection: sa.Connection, volume: Volume) -> None:
    """Remember it under its name; the same handle replaces, another one is a conflict."""
    body = codec.dumps(volume)
    mine = _volume_of(volume.cluster, volume.namespace, volume.name)
    row = connection.execute(sa.select(volumes.c.driver, volumes.c.handle).where(mine)).first()
    if row is None:
        connection.execute(
            sa.insert(volumes).values(
                cluster=volume.cluster,
                namespace=volume.namespace,
                name=volume.name,
                driver=volume.driver,
                handle=volume.handle,
                body=body,
            )
        )
        return
    if (row.driver, row.handle) != (volume.driver, volume.handle):
        raise ConflictError(
            f"the volume name {volume.namespace}/{volume.name} is taken by {row.driver} handle {row.handle}",
            hint="Choose another name, or forget that volume first.",
            field="name",
        )
    connection.execute(sa.update(volumes).where(mine).values(body=body))


def drop_volume(connection: sa.Connection, cluster: str, namespace: str, name: str) -> None:
    """Forget it; unknown is fine."""
    connection.execute(sa.delete(volumes).where(_volume_of(cluster, namespace, name)))


def list_volumes(connection: sa.Connection, cluster: str) -> Sequence[Volume]:
    """All of a cluster, by namespace and name."""
    query = sa.select(volumes.c.body).where(volumes.c.cluster == cluster)
    query = query.order_by(volumes.c.namespace, volumes.c.name)
    return [codec.loads(Volume, body) for body in connection.scalars(query)]


def _volume_of(cluster: str, namespace: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(volumes.c.cluster == cluster, volumes.c.namespace == namespace, volumes.c.name == name)


def audit(connection: sa.Connection, row: AuditRow) -> None:
    """Append one row."""
    connection.execute(
        sa.insert(audit_table).values(
            at=row.at,
            key=codec.text(row.key, "audit.key"),
            verb=codec.text(row.verb, "audit.verb"),
            who=codec.text(row.who, "audit.who"),
            detail=codec.dumps_map(row.detail, "audit.detail"),
        )
    )


def trail(connection: sa.Connection, *, key: str, limit: int) -> Sequence[AuditRow]:
    """Audit rows, newest first; of one key, or of all."""
    query = sa.select(audit_table).order_by(audit_table.c.id.desc()).limit(limit)
    if key:
        query = query.where(audit_table.c.key == key)
    return [
        AuditRow(row.at, row.key, row.verb, row.who, codec.loads_map(row.detail, "audit.detail"))
        for row in connection.execute(query)
    ]
