"""Groups of snapshots that the service itself keeps: their requests and their records.

Written out, not taken from schema.py: a migration must go on making what it made on its first day.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the two tables."""
    op.create_table(
        "groups",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    live = sa.text("state NOT IN ('gone', 'retained')")
    name = ["cluster", "namespace", "name"]
    op.create_index("groups_live_name", "groups", name, unique=True, sqlite_where=live, postgresql_where=live)
    op.create_index("groups_newest", "groups", ["created_at", "sequence"])
    op.create_index("groups_by_uid", "groups", ["uid"])
    op.create_table(
        "group_records",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("condemned", sa.Boolean, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """There is no way down: an older program refuses a newer ledger."""
    raise NotImplementedError("the ledger's schema only goes up")
