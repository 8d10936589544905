"""Marks: what tells one opening of one ledger from every other. Who finds a mark in a ledger has that ledger, or a
later copy of it; an empty one, another one or an older copy does not have it."""

from __future__ import annotations

import sqlalchemy as sa

from bridge.ledger.schema import epochs


def newest(connection: sa.Connection) -> str:
    """The mark of the last opening."""
    row = connection.execute(sa.select(epochs.c.epoch, epochs.c.opened_at).order_by(epochs.c.epoch.desc())).first()
    if row is None:
        raise AssertionError("a ledger that is open has an epoch")
    return f"{row.epoch}@{row.opened_at!r}"


def is_there(connection: sa.Connection, mark: str) -> bool:
    """Whether this ledger was opened with that mark, of its last hundred openings."""
    epoch, _, _ = mark.partition("@")
    if not (epoch.isascii() and epoch.isdecimal()):
        return False
    opened = connection.scalar(sa.select(epochs.c.opened_at).where(epochs.c.epoch == int(epoch)))
    return opened is not None and f"{epoch}@{opened!r}" == mark
