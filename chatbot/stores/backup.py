"""Backup, statistics and integrity checks of a store that may be in use.

All functions block. None of them changes a file: SQLite's read transaction makes the copy consistent even while bots
write. The lock of a store that nobody uses is held for the moment.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatbot.errors import StoreError
from chatbot.stores.schema import APPLICATION_ID
from chatbot.stores.sqlite_file import StoreLock

_BUSY_SECONDS: Final = 10.0
COUNTED: Final = {
    "threads": "SELECT count(*) FROM thread WHERE owner = ? AND is_left = 0",
    "outbox": "SELECT count(*) FROM outbox WHERE owner = ?",
    "states": "SELECT count(*) FROM state WHERE owner = ?",
    "dialogs": "SELECT count(*) FROM dialog WHERE owner = ?",
    "timers": "SELECT count(*) FROM timer WHERE owner = ?",
    "dead_letters": "SELECT count(*) FROM dead_letter WHERE owner = ?",
}


@dataclass(frozen=True, slots=True)
class StoredBot:
    """Statistics of one bot in a store.

    Args:
        name: its name in bots.yaml.
        resource: the Communication Services resource of its user.
        user: its user id.
        counts: the number of rows by kind (`threads`, `outbox`, `states`, `dialogs`, `timers`, `dead_letters`).
    """

    name: str
    resource: str
    user: str
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Statistics of a store.

    Args:
        version: the version of its schema.
        bytes: the size of its file and its write-ahead log.
        bots: its bots, ordered by name.
    """

    version: int
    bytes: int
    bots: tuple[StoredBot, ...]


def back_up(file: Path, target: Path) -> int:
    """Write a consistent copy of a store as one file, and return its size in bytes.

    The copy appears under its name only when it is complete and on disk. Only its owner can read it.

    Args:
        file: the file of the store.
        target: the file to create; must not exist.

    Raises:
        StoreError: the store cannot be read, or the target exists or cannot be written.
    """
    if target.exists():
        msg = f"{target} exists already: name another file"
        raise StoreError(msg)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with _reading(file) as source, closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)  # in one step: with several, SQLite restarts after each write of a bot
            copy.execute("PRAGMA journal_mode = DELETE").fetchone()  # a single file, without a write-ahead log
        _sync(partial)  # content before name, so that a power failure cannot leave an incomplete copy under the name
        os.link(partial, target)  # unlike a rename, never replaces a file created meanwhile
        _sync(target.parent)
    except OSError as error:
        msg = f"{target} cannot be written: {error.strerror}"
        raise StoreError(msg) from None
    except sqlite3.Error as error:
        raise StoreError(_problem(file, error)) from None
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    return target.stat().st_size


def info(file: Path) -> StoreInfo:
    """Return statistics of a store by bot.

    Raises:
        StoreError: the file is not a store, or cannot be read.
    """
    try:
        with _reading(file) as connection:
            connection.execute("BEGIN")  # one snapshot for all counts
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            known = connection.execute("SELECT name, resource, user_id FROM bot ORDER BY name, resource").fetchall()
            bots = tuple(StoredBot(name, resource, user, _counts(connection, user)) for name, resource, user in known)
    except sqlite3.Error as error:
        raise StoreError(_problem(file, error)) from None
    beside = (file, file.with_name(f"{file.name}-wal"))
    return StoreInfo(int(version), sum(path.stat().st_size for path in beside if path.exists()), bots)


def snapshot(file: Path) -> bytes:
    """Return a consistent copy of a store, for `MemoryStore.restore`.

    Raises:
        StoreError: the file is not a store, or cannot be read.
    """
    try:
        with _reading(file) as source, closing(sqlite3.connect(":memory:")) as copy:
            source.backup(copy)
            content = bytearray(copy.serialize())
            # SQLite's "Database File Format": 2 here says that there is a write-ahead log, which memory has not.
            content[18:20] = b"\1\1"
            return bytes(content)
    except sqlite3.Error as error:
        raise StoreError(_problem(file, error)) from None


def problems(file: Path, *, is_quick: bool = False) -> list[str]:
    """Return the errors that SQLite finds in a store's file, one line each; empty if it is intact.

    Args:
        file: the file of the store.
        is_quick: do not compare indexes with their tables, which takes most of the time.

    Raises:
        StoreError: the file is not a store, or cannot be read.
    """
    check = "PRAGMA quick_check" if is_quick else "PRAGMA integrity_check"
    try:
        with _reading(file) as connection:
            found = [line for (line,) in connection.execute(check).fetchall()]
    except sqlite3.Error as error:
        raise StoreError(_problem(file, error)) from None
    return [] if found == ["ok"] else found


def _counts(connection: sqlite3.Connection, user: str) -> dict[str, int]:
    row = connection.execute("SELECT key FROM owner WHERE user_id = ?", (user,)).fetchone()
    if row is None:
        return dict.fromkeys(COUNTED, 0)
    return {name: int(connection.execute(query, row).fetchone()[0]) for name, query in COUNTED.items()}


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    if not file.is_file():
        msg = f"{file}: there is no such store"
        raise StoreError(msg)
    with _held_if_unused(file) as is_unused:
        # Otherwise SQLite would leave a write-ahead log and its index beside a store that nobody has open.
        mode = "mode=ro&immutable=1" if is_unused else "mode=ro"
        uri = f"{file.absolute().as_uri()}?{mode}"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA query_only = ON")
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                msg = f"{file} is not a store of chatbot: name another file"
                raise StoreError(msg)
            yield connection


@contextmanager
def _held_if_unused(file: Path) -> Iterator[bool]:
    """Yield whether no process has the store open, and keep it so meanwhile: what is immutable must not change."""
    path = file.resolve()
    log = path.with_name(f"{path.name}-wal")
    if not path.with_name(f"{path.name}.lock").exists():  # a copy that was never opened; no lock file is made for it
        yield not log.exists()
        return
    lock = StoreLock(path, timeout=0)
    try:
        lock.acquire()
    except StoreError:
        yield False
        return
    try:
        yield not log.exists()  # one that a killed process has left holds commits
    finally:
        lock.release()


def _problem(file: Path, error: sqlite3.Error) -> str:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"{file} is damaged, or not an SQLite database: restore a backup"
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return f"{file} cannot be read ({name}): check its file mode and disk"


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
