"""The ledger's tables, as the code reads and writes them. The migrations make them; a test compares the two.

A row keeps its object whole in `body` (JSON, see codec.py); the other columns are what is searched and ordered by.
No secret value is ever in a row, only references.
"""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_VERSION = "0003"
"""The newest migration that this code knows."""
APPLICATION_ID = 0x534E4252
"""Marks an SQLite file as ours (PRAGMA application_id)."""

metadata = sa.MetaData()

epochs = sa.Table(
    "epochs",
    metadata,
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("opened_at", sa.Float, nullable=False),
)
"""One row per opening; versions are counted within an epoch, so that none is ever given twice."""

requests = sa.Table(
    "requests",
    metadata,
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
    sa.Column("handle", sa.Text, nullable=False, server_default=""),
)
"""`handle` is that of an adopted snapshot; empty for one that is cut."""
LIVE = sa.text("state NOT IN ('gone', 'retained')")
"""A name is taken by an entry in any other state: gone has left nothing, retained is out of our hands."""
sa.Index(
    "requests_live_name",
    requests.c.cluster,
    requests.c.namespace,
    requests.c.name,
    unique=True,
    sqlite_where=LIVE,
    postgresql_where=LIVE,
)
sa.Index("requests_newest", requests.c.created_at, requests.c.sequence)
sa.Index("requests_by_name", requests.c.cluster, requests.c.namespace, requests.c.name)
sa.Index("requests_by_volume", requests.c.volume, requests.c.created_at, requests.c.sequence)
sa.Index("requests_by_state", requests.c.state, requests.c.created_at, requests.c.sequence)
sa.Index("requests_by_uid", requests.c.uid)
sa.Index("requests_by_handle", requests.c.driver, requests.c.handle)

request_labels = sa.Table(
    "request_labels",
    metadata,
    sa.Column("key", sa.Text, sa.ForeignKey("requests.key", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
sa.Index("request_labels_by_value", request_labels.c.name, request_labels.c.value, request_labels.c.key)

request_users = sa.Table(
    "request_users",
    metadata,
    sa.Column("key", sa.Text, sa.ForeignKey("requests.key", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, primary_key=True),
)
"""Who had the volume when the snapshot was asked for; a name may have several values."""
sa.Index("request_users_by_value", request_users.c.name, request_users.c.value, request_users.c.key)

records = sa.Table(
    "records",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("cluster", sa.Text, nullable=False),
    sa.Column("condemned", sa.Boolean, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("driver", sa.Text, nullable=False, server_default=""),
    sa.Column("handle", sa.Text, nullable=False, server_default=""),
)
sa.Index("records_by_handle", records.c.driver, records.c.handle)

pins = sa.Table(
    "pins",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("pinned_at", sa.Float, nullable=False),
)
"""A key with a row here is kept, in whichever orchestrator it lives."""

origins = sa.Table(
    "origins",
    metadata,
    sa.Column("cluster", sa.Text, primary_key=True),
    sa.Column("driver", sa.Text, primary_key=True),
    sa.Column("handle", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
"""From which snapshot or volume (`source`, its handle) a volume (`handle`) was made."""
sa.Index("origins_by_source", origins.c.driver, origins.c.source)

groups = sa.Table(
    "groups",
    metadata,
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
sa.Index(
    "groups_live_name",
    groups.c.cluster,
    groups.c.namespace,
    groups.c.name,
    unique=True,
    sqlite_where=LIVE,
    postgresql_where=LIVE,
)
sa.Index("groups_newest", groups.c.created_at, groups.c.sequence)
sa.Index("groups_by_uid", groups.c.uid)

group_records = sa.Table(
    "group_records",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("cluster", sa.Text, nullable=False),
    sa.Column("condemned", sa.Boolean, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
sa.Index("operations_newest", operations.c.created_at, operations.c.sequence)
sa.Index("operations_by_state", operations.c.state, operations.c.created_at, operations.c.sequence)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

volumes = sa.Table(
    "volumes",
    metadata,
    sa.Column("cluster", sa.Text, primary_key=True),
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("driver", sa.Text, nullable=False),
    sa.Column("handle", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("verb", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
"""Append only: triggers made by the migration refuse a change or a removal."""
