"""A store by its URL, as `store:` in bots.yaml names it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from chatbot.errors import ConfigError
from chatbot.stores.base import Store
from chatbot.stores.memory import MemoryStore
from chatbot.stores.sqlite import SqliteStore

FORMS: Final = 'sqlite:///FILE or "memory:"'
"""What `open_store` understands; said in every error."""


def open_store(url: str, *, base_dir: Path) -> Store:
    """The store of a URL. It is opened by `async with`, not here: nothing is read or made yet.

    Args:
        url: `memory:`, or `sqlite:///` and a path: `sqlite:///chatbot.db` lies in `base_dir`,
            `sqlite:////var/lib/chatbot.db` and `sqlite:///C:/chatbot.db` lie where they say.
        base_dir: what relative paths start from: the directory of bots.yaml.

    Raises:
        ConfigError: the URL names no store that there is.
    """
    return _open(url, base_dir, is_visit=False)


def visit_store(url: str, *, base_dir: Path) -> Store | None:
    """The store of a URL for a short visit between two runs; None when nothing was ever kept there.

    Args:
        url: see `open_store`.
        base_dir: see there.

    Raises:
        ConfigError: the URL names no store that there is.
    """
    file = file_of(url, base_dir=base_dir)
    return _open(url, base_dir, is_visit=True) if file is not None and file.exists() else None


def file_of(url: str, *, base_dir: Path) -> Path | None:
    """The file of a store; None where it is kept in none.

    Args:
        url: see `open_store`.
        base_dir: see there.

    Raises:
        ConfigError: the URL names no file.
    """
    scheme, _, rest = url.partition(":")
    return base_dir / _path(url, rest) if scheme == "sqlite" else None


def _open(url: str, base_dir: Path, *, is_visit: bool) -> Store:
    scheme, colon, rest = url.partition(":")
    if not colon:
        problem = f"{url!r} is no store URL: expected {FORMS} (for a file of this name: {'sqlite:///' + url!r})"
        raise ConfigError(problem)
    if scheme == "memory":
        return _memory(rest)
    if scheme == "sqlite":
        return SqliteStore(base_dir / _path(url, rest), is_visit=is_visit)
    # the rest of a foreign URL may hold a password
    problem = f"{scheme + ':…'!r} is no store that there is: expected {FORMS}"
    raise ConfigError(problem)


def _memory(rest: str) -> MemoryStore:
    if rest.strip("/"):
        problem = f"'memory:{rest}' has something behind memory:, which takes nothing; expected {FORMS}"
        raise ConfigError(problem)
    return MemoryStore()


def _path(url: str, rest: str) -> str:
    if not rest.startswith("///"):
        problem = f"{url!r} needs three slashes and a path: sqlite:///chatbot.db, or sqlite:////absolute/chatbot.db"
        raise ConfigError(problem)
    path = rest[3:]
    if path == ":memory:":
        problem = f'{url!r} would lose everything at every restart unasked: write "memory:" for that, or name a file'
        raise ConfigError(problem)
    if not path or path.endswith("/") or "?" in path or "\0" in path:
        problem = f"{url!r} names no file: expected sqlite:///FILE, without options behind it"
        raise ConfigError(problem)
    return path
