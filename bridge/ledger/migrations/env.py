"""What Alembic runs to migrate: it works on the connection that the opening hands over, and never on another."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from bridge.ledger import schema


def run() -> None:
    """Bring the schema up inside the caller's transaction, so that a crash leaves the old schema whole."""
    connection = context.config.attributes["connection"]
    if not isinstance(connection, sa.Connection):
        raise TypeError("the ledger's migrations need an open connection")
    context.configure(connection=connection, target_metadata=schema.metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


run()
