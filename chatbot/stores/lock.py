"""The lock beside a store's file: one process at a time. The operating system frees it when its holder dies."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from chatbot.errors import StoreError, StoreInUse


class StoreLock:
    """`<file>.lock`, with the pid of its holder in it. Its methods block: call them from worker threads.

    Args:
        store: the file.
        patience: seconds to wait for the lock; by default long enough for someone who only looks who has it.
    """

    def __init__(self, store: Path, *, patience: float = 0.5) -> None:
        self._store = store
        self._path = store.with_name(store.name + ".lock")
        # not thread-local: it is taken in one worker thread and given back in another
        self._lock = FileLock(self._path, timeout=patience, mode=0o600, thread_local=False)

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StoreInUse: another process has it, or another store object of this one.
            StoreError: the lock file cannot be made.
        """
        try:
            self._lock.acquire()
        except Timeout as error:
            msg = f"the store {self._store} is in use by {self._holder()}: stop that one first, or name another file"
            raise StoreInUse(msg) from error
        except OSError as error:
            msg = f"cannot lock the store: {self._path}: {error.strerror}: let this user write {self._path.parent}"
            raise StoreError(msg) from error
        with suppress(OSError):  # the pid is a courtesy
            self._path.write_text(f"{os.getpid()}\n")

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def _holder(self) -> str:
        try:
            pid = int(self._path.read_text())
        except (OSError, ValueError):
            return "another process"
        return "this process already" if pid == os.getpid() else f"another process (pid {pid})"
