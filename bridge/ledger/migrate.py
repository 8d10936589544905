"""Brings a file's schema up to what this code knows, at opening. Never down, and never somebody else's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bridge.ledger import schema
from bridge.model.failure import InvalidError


def upgrade(connection: sa.Connection, path: str) -> None:
    """Migrate inside the caller's transaction. InvalidError for a file that a newer program wrote."""
    version = _version(connection)
    if version == schema.SCHEMA_VERSION:
        return
    if version > schema.SCHEMA_VERSION:
        raise InvalidError(
            f"the ledger {path} was written by a newer snapbridge (schema {version}; this one knows up to "
            f"{schema.SCHEMA_VERSION})",
            hint="Run that version or a later one; the file was left as it is.",
            field="service.ledger",
        )
    # Imported here: a service whose ledger is up to date, nearly always, need not carry Alembic.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    command.upgrade(config, "head")


def refuse_foreign(connection: Any, path: str) -> None:
    """InvalidError when the driver's connection is to a database that is not ours. Only reads."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != schema.APPLICATION_ID and (things or application):
        raise InvalidError(
            f"{path} is not a ledger: it is another program's database",
            hint="Name another file in service.ledger; this one was left as it is.",
            field="service.ledger",
        )


def _version(connection: sa.Connection) -> str:
    """The file's schema version; empty for a new file."""
    if "alembic_version" not in sa.inspect(connection).get_table_names():
        return ""
    version: str | None = connection.exec_driver_sql("SELECT max(version_num) FROM alembic_version").scalar()
    return version or ""
