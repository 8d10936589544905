"""Opening a ledger file: what is refused and how it is said, what survives, what the schema is."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bridge.ledger import journal, migrate, schema, sqlite
from bridge.ledger.opening import open_ledger
from bridge.model.failure import BridgeError, InvalidError, LockedError, UnavailableError
from tests.contract.ledger.samples import StoppedClock, all_names, entry, key, operation, record, volume

CLOCK = StoppedClock()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def refused(url: str) -> BridgeError:
    with pytest.raises(BridgeError) as error:
        async with open_ledger(url, CLOCK):
            pass
    return error.value


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/deep/er/ledger.db"
    async with open_ledger(url, CLOCK) as ledger:
        booked = await ledger.add(entry())
        saved = await ledger.save(key(), record())
        done = await ledger.put_operation(operation())
        await ledger.claim("anna", "k", "digest", "first")
        await ledger.put_volume(volume())
    async with open_ledger(url, CLOCK) as ledger:
        assert await ledger.entry(key()) == booked
        assert await ledger.load(key()) == saved
        assert await ledger.operation("op-1") == done
        assert await ledger.claim("anna", "k", "digest", "second") == "first"
        assert await ledger.volumes("east") == [volume()]
        later = await ledger.save(key(), saved)
        assert int(later.version) > int(saved.version)
        assert await all_names(ledger) == ["name-u-1"]
    assert (tmp_path / "deep/er/ledger.db").stat().st_mode & 0o777 == 0o600


async def test_old_claims_are_forgotten_at_the_next_opening(tmp_path: Path) -> None:
    clock, url = StoppedClock(), f"sqlite:///{tmp_path}/ledger.db"
    async with open_ledger(url, clock) as ledger:
        await ledger.claim("anna", "k", "digest", "first")
    clock.instant += journal.CLAIM_KEPT_SECONDS - 1
    async with open_ledger(url, clock) as ledger:
        assert await ledger.claim("anna", "k", "digest", "second") == "first"
    clock.instant += 2
    async with open_ledger(url, clock) as ledger:
        assert await ledger.claim("anna", "k", "digest", "third") == "third"


async def test_a_second_opening_is_refused_until_the_first_is_over(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with open_ledger(url, CLOCK):
        error = await refused(url)
        assert isinstance(error, LockedError)
        assert "is in use by process" in str(error)
    async with open_ledger(url, CLOCK):
        pass


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    program = (
        "import asyncio, sys\n"
        "from bridge.ledger.opening import open_ledger\n"
        "from bridge.model.failure import LockedError\n"
        "from tests.contract.ledger.samples import StoppedClock\n"
        "async def main():\n"
        "    async with open_ledger(sys.argv[1], StoppedClock()): pass\n"
        "try: asyncio.run(main())\n"
        "except LockedError as error: print(error); sys.exit(11)\n"
    )
    async with open_ledger(url, CLOCK):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", program, url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 11, done.stderr
    assert "Stop that process" in done.stdout


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ledger.db",
        "/var/lib/ledger.db",
        "postgresql://anna:verysecret@db/ledger",
        "sqlite://host/ledger.db",
        "sqlite:///a?mode=ro",
        "sqlite+aiosqlite:///a.db",
        "sqlite:///a\x00b",
    ],
)
async def test_a_url_that_is_none_is_refused(url: str) -> None:
    error = await refused(url)
    assert isinstance(error, InvalidError)
    assert error.field == "service.ledger"
    assert "verysecret" not in str(error)


async def test_what_is_not_a_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, only a text that is long enough to be read as a header " * 40)
    before = file.read_bytes()
    error = await refused(f"sqlite:///{file}")
    assert "is not an SQLite database" in str(error)
    assert file.read_bytes() == before


async def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = file.read_bytes()
    error = await refused(f"sqlite:///{file}")
    assert "another program's database" in str(error)
    assert file.read_bytes() == before
    assert names(tmp_path) == ["other.db", "other.db.lock"]


async def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"")
    async with open_ledger(f"sqlite:///{tmp_path}/ledger.db", CLOCK) as ledger:
        await ledger.save(key(), record())


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    async with open_ledger(f"sqlite:///{file}", CLOCK):
        pass
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    error = await refused(f"sqlite:///{file}")
    assert "was written by a newer snapbridge (schema 9999" in str(error)


async def test_a_directory_is_no_ledger(tmp_path: Path) -> None:
    assert "cannot be opened for writing: Is a directory" in str(await refused(f"sqlite:///{tmp_path}"))


async def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be opened for writing" in str(await refused(f"sqlite:///{tmp_path}/file/ledger.db"))


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
async def test_a_read_only_disk_is_refused(small_disk: Path) -> None:
    remount(small_disk, "ro")
    error = await refused(f"sqlite:///{small_disk}/ledger.db")
    assert "Read-only file system" in str(error)
    assert "service.data_dir" in error.hint


@pytest.mark.root
async def test_a_full_disk_is_said_and_everything_acknowledged_stays(small_disk: Path) -> None:
    async with open_ledger(f"sqlite:///{small_disk}/ledger.db", CLOCK) as ledger:
        results = await asyncio.gather(
            *(ledger.save(key(f"u-{n}"), record(group="g" * 4000)) for n in range(300)), return_exceptions=True
        )
        kept = [r for r in results if not isinstance(r, BaseException)]
        full = [r for r in results if isinstance(r, UnavailableError)]
        assert kept
        assert full
        assert len(kept) + len(full) == 300
        assert "is full" in str(full[0])
        there = {saved.version for n in range(300) if (saved := await ledger.load(key(f"u-{n}")))}
        assert there == {r.version for r in kept}
        remount(small_disk, "size=8m")
        await ledger.save(key("later"), record())


async def test_a_damaged_row_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    async with open_ledger(f"sqlite:///{file}", CLOCK) as ledger:
        await ledger.save(key(), record())
        await ledger.save(key("u-2"), record())
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE records SET body = '{' WHERE key LIKE '%u-1'")
        connection.execute("UPDATE records SET body = '{\"from\": \"the future\"}' WHERE key LIKE '%u-2'")
    connection.close()
    async with open_ledger(f"sqlite:///{file}", CLOCK) as ledger:
        with pytest.raises(InvalidError, match="damaged Record"):
            await ledger.load(key())
        with pytest.raises(InvalidError, match=r"not a Record of this version \(unknown: from\)"):
            await ledger.load(key("u-2"))


async def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    for url in ("sqlite://", f"sqlite:///{tmp_path}/ledger.db"):
        async with open_ledger(url, CLOCK) as ledger:
            pass
        with pytest.raises(UnavailableError, match="closed"):
            await ledger.save(key(), record())
        with pytest.raises(UnavailableError, match="closed"):
            await ledger.load(key())


def test_the_migrations_make_what_the_code_reads() -> None:
    engine = sqlite.engine(sqlite.MEMORY)
    with engine.begin() as connection:
        migrate.upgrade(connection, "memory")
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == schema.SCHEMA_VERSION
    engine.dispose()


def test_the_newest_migration_is_the_one_that_the_code_names() -> None:
    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.SCHEMA_VERSION]


async def test_a_file_is_safe_and_the_audit_only_grows(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    async with open_ledger(f"sqlite:///{file}", CLOCK) as ledger:
        await ledger.audit("k", "verb", "who", {})
    engine = sqlite.engine(str(file))
    with engine.connect() as connection:
        pragmas = {p: connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous")}
        assert pragmas == {"journal_mode": "wal", "synchronous": 2}
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        connection.rollback()
        for statement in ("UPDATE audit SET who = 'x'", "DELETE FROM audit"):
            with pytest.raises(sa.exc.DatabaseError, match="append only"):
                connection.exec_driver_sql(statement)
            connection.rollback()
    engine.dispose()


def test_an_old_sqlite_is_warned_about() -> None:
    assert "WAL-reset" in sqlite.version_warning((3, 51, 2))
    assert sqlite.version_warning((3, 51, 3)) == ""


async def test_the_bundled_sqlite_gives_no_warning() -> None:
    async with open_ledger("sqlite://", CLOCK) as ledger:
        assert ledger.warnings() == ()


async def test_a_ledger_is_known_by_the_mark_of_an_opening(tmp_path: Path) -> None:
    """An empty one, another one and an older copy of it are not the one that had the mark."""
    own, copy, other = (tmp_path / name for name in ("own.db", "copy.db", "other.db"))
    marks = []
    for path, instant in ((own, 1000.25), (own, 2000.5), (other, 1500.0)):
        async with open_ledger(f"sqlite:///{path}", StoppedClock(instant)) as ledger:
            marks.append(await ledger.mark())
            assert await ledger.has_mark(marks[-1])
        if instant == 1000.25:
            copy.write_bytes(own.read_bytes())
    first, second, foreign = marks
    assert len(set(marks)) == 3
    for path, instant, known in (
        (own, 3000.0, [first, second]),
        (copy, 3001.0, [first]),
        (other, 3002.0, [foreign]),
        (tmp_path / "new.db", 3003.0, []),
    ):
        async with open_ledger(f"sqlite:///{path}", StoppedClock(instant)) as ledger:
            assert [mark for mark in marks if await ledger.has_mark(mark)] == known, path
            assert not await ledger.has_mark("nonsense")
    async with open_ledger("sqlite://", StoppedClock(1.0)) as ledger:
        assert await ledger.has_mark(await ledger.mark())
