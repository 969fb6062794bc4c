"""The name and version of the distribution that installs chatbot.

The name is defined here and in pyproject.toml only. On the public index, the name `chatbot` belongs to another project.
Messages that suggest an installation must use the name from here: another name would install foreign code.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "chatbot-acs"
"""The name of the distribution. The module and the command are called `chatbot`."""

_PACKAGE: Final = Path(__file__).parent
_UNKNOWN: Final = "unknown"


def version() -> str:
    """Return the installed version; `unknown` if chatbot runs from a directory that is not installed.

    Reads files, so do not call it on the event loop.
    """
    import importlib.metadata  # slow to import, and --help does not need it

    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return _UNKNOWN


def install_command(*extras: str) -> str:
    """Return the command that installs chatbot, with extras."""
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'" if extras else f"pip install {DISTRIBUTION}"


def conflicting_distributions(beside: Path = _PACKAGE.parent) -> list[str]:
    """Return other distributions that own the package `chatbot`, as `NAME VERSION`.

    They share files: the one installed last has overwritten files of the other, and uninstalling either removes files
    of both. This reads the names in one directory, which takes less than a millisecond.

    Args:
        beside: the directory that contains the package; by default that of the running package.
    """
    try:
        entries = os.listdir(beside)
    except OSError:
        return []
    return sorted(_of_same_name(entries))


def _of_same_name(entries: Iterable[str]) -> Iterator[str]:
    for entry in entries:
        stem, _, kind = entry.rpartition(".")
        name, _, version = stem.partition("-")
        if kind in ("dist-info", "egg-info") and name.lower() == "chatbot":
            yield f"chatbot {version.partition('-')[0] or _UNKNOWN}"


def repair(others: Iterable[str]) -> str:
    """Return the message about other distributions that own the package `chatbot`."""
    named = ", ".join(others)
    return (
        f"the package chatbot belongs to two distributions, {DISTRIBUTION} and {named}, and files of one may have "
        f"replaced files of the other; remove both and install {DISTRIBUTION} again: "
        f"pip uninstall chatbot {DISTRIBUTION}"
    )


def shadowing_path(directory: Path) -> Path | None:
    """Return the file in a directory that Python would import as `chatbot` instead of this package.

    Args:
        directory: the directory of bots.yaml, from which Python may be started or which tests put on the path.
    """
    for candidate in (directory / "chatbot.py", directory / "chatbot" / "__init__.py"):
        if candidate.is_file() and not _is_ours(candidate):
            return candidate
    return None


def _is_ours(candidate: Path) -> bool:
    try:
        return candidate.samefile(_PACKAGE / "__init__.py")
    except OSError:
        return False


def shadowed(file: Path) -> str:
    """Return the message about a file that hides this package."""
    what = file.parent if file.name == "__init__.py" else file
    return (
        f"{what}: Python imports this instead of the bot framework, because it is called chatbot, too; rename it, for "
        "example to bots"
    )
