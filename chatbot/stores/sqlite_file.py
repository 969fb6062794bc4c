"""The SQLite file: creation with private permissions, its lock, connections, and error messages with a remedy.

All functions block: call them from worker threads only. The lock lets one process use the store at a time; the
operating system releases it when its holder dies.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from chatbot.errors import StoreError, StoreInUse
from chatbot.stores.schema import migrate

CACHE_KIB: Final = 4_096
"""Page cache of the writing connection in KiB; four times as much did not make commits faster."""

READING_CACHE_KIB: Final = 1_024
"""Page cache of each reading connection in KiB; small, as reads fetch single rows and the system caches the file."""

CHECKPOINT_PAGES: Final = 8_000
"""The size of the write-ahead log in pages (about 32 MB) at which it is checkpointed into the file.

Pages that many threads change repeatedly are then written once. This takes a third less time per commit than SQLite's
default of 1,000 pages.
"""

CHECKPOINT_SECONDS: Final = 60.0
"""How old the file alone may be while bots write: a copy without its write-ahead log is then not far behind."""

LOG_BYTES: Final = 64 * 1024 * 1024
"""The size to which the write-ahead log is truncated after a huge commit."""

_OWNER_ONLY: Final = 0o600

_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "the disk is full, or a quota is used up: free some space",
    sqlite3.SQLITE_READONLY: "it is read-only: let this user write the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: let this user read and write the file and its directory",
    sqlite3.SQLITE_PERM: "it may not be opened: let this user read and write the file and its directory",
    sqlite3.SQLITE_CORRUPT: "it is damaged: stop, and restore a backup (or try `sqlite3 FILE .recover`)",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database, or it is damaged: restore a backup, or name another file",
    sqlite3.SQLITE_BUSY: "another program has locked it: end that program",
    sqlite3.SQLITE_LOCKED: "another program has locked it: end that program",
    sqlite3.SQLITE_IOERR: "the disk refused: look for a full, failing or disconnected disk",
    sqlite3.SQLITE_NOMEM: "the process is out of memory",
}


class SqliteFile:
    """One database file.

    Args:
        path: absolute.
        busy_seconds: how long another program may lock the file before a statement fails.
    """

    def __init__(self, path: Path, *, busy_seconds: float) -> None:
        self.path = path
        self._busy_seconds = busy_seconds
        self._identity: tuple[int, int] | None = None

    def find(self) -> None:
        """Resolve links, so that the file has one lock under all its names, and check its directory.

        Raises:
            StoreError: the directory does not exist, or the path is a directory.
        """
        self.path = self.path.resolve()
        if not self.path.parent.is_dir():
            msg = f"the store {self.path} has no directory: create {self.path.parent}, or name another file"
            raise StoreError(msg)
        if self.path.is_dir():
            msg = f"the store {self.path} is a directory: name a file in it"
            raise StoreError(msg)

    def prepare(self) -> sqlite3.Connection:
        """Create the file if it is missing, migrate its tables, and restrict all its files to their owner.

        Returns:
            A connection for writing.

        Raises:
            StoreError: the file cannot be used; the text gives the reason and a remedy.
        """
        try:
            self._create()
            connection = self.connect()
        except OSError as error:
            msg = f"cannot open the store {self.path}: {error.strerror}: let this user read and write it"
            raise StoreError(msg) from error
        try:
            migrate(connection, self.path)
        except sqlite3.Error as error:
            connection.close()
            raise self.explain(error, "open") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self, *, for_reading: bool = False) -> sqlite3.Connection:
        """Open the existing file in autocommit mode; the connection may be passed from thread to thread.

        Raises:
            StoreError: the file cannot be opened.
        """
        try:
            connection = sqlite3.connect(
                f"{self.path.as_uri()}?mode=rw",
                uri=True,
                timeout=self._busy_seconds,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self.explain(error, "open") from error
        try:
            _configure(connection, for_reading=for_reading)
        except sqlite3.Error as error:
            connection.close()
            raise self.explain(error, "open") from error
        return connection

    def check_in_place(self) -> None:
        """Check that the file is still in place: writes to a deleted file are lost when the last process closes it.

        Raises:
            StoreError: the file was moved, deleted or replaced.
        """
        if self._identify() != self._identity:
            msg = (
                f"the store {self.path} was moved, deleted or replaced while in use: "
                "put the same file back, or restart with the new one"
            )
            raise StoreError(msg)

    def empty_log(self) -> None:
        """Move the contents of the write-ahead log into the file, and truncate the log.

        Raises:
            StoreError: another program is reading the file, which prevents truncation.
        """
        connection = self.connect()
        try:
            is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as error:
            raise self.explain(error, "write") from error
        finally:
            connection.close()
        if is_busy:
            msg = f"the store {self.path} keeps its log while another program reads it: end that program, then repeat"
            raise StoreError(msg)

    def explain(self, error: Exception, doing: str) -> StoreError:
        """Return an error that states in one sentence what happened and what to do.

        Args:
            error: the exception of SQLite.
            doing: "open", "read" or "write".
        """
        code: int | None = getattr(error, "sqlite_errorcode", None)
        remedy = None if code is None else _REMEDIES.get(code & 0xFF)
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return StoreError(f"cannot {doing} the store {self.path}: {remedy or error} ({name})")

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        """Copy the write-ahead log into the file, as far as readers allow, so that a copy of the file alone is recent.

        A failure is not reported: the log still has everything, and the next write meets the same fault.
        """
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def _create(self) -> None:
        is_new = create_for_owner(self.path)
        self._refuse_hard_links()
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError, PermissionError):
                restrict_to_owner(self.path.with_name(self.path.name + suffix))
        if is_new:
            _sync_directory(self.path.parent)
        self._identity = self._identify()

    def _refuse_hard_links(self) -> None:
        """Refuse a file with several names: lock and write-ahead log belong to a name, and two would damage the file.

        Raises:
            StoreError: it has several names.
        """
        if os.name == "posix" and (names := os.stat(self.path).st_nlink) > 1:
            raise StoreError(hard_linked(self.path, names))

    def _identify(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def hard_linked(path: Path, names: int) -> str:
    """Return the problem of a store whose file has several names, and its remedy."""
    return (
        f"the store {path} has {names} hard links, and another process may use it by another name: "
        f"make it a file of its own (cp {path.name} copy && mv copy {path.name}), or delete the other names"
    )


def create_for_owner(path: Path) -> bool:
    """Create an empty file that only its owner can read, unless it exists; return whether it was created.

    What root creates is given to the owner of the directory: the service's own user must be able to use it later.
    SQLite gives the files beside its database to the database's owner itself.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError:
        os.close(os.open(path, os.O_RDWR))  # says now whether this user may write it
        return False
    try:
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)
    return True


