"""Store URLs: the values of `store:` in bots.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from chatbot.errors import ConfigError
from chatbot.stores.base import Store
from chatbot.stores.memory import MemoryStore
from chatbot.stores.postgres_url import SCHEMES, PostgresUrl
from chatbot.stores.sqlite import SqliteStore

FORMS: Final = 'sqlite:///FILE, postgresql://USER@HOST/DATABASE or "memory:"'
"""The supported URL forms, for error messages."""


def open_store(
    url: str, *, base_dir: Path, is_shared: bool = False, share: float | None = None, asks: bool = False
) -> Store:
    """Return the store of a URL. Nothing is read or created until it is entered with `async with`.

    Args:
        url: `memory:`, or `sqlite:///` and a path: `sqlite:///chatbot.db` is relative to `base_dir`;
            `sqlite:////var/lib/chatbot.db` and `sqlite:///C:/chatbot.db` are absolute. `postgresql://` is described
            in `PostgresUrl`.
        base_dir: the base of relative paths: the directory of bots.yaml.
        is_shared: on PostgreSQL, use the store together with other processes, as a `SharedStore`. A file has one user.
        share: the largest share of all shards that this process takes then, 0 to 1; None is without limit.
        asks: offer free shards (`ShardsOffered`) before they are claimed.

    Raises:
        ConfigError: the URL is not supported.
    """
    return _open(url, base_dir, is_between_runs=False, is_shared=is_shared, share=share, asks=asks)


def open_between_runs(url: str, *, base_dir: Path) -> Store | None:
    """Return the store of a URL for inspection or a small change, or None if it does not exist yet.

    A store in a file is opened between two runs. One on PostgreSQL may be opened beside processes that share it, and is
    created when it is entered, if it does not exist: only the server knows.

    Args:
        url: see `open_store`.
        base_dir: see there.

    Raises:
        ConfigError: the URL is not supported.
    """
    if server_of(url, base_dir=base_dir) is not None:
        return _open(url, base_dir, is_between_runs=True, is_shared=True)
    file = file_of(url, base_dir=base_dir)
    return _open(url, base_dir, is_between_runs=True) if file is not None and file.exists() else None


def file_of(url: str, *, base_dir: Path) -> Path | None:
    """Return the file of a store, or None for a store in memory or on a server.

    Args:
        url: see `open_store`.
        base_dir: see there.

    Raises:
        ConfigError: the URL is not supported.
    """
    scheme, _, rest = url.partition(":")
    return base_dir / _path(url, rest) if scheme == "sqlite" else None


def server_of(url: str, *, base_dir: Path) -> PostgresUrl | None:
    """Return the server and database of a store, or None for a store in memory or in a file.

    Args:
        url: see `open_store`.
        base_dir: see there.

    Raises:
        ConfigError: the URL is not supported.
    """
    return PostgresUrl.parse(url, base_dir) if url.partition(":")[0] in SCHEMES else None


def is_in_memory(url: str) -> bool:
    """Return whether a store ends with its process."""
    return url.partition(":")[0] == "memory"


def _open(
    url: str,
    base_dir: Path,
    *,
    is_between_runs: bool,
    is_shared: bool = False,
    share: float | None = None,
    asks: bool = False,
) -> Store:
    scheme, colon, rest = url.partition(":")
    if not colon:
        problem = f"{url!r} is not a store URL: expected {FORMS} (for a file of this name: {'sqlite:///' + url!r})"
        raise ConfigError(problem)
    if scheme == "memory":
        return _memory(rest)
    if scheme == "sqlite":
        return SqliteStore(base_dir / _path(url, rest), is_between_runs=is_between_runs)
    if scheme in SCHEMES:
        # imported here, so that bots on SQLite do not load it
        from chatbot.stores.postgres import PostgresStore

        return PostgresStore(
            url, base_dir=base_dir, is_between_runs=is_between_runs, is_shared=is_shared, share=share, asks=asks
        )
    # only the scheme is shown: the rest of an unsupported URL may contain a password
    problem = f"{scheme + ':…'!r} is not a supported store: expected {FORMS}"
    raise ConfigError(problem)


def _memory(rest: str) -> MemoryStore:
    if rest.strip("/"):
        problem = f"'memory:{rest}' has text after memory:, which takes none; expected {FORMS}"
        raise ConfigError(problem)
    return MemoryStore()


def _path(url: str, rest: str) -> str:
    if not rest.startswith("///"):
        problem = f"{url!r} needs three slashes and a path: sqlite:///chatbot.db, or sqlite:////absolute/chatbot.db"
        raise ConfigError(problem)
    path = rest[3:]
    if path == ":memory:":
        problem = f'{url!r} would lose all data at each restart: write "memory:" if that is intended, or name a file'
        raise ConfigError(problem)
    if not path or path.endswith("/") or "?" in path or "\0" in path:
        problem = f"{url!r} does not name a file: expected sqlite:///FILE, without options"
        raise ConfigError(problem)
    return path
