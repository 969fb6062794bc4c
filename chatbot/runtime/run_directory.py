"""The directory `.chatbot/` next to bots.yaml: the run file, the lock, and facts that commands and daemons store.

One daemon at a time can hold it. Its files give access to the service, so only its owner can read it (0700, files
0600).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chatbot.errors import StateError, StoreError, StoreInUse

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from filelock import FileLock  # imported where it is used: `chatbot status` must answer at once

    from chatbot.model import ThreadId, UserId

DIRECTORY_NAME: Final = ".chatbot"

_UNFOLLOWED: Final = getattr(os, "O_NOFOLLOW", 0)
"""Root must not follow a link that the directory's owner has made."""

_PATH_ONLY: Final[int | None] = getattr(os, "O_PATH", None)
"""This flag can open sockets, too. Only Linux has it, where services start as root."""


@dataclass(frozen=True, slots=True)
class RunningBot:
    """A bot, for commands."""

    name: str
    user_id: UserId
    display_name: str


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a running daemon publishes for other processes of the same user.

    Args:
        endpoint: the URL of the service for this machine; http on loopback for the emulator.
        connection_string: includes the key; None if the daemon has no key.
        ca_file: the authority that signed the service's certificate; None if the system trusts it.
        lobby: a thread with all bots; None if there is none.
        resource: identifies the resource of the service; stays the same over restarts.
    """

    pid: int
    endpoint: str
    connection_string: str | None = field(repr=False)
    resource: str
    ca_file: str | None = None
    bots: tuple[RunningBot, ...] = ()
    lobby: ThreadId | None = None


class ControlDirectory:
    """Reads and writes `.chatbot/`, which is created by the first write.

    Args:
        directory: the directory of bots.yaml.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / DIRECTORY_NAME

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the directory while the block runs, as its only daemon; delete the run file at the end.

        Raises:
            StoreInUse: another daemon runs.
            StoreError: the directory cannot be created or written.
        """
        from filelock import Timeout

        self._make()
        lock = self._lock(
            timeout=0.5
        )  # long enough for a command that holds the lock for a moment to see whether bots run
        try:
            lock.acquire()
        except Timeout:
            other = self._read_run()
            process = f"process {other.pid}" if other else "another process"
            message = f"{self.path}: {process} already runs the bots of this directory; stop it first"
            raise StoreInUse(message) from None
        except OSError as error:
            raise self._unusable(error) from error
        try:
            yield
        finally:
            self._run_file.unlink(missing_ok=True)
            lock.release()

    def publish(self, info: RunInfo) -> None:
        """Write the run file, by which other processes find the daemon. Only inside `hold`."""
        self._write(self._run_file, asdict(info))

    def running(self) -> RunInfo:
        """Return what the running daemon published.

        Raises:
            StateError: no daemon runs here, or it is not ready. The run file of a killed daemon is ignored.
        """
        info = self._read_run()
        if info is None or not self._is_held():
            message = f"no bots run in {self.path.parent}; start them with `chatbot run` in another terminal"
            raise StateError(message)
        return info

    @property
    def is_held(self) -> bool:
        """Whether a daemon runs here, ready or not."""
        return self.path.is_dir() and self._is_held()

    def read_facts(self, name: str) -> dict[str, Any]:
        """Return what `write_facts` stored under this name; empty if nothing."""
        try:
            kept = json.loads((self.path / f"{name}.json").read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise self._unusable(error) from error
        except ValueError as error:
            message = f"{self.path / name}.json: the file is damaged: {error}; move it elsewhere"
            raise StoreError(message) from error
        return kept if isinstance(kept, dict) else {}

    def write_facts(self, name: str, facts: dict[str, Any]) -> None:
        """Store facts in a file of this name."""
        self._make()
        self._write(self.path / f"{name}.json", facts)

    def delete_facts(self, name: str) -> None:
        (self.path / f"{name}.json").unlink(missing_ok=True)

    def adopt(self, *files: Path) -> None:
        """Give files and sockets that root has created to the owner of their directory. Missing ones are skipped.

        Links are not followed. A file with a second hard link is skipped, because it may belong to the system.
        """
        if _PATH_ONLY is None or os.geteuid() != 0:
            return
        for file in files:
            with suppress(OSError):  # missing, or deleted meanwhile
                descriptor = os.open(file, _PATH_ONLY | _UNFOLLOWED)
                try:
                    made, owner = os.fstat(descriptor), file.parent.stat()
                    if made.st_uid == 0 and made.st_nlink == 1:
                        # By the descriptor, because the name may lead to something else by now.
                        os.chown(f"/proc/self/fd/{descriptor}", owner.st_uid, owner.st_gid)
                finally:
                    os.close(descriptor)

    @property
    def _run_file(self) -> Path:
        return self.path / "run.json"

    def _make(self) -> None:
        try:
            try:
                self.path.mkdir(mode=0o700)
            except FileExistsError:
                pass
            else:
                self._give_to_owner(os.open(self.path, os.O_RDONLY | _UNFOLLOWED), self.path.parent)
            self.path.chmod(0o700)
        except OSError as error:
            raise self._unusable(error) from error

    def _give_to_owner(self, descriptor: int, like: Path) -> None:
        """Give what root has just created to the owner of a path, and close the descriptor.

        Commands of root must leave nothing that the service's own user cannot read or write.
        """
        try:
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                owner = like.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)

    def _lock(self, *, timeout: float) -> FileLock:
        with suppress(OSError):  # exists already; other errors come up when the lock is taken
            new = os.O_RDWR | os.O_CREAT | os.O_EXCL | _UNFOLLOWED
            self._give_to_owner(os.open(self.path / "run.lock", new, 0o600), self.path)
        from filelock import FileLock

        return FileLock(self.path / "run.lock", timeout=timeout, mode=0o600)

    def _is_held(self) -> bool:
        """Return whether a running process holds the directory. A lock ends with its process; a pid may be reused."""
        if fcntl is not None:
            return self._is_locked()
        from filelock import Timeout

        lock = self._lock(timeout=0)
        try:
            with lock:
                return False
        except Timeout:
            return True
        except OSError as error:
            raise self._unusable(error) from error

    def _is_locked(self) -> bool:
        """Return what `FileLock` would, without its import, which takes longer than the rest of a command.

        The lock is shared, so that commands that ask at the same time do not take each other for a daemon.
        """
        assert fcntl is not None
        try:
            descriptor = os.open(self.path / "run.lock", os.O_RDWR | _UNFOLLOWED)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            os.close(descriptor)
        return False

    def _read_run(self) -> RunInfo | None:
        facts = self.read_facts("run")
        try:
            bots = tuple(RunningBot(**bot) for bot in facts.pop("bots"))
            return RunInfo(**facts, bots=bots)
        except (KeyError, TypeError):  # missing, or written by another version
            return None

    def _write(self, file: Path, facts: dict[str, Any]) -> None:
        """Replace a file atomically: readers see the old or the new content."""
        beside = file.with_suffix(f".{os.getpid()}.new")
        try:
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _UNFOLLOWED, 0o600)
            with open(descriptor, "w", encoding="utf-8") as out:
                json.dump(facts, out, indent=2)
                out.flush()
                self._give_to_owner(os.dup(descriptor), self.path)
            beside.replace(file)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        file = error.filename or self.path
        remedy = f"give it to the user that runs the bots: chown -R USER {self.path}"
        return StoreError(f"{file}: cannot be used: {error.strerror}; {remedy}")
