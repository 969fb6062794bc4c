import sqlite3
from pathlib import Path

import pytest

from chatbot.stores.sqlite_file import SqliteFile

FILE = SqliteFile(Path("/data/bot.db"), busy_seconds=1)


@pytest.fixture
def connection(tmp_path):
    opened = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    opened.execute("CREATE TABLE x (y TEXT)")
    yield opened
    opened.close()


def test_a_full_disk_is_reported_with_its_remedy(connection):
    """SQLite's own limit raises what a full disk raises."""
    connection.execute("PRAGMA max_page_count = 3")
    with pytest.raises(sqlite3.OperationalError) as full:
        connection.execute("INSERT INTO x VALUES (?)", ("x" * 50_000,))

    assert str(FILE.explain(full.value, "write")) == (
        "cannot write the store /data/bot.db: the disk is full, or a quota is used up: free some space (SQLITE_FULL)"
    )


def test_a_file_that_became_read_only_is_reported_with_its_remedy(connection):
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError) as read_only:
        connection.execute("INSERT INTO x VALUES ('y')")

    assert str(FILE.explain(read_only.value, "write")) == (
        "cannot write the store /data/bot.db: it is read-only: let this user write the file and its directory "
        "(SQLITE_READONLY)"
    )


def test_an_error_without_a_remedy_is_reported_in_the_words_of_sqlite(connection):
    with pytest.raises(sqlite3.OperationalError) as unknown:
        connection.execute("SELECT z FROM x")

    assert str(FILE.explain(unknown.value, "read")) == (
        "cannot read the store /data/bot.db: no such column: z (SQLITE_ERROR)"
    )
