"""Other people's libraries, each in an environment of its own that is made when it is first needed and then kept."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from tests.benchmarks.frame import CACHE

INSTALL_SECONDS = 300


class PeerMissing(Exception):
    """A peer is not there and could not be installed; the text says why, on one line."""


def peer(name: str, *requirements: str) -> Path:
    """Return the Python of the environment `name` under `.benchmarks/peers`, which has `requirements` installed.

    Raises:
        PeerMissing: pip could not install them.
    """
    home = CACHE / "peers" / name
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = home / "installed.txt"
    wanted = "\n".join((sys.version, *requirements))
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    venv.create(home, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        text = f"pip took more than {INSTALL_SECONDS} s"
        raise PeerMissing(text) from error
    if done.returncode:
        text = (done.stderr.strip().splitlines() or ["pip failed without a word"])[-1]
        raise PeerMissing(text)
    stamp.write_text(wanted)
    return python


def versions(python: Path, *distributions: str) -> dict[str, str]:
    """Return the versions of `distributions` that `python` has."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", code, *distributions], capture_output=True, text=True, check=True)
    return dict(zip(distributions, done.stdout.split(), strict=True))
