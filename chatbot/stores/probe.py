"""Check whether a store can be opened and written, without opening, creating or changing it.

Everything here blocks.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatbot.errors import StoreError, StoreInUse
from chatbot.stores.schema import APPLICATION_ID, MIGRATIONS
from chatbot.stores.sqlite_file import StoreLock, hard_linked
from chatbot.stores.url import file_of, open_store, server_of

NEEDED_BYTES: Final = 100 * 1024 * 1024
"""How much of a disk should be free: the write-ahead log grows to 64 MB before it is worked into the file."""

# Where the header of an SQLite file says what it is (SQLite's documentation, "Database File Format").
_MAGIC: Final = b"SQLite format 3\0"
_VERSION, _APPLICATION, _HEADER = 60, 68, 100


@dataclass(frozen=True, slots=True)
class StoreProbe:
    """The result of a check.

    Args:
        file: the file; None for a store in memory.
        exists: whether the file exists; otherwise it is created at the first start.
        version: the schema version; None if the file does not have it, because it is new or its log holds it.
        owner: the uid of the file's owner, if that is another user.
        is_open_to_others: users other than the owner may read or write it.
        in_use: which process has it open; None if none has.
        free_bytes: free space of its disk; None if unknown.
        problem: why it cannot be used, and the remedy; None if it can.
        size: its size in bytes, without the write-ahead log.
        server: the server and database, for a store on PostgreSQL.
        is_verified: the server of the store proves who it is, or is this machine.
        replicas: how many processes share it now.
        notice: what could not be checked about the server, and how to make that possible; None if all was.
        can_be_shared: its tables have what processes need to share it, or will when they are created.
    """

    file: Path | None = None
    exists: bool = False
    version: int | None = None
    owner: int | None = None
    is_open_to_others: bool = False
    in_use: str | None = None
    free_bytes: int | None = None
    problem: str | None = None
    size: int = 0
    server: str | None = None
    is_verified: bool = True
    replicas: int = 0
    notice: str | None = None
    can_be_shared: bool = True

    @property
    def place(self) -> str | None:
        """The file, or the server and database; None for a store in memory."""
        return self.server or (None if self.file is None else str(self.file))

    @property
    def is_outdated(self) -> bool:
        """Its tables are of an older version, and are brought up to date when it is opened."""
        return self.version is not None and (self.version < len(MIGRATIONS) or not self.can_be_shared)

    @property
    def can_be_read(self) -> bool:
        """It can be opened without a trace: no migration of its tables, and no files of another user."""
        obstacles = (self.problem, self.in_use, self.owner)
        return self.exists and not self.is_outdated and all(obstacle is None for obstacle in obstacles)


def probe_store(url: str, *, base_dir: Path) -> StoreProbe:
    """Check the store of a URL.

    Args:
        url: see `open_store`.
        base_dir: see there.

    Raises:
        ConfigError: the URL is not supported.
    """
    open_store(url, base_dir=base_dir)  # raises for an invalid URL; opens nothing
    server = server_of(url, base_dir=base_dir)
    if server is not None:
        # imported here, so that commands on SQLite do not load it
        from chatbot.stores.postgres_reading import probe

        return StoreProbe(server=str(server), is_verified=server.is_verified, **probe(server))
    named = file_of(url, base_dir=base_dir)
    if named is None:
        return StoreProbe()
    file = named.absolute().resolve()
    try:
        return _probe_file(file)
    except OSError as error:
        return StoreProbe(file, problem=f"{error.filename or file}: {error.strerror}; let this user read and write it")


def _probe_file(file: Path) -> StoreProbe:
    exists = file.exists()
    version, problem = _read(file) if exists else (None, None)
    owner = file.stat().st_uid if exists and os.name == "posix" else None
    return StoreProbe(
        file=file,
        exists=exists,
        version=version,
        owner=None if owner is None or owner == os.geteuid() else owner,
        is_open_to_others=exists and os.name == "posix" and bool(file.stat().st_mode & 0o077),
        in_use=_holder(file) if exists else None,
        size=file.stat().st_size if exists else 0,
        free_bytes=shutil.disk_usage(file.parent).free if file.parent.is_dir() else None,
        problem=_unusable(file) or problem,
    )


def has_access(path: Path, mode: int) -> bool:
    """Return whether this process, as its current user, has access to a file.

    Args:
        mode: as for `os.access`.
    """
    return os.access(path, mode, effective_ids=os.name == "posix")


def _unusable(file: Path) -> str | None:
    directory = file.parent
    if not directory.is_dir():
        return f"its directory {directory} is not there: create it, or name another file"
    if file.is_dir():
        return f"{file} is a directory: name a file in it"
    if os.name == "posix" and file.exists() and (names := file.stat().st_nlink) > 1:
        return hard_linked(file, names)
    if not has_access(directory, os.W_OK | os.X_OK):
        return f"this user cannot write its directory {directory}, in which its log and lock files are created"
    beside = (file.with_name(f"{file.name}{suffix}") for suffix in ("", "-wal", "-shm", ".lock"))
    locked = [path.name for path in beside if path.exists() and not has_access(path, os.R_OK | os.W_OK)]
    return (
        f"this user may not read and write {', '.join(locked)} in {directory}: correct the rights" if locked else None
    )


def _read(file: Path) -> tuple[int | None, str | None]:
    """Return the version in the file's header, and the problem with it, if any."""
    if not file.is_file() or not has_access(file, os.R_OK):
        return None, None
    with file.open("rb") as content:
        header = content.read(_HEADER)
    if not header:
        return None, None
    if not header.startswith(_MAGIC) or len(header) < _HEADER:
        return None, f"{file} is not an SQLite database, or it is damaged: restore a backup, or name another file"
    version = int.from_bytes(header[_VERSION : _VERSION + 4])
    application = int.from_bytes(header[_APPLICATION : _APPLICATION + 4])
    if version > len(MIGRATIONS):
        newest = f"this chatbot knows up to {len(MIGRATIONS)}"
        return version, f"it has version {version}, and {newest}: run a newer chatbot, or name another file"
    if application != APPLICATION_ID and (version or application):
        return None, f"{file} is another program's SQLite database: name another file"
    return version or None, None


def _holder(file: Path) -> str | None:
    """Return which process has the store open; does not create a lock file."""
    if not file.with_name(f"{file.name}.lock").exists():
        return None
    lock = StoreLock(file, timeout=0)
    try:
        lock.acquire()
    except StoreInUse as error:
        return str(error)
    except StoreError:
        return None  # problems with rights are reported elsewhere, with the files' names
    lock.release()
    return None
