"""The first schema: requests, records, operations, idempotency, volumes, audit.

Written out, not taken from schema.py: a migration must go on making what it made on its first day.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "epochs",
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("opened_at", sa.Float, nullable=False),
    )
    _make_requests()
    op.create_table(
        "records",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("condemned", sa.Boolean, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    _make_operations()
    op.create_table(
        "volumes",
        sa.Column("cluster", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("driver", sa.Text, nullable=False),
        sa.Column("handle", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    _make_audit()


def _make_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("volume", sa.Text, nullable=False),
        sa.Column("driver", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    live = sa.text("state NOT IN ('gone', 'retained')")
    name = ["cluster", "namespace", "name"]
    op.create_index("requests_live_name", "requests", name, unique=True, sqlite_where=live, postgresql_where=live)
    op.create_index("requests_newest", "requests", ["created_at", "sequence"])
    op.create_index("requests_by_name", "requests", name)
    op.create_index("requests_by_volume", "requests", ["volume", "created_at", "sequence"])
    op.create_index("requests_by_state", "requests", ["state", "created_at", "sequence"])
    op.create_index("requests_by_uid", "requests", ["uid"])
    op.create_table(
        "request_labels",
        sa.Column("key", sa.Text, sa.ForeignKey("requests.key", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_index("request_labels_by_value", "request_labels", ["name", "value", "key"])


def _make_operations() -> None:
    op.create_table(
        "operations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("operations_newest", "operations", ["created_at", "sequence"])
    op.create_index("operations_by_state", "operations", ["state", "created_at", "sequence"])
    op.create_table(
        "idempotency",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )


def _make_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("verb", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    for act in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{act.lower()} BEFORE {act} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit is append only'); END"
        )


def downgrade() -> None:
    """There is no way down: an older program refuses a newer ledger."""
    raise NotImplementedError("the ledger's schema only goes up")
