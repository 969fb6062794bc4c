import re
import sqlite3

import pytest

from chatbot.errors import StoreError, StoreTooNew
from chatbot.stores.postgres_dialect import OLDEST_USER
from chatbot.stores.schema import APPLICATION_ID, MIGRATIONS, migrate

FIRST = (("CREATE TABLE colour (name TEXT)", "INSERT INTO colour VALUES ('red')"),)
SECOND = (*FIRST, ("ALTER TABLE colour ADD COLUMN shade TEXT", "UPDATE colour SET shade = 'dark ' || name"))


@pytest.fixture
def connection(tmp_path):
    opened = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    yield opened
    opened.close()


def version(connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def test_a_new_file_gets_all_tables_and_says_whose_it_is(connection, tmp_path):
    migrate(connection, tmp_path)

    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables >= {"bot", "thread", "seen", "outbox", "dead_letter", "attempt"}
    assert version(connection) == len(MIGRATIONS)
    assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID


def test_a_file_that_is_up_to_date_is_left_alone(connection, tmp_path):
    migrate(connection, tmp_path)
    before = connection.total_changes

    migrate(connection, tmp_path)

    assert connection.total_changes == before


def test_an_older_file_keeps_its_rows_and_gets_what_is_new(connection, tmp_path):
    migrate(connection, tmp_path, FIRST)
    connection.execute("INSERT INTO colour VALUES ('blue')")

    migrate(connection, tmp_path, SECOND)

    assert version(connection) == 2
    assert connection.execute("SELECT * FROM colour").fetchall() == [("red", "dark red"), ("blue", "dark blue")]


def test_a_migration_that_fails_leaves_the_file_as_it_was(connection, tmp_path):
    migrate(connection, tmp_path, FIRST)

    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, tmp_path, (*SECOND, ("CREATE TABLE colour (again TEXT)",)))

    assert version(connection) == 1
    assert connection.execute("SELECT * FROM colour").fetchall() == [("red",)]


def test_a_file_of_a_newer_chatbot_is_refused_with_both_versions(connection, tmp_path):
    migrate(connection, tmp_path, SECOND)

    with pytest.raises(StoreTooNew, match=r"has version 2 of the store, and this chatbot knows up to 1: run a newer"):
        migrate(connection, tmp_path, FIRST)


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE album (name TEXT)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"]
)
def test_another_programs_database_is_not_touched(connection, tmp_path, statement):
    connection.execute(statement)

    with pytest.raises(StoreError, match="is another program's SQLite database, not a chatbot store"):
        migrate(connection, tmp_path)

    assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'outbox'").fetchone() is None


def test_what_processes_of_two_releases_use_together_is_only_extended() -> None:
    """A process of the version `OLDEST_USER` goes on with tables that a newer one has migrated beside it."""
    assert len(MIGRATIONS) >= OLDEST_USER
    for text in (text.strip() for entry in MIGRATIONS[OLDEST_USER:] for text in entry):
        assert re.match(r"(CREATE (TABLE|INDEX)|ALTER TABLE \w+ ADD COLUMN) ", text), text
        assert text.startswith("CREATE") or "NOT NULL" not in text or "DEFAULT" in text, text