def restrict_to_owner(path: Path) -> None:
    """Restrict access to a file to its owner."""
    if os.name == "posix" and path.stat().st_mode & 0o077:
        path.chmod(_OWNER_ONLY)


def _configure(connection: sqlite3.Connection, *, for_reading: bool) -> None:
    if for_reading:
        connection.execute(f"PRAGMA cache_size = -{READING_CACHE_KIB}")
        connection.execute("PRAGMA query_only = ON")
        return
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        msg = f"journal mode {mode}: its file system has no shared memory; use a local disk"
        raise sqlite3.OperationalError(msg)
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    connection.execute("PRAGMA synchronous = FULL")  # an acknowledged commit survives a power failure
    connection.execute("PRAGMA secure_delete = ON")  # erased data is overwritten in free pages


def _sync_directory(directory: Path) -> None:
    """Make the name of a new file durable; not needed on systems where directories cannot be opened."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class StoreLock:
    """`<file>.lock`, which contains the pid of its holder. The methods block: call them from worker threads.

    Args:
        store: the file of the store.
        patience: seconds to wait for the lock; the default outlasts a process that only checks who holds it.
    """

    def __init__(self, store: Path, *, timeout: float = 0.5) -> None:
        self._store = store
        self._path = store.with_name(store.name + ".lock")
        # not thread-local: acquired in one worker thread and released in another
        self._lock = FileLock(self._path, timeout=timeout, mode=0o600, thread_local=False)

    def acquire(self) -> None:
        """Acquire the lock.

        Raises:
            StoreInUse: another process holds it, or another store object of this process.
            StoreError: the lock file cannot be created.
        """
        try:
            create_for_owner(self._path)
            self._lock.acquire()
        except Timeout as error:
            msg = f"the store {self._store} is in use by {self._holder()}: stop that one first, or name another file"
            raise StoreInUse(msg) from error
        except OSError as error:
            msg = f"cannot lock the store: {self._path}: {error.strerror}: let this user write {self._path.parent}"
            raise StoreError(msg) from error
        with suppress(OSError):  # the pid is informational only
            self._path.write_text(f"{os.getpid()}\n")

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def _holder(self) -> str:
        try:
            pid = int(self._path.read_text())
        except (OSError, ValueError):
            return "another process"
        return "this process already" if pid == os.getpid() else f"another process (pid {pid})"
