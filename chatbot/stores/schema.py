"""Schema and migrations of all stores. Only append to `MIGRATIONS`: existing stores have run its entries.

The texts are SQLite's; `postgres_dialect` translates them. An entry expands: it adds tables, or columns that are
nullable or have a default, which the release before it does not read. A later release fills and uses them. What no
supported release uses is removed (contracted) last, in an entry of its own, which raises `OLDEST_USER` of
`postgres_dialect`: until then, processes of both releases use one store on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatbot.errors import StoreError, StoreTooNew

if TYPE_CHECKING:
    import sqlite3

APPLICATION_ID: Final = int.from_bytes(b"chbt")
"""Distinguishes chatbot's files from SQLite files of other programs (`PRAGMA application_id`)."""

_FIRST: Final = (
    """CREATE TABLE IF NOT EXISTS bot (
        name TEXT NOT NULL,
        resource TEXT NOT NULL,
        user_id TEXT NOT NULL,
        first_started_ms BIGINT NOT NULL,
        PRIMARY KEY (name, resource)
    )""",
    """CREATE TABLE IF NOT EXISTS owner (
        key INTEGER PRIMARY KEY,
        user_id TEXT NOT NULL UNIQUE
    )""",
    """CREATE TABLE IF NOT EXISTS thread (
        key INTEGER PRIMARY KEY,
        owner BIGINT NOT NULL,
        id TEXT NOT NULL,
        floor BIGINT NOT NULL,
        base BIGINT NOT NULL,
        is_left SMALLINT NOT NULL,
        receipt_due BIGINT,
        receipt_sent BIGINT,
        UNIQUE (owner, id)
    )""",
    """CREATE TABLE IF NOT EXISTS seen (
        thread BIGINT NOT NULL,
        message BIGINT NOT NULL,
        version BIGINT NOT NULL,
        PRIMARY KEY (thread, message)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS outbox (
        position INTEGER PRIMARY KEY,
        owner BIGINT NOT NULL,
        key TEXT NOT NULL,
        thread TEXT NOT NULL,
        action TEXT NOT NULL,
        after BIGINT NOT NULL,
        created_ms BIGINT NOT NULL,
        status TEXT NOT NULL,
        message TEXT,
        reason TEXT,
        caused_by TEXT,
        UNIQUE (owner, key)
    )""",
    """CREATE TABLE IF NOT EXISTS dead_letter (
        owner BIGINT NOT NULL,
        id TEXT NOT NULL,
        event TEXT NOT NULL,
        handler TEXT NOT NULL,
        error TEXT NOT NULL,
        attempts BIGINT NOT NULL,
        died_ms BIGINT NOT NULL,
        is_revived SMALLINT NOT NULL,
        PRIMARY KEY (owner, id)
    )""",
    """CREATE TABLE IF NOT EXISTS attempt (
        owner BIGINT NOT NULL,
        thread TEXT NOT NULL,
        event_key TEXT NOT NULL,
        tries BIGINT NOT NULL,
        PRIMARY KEY (owner, thread)
    )""",
    """CREATE TABLE IF NOT EXISTS state (
        owner BIGINT NOT NULL,
        thread TEXT NOT NULL,
        person TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        version BIGINT NOT NULL,
        PRIMARY KEY (owner, thread, person, name)
    )""",
    """CREATE TABLE IF NOT EXISTS dialog (
        owner BIGINT NOT NULL,
        id TEXT NOT NULL,
        thread TEXT NOT NULL,
        person TEXT NOT NULL,
        handler TEXT NOT NULL,
        event TEXT NOT NULL,
        journal TEXT NOT NULL,
        event_key TEXT NOT NULL,
        is_waiting SMALLINT NOT NULL,
        deadline_ms BIGINT,
        changed_ms BIGINT NOT NULL,
        PRIMARY KEY (owner, id)
    )""",
    """CREATE TABLE IF NOT EXISTS timer (
        owner BIGINT NOT NULL,
        id TEXT NOT NULL,
        handler TEXT NOT NULL,
        due_ms BIGINT NOT NULL,
        thread TEXT NOT NULL,
        payload TEXT NOT NULL,
        caused_by TEXT NOT NULL,
        PRIMARY KEY (owner, id)
    )""",
    """CREATE TABLE IF NOT EXISTS result (
        owner BIGINT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        created_ms BIGINT NOT NULL,
        PRIMARY KEY (owner, key)
    )""",
    "CREATE TABLE IF NOT EXISTS holder (pid BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS outbox_pending ON outbox (owner) WHERE status = 'pending'",
    "CREATE INDEX IF NOT EXISTS outbox_settled ON outbox (owner, created_ms) WHERE status <> 'pending'",
)
"""The tables of version 1.

Before the first release, tables were added to version 1 itself: files of that time say version 1 and lack some. So the
statements create only what is missing, and are run once more for a file of version 1.
"""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    _FIRST,
    (*_FIRST, "ALTER TABLE owner ADD COLUMN horizon_ms BIGINT"),
    (
        "ALTER TABLE holder ADD COLUMN is_stopping SMALLINT NOT NULL DEFAULT 0",
        "ALTER TABLE attempt ADD COLUMN cuts BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE attempt ADD COLUMN progress SMALLINT NOT NULL DEFAULT 0",
    ),
    (
        "ALTER TABLE dead_letter ADD COLUMN caused_by TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE result ADD COLUMN caused_by TEXT NOT NULL DEFAULT ''",
    ),
    ("ALTER TABLE attempt ADD COLUMN handler TEXT NOT NULL DEFAULT ''",),
    (
        "ALTER TABLE thread ADD COLUMN left_ms BIGINT",
        "ALTER TABLE thread ADD COLUMN arrived BIGINT",
        "ALTER TABLE outbox ADD COLUMN after_failure SMALLINT NOT NULL DEFAULT 0",
    ),
    (
        "ALTER TABLE bot ADD COLUMN paused_ms BIGINT",
        "ALTER TABLE bot ADD COLUMN is_skipping SMALLINT NOT NULL DEFAULT 0",
    ),
    ("ALTER TABLE bot ADD COLUMN is_retired SMALLINT NOT NULL DEFAULT 0",),
)
"""The statements that migrate from each schema version to the next; the first entry creates version 1.

A bot's user id is long, so it is stored once, in `owner`: with narrow rows and indexes, commits of many threads change
few pages.
"""


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Apply all missing migrations in one transaction; a new file gets all of them.

    Args:
        connection: a connection in autocommit mode.
        path: the file, for errors.
        migrations: the migrations, see `MIGRATIONS`.

    Raises:
        StoreTooNew: the file has a newer schema version than this chatbot supports.
        StoreError: the file belongs to another program.
    """
    version = _number(connection, "user_version")
    if version > len(migrations):
        msg = (
            f"{path} has version {version} of the store, and this chatbot knows up to {len(migrations)}: "
            "run a newer chatbot, or name another file"
        )
        raise StoreTooNew(msg)
    if not _is_ours(connection, version):
        msg = f"{path} is another program's SQLite database, not a chatbot store: name another file"
        raise StoreError(msg)
    if version < len(migrations):
        _apply(connection, migrations, version)


def _apply(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]], version: int) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    try:
        for migration in migrations[version:]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_ours(connection: sqlite3.Connection, version: int) -> bool:
    application = _number(connection, "application_id")
    if application or version:
        return application == APPLICATION_ID
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
