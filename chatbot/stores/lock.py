"""The lock file of a store: one process at a time. The operating system releases it when its holder dies."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from chatbot.errors import StoreError, StoreInUse


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
