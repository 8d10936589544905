"""What keeps a snapshot and what was made of it: pins, origins of volumes, handles to search by, users at the cut.

Written out, not taken from schema.py: a migration must go on making what it made on its first day.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the tables and columns, and fill the columns from the bodies that are there."""
    op.create_table(
        "pins",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("pinned_at", sa.Float, nullable=False),
    )
    op.create_table(
        "request_users",
        sa.Column("key", sa.Text, sa.ForeignKey("requests.key", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, primary_key=True),
    )
    op.create_index("request_users_by_value", "request_users", ["name", "value", "key"])
    op.create_table(
        "origins",
        sa.Column("cluster", sa.Text, primary_key=True),
        sa.Column("driver", sa.Text, primary_key=True),
        sa.Column("handle", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("origins_by_source", "origins", ["driver", "source"])
    op.add_column("requests", sa.Column("handle", sa.Text, nullable=False, server_default=""))
    op.add_column("records", sa.Column("driver", sa.Text, nullable=False, server_default=""))
    op.add_column("records", sa.Column("handle", sa.Text, nullable=False, server_default=""))
    op.execute(
        "UPDATE requests SET handle = json_extract(body, '$.source.handle') "
        "WHERE json_extract(body, '$.source.is') = 'HandleSource'"
    )
    op.execute(
        "UPDATE records SET driver = coalesce(json_extract(body, '$.driver'), ''), "
        "handle = coalesce(json_extract(body, '$.handle'), '')"
    )
    op.create_index("requests_by_handle", "requests", ["driver", "handle"])
    op.create_index("records_by_handle", "records", ["driver", "handle"])


def downgrade() -> None:
    """There is no way down: an older program refuses a newer ledger."""
    raise NotImplementedError("the ledger's schema only goes up")
