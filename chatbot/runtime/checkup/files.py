"""The files of the configuration: who else may read them, where secrets stand in them as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from chatbot.config.place import shows_secret
from chatbot.runtime.checkup.finding import Finding, warning


def look(files: Sequence[str]) -> Iterator[Finding]:
    """Look at each file.

    Args:
        files: their names; all could be read a moment ago.
    """
    for file in map(Path, files):
        if os.name == "posix" and file.stat().st_mode & 0o077 and shows_secret(file.read_text("utf-8", "replace")):
            what = f"others than its owner may read {file}, where a secret stands as it is"
            yield warning("configuration", what, f"chmod 600 {file}, or write !secret env:NAME, or ${{NAME}} instead")
