"""Which clients of others were run against the emulator: each test that ran one says so, and the manual has the table.

A test writes its row into the cache (`clients`, beside the screenshots), and compares it with the manual's. After a
change, run all of them (the markers browser, node and sdk, and test_python_sdk.py) and then
`python -m tests.contracts.clients`, which writes the manual's table from these rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import platformdirs

# Read here: tests have a home of their own.
CACHE = Path(os.environ.get("CHATBOT_BROWSER_CACHE") or platformdirs.user_cache_path("chatbot-tests"))
RESULTS = CACHE / "clients"
MANUAL = Path(__file__).parents[2] / "docs" / "reference" / "emulator.md"

CHAT, IDENTITY = "@azure/communication-chat", "@azure/communication-identity"

BROWSERS = frozenset({"headless Chromium"})
"""Where one version of a client is run; a newer one takes its place."""

_TABLE = re.compile(r"(?<=<!-- clients that were run -->\n)(?:\|.*\n)*")
_HEAD = "| Client | Version | In | What was run |\n|---|---|---|---|\n"


def javascript_sdk_at(chat: str, identity: str) -> Path:
    """The directory for these versions of the JavaScript SDKs; `.installed` is in it if they are there."""
    return CACHE / f"node-{chat}-{identity}"


def javascript_sdk(chat: str, identity: str) -> Path:
    """A directory with these versions of the JavaScript SDKs, installed with npm if need be."""
    npm = shutil.which("npm")
    assert npm, "the JavaScript SDK is installed with npm, which is not here: install Node.js with npm"
    directory = javascript_sdk_at(chat, identity)
    if not (directory / ".installed").exists():
        directory.mkdir(parents=True, exist_ok=True)
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error", f"--prefix={directory}"]
        packages = [f"{CHAT}@{chat}", f"{IDENTITY}@{identity}"]
        subprocess.run([npm, "install", *options, *packages], cwd=directory, check=True, timeout=240, env=os.environ)
        (directory / ".installed").touch()
    return directory


def ran(client: str, version: str, place: str, what: str, *, measured: dict[str, float] | None = None) -> None:
    """Note that a client was run, and check that the manual says so; `measured` is for people who read the results."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    row = _noted(client, version, place, what, measured or {})
    assert row in documented(), f"write the manual's table anew, `python -m tests.contracts.clients`: it lacks {row}"


def ran_as_installed(client: str, version: str, what: str) -> None:
    """Note that a Python client was run, whichever version is installed here: its row must be there, not its version.

    The tests of it run everywhere, so that nothing is written where no results are kept.
    """
    row = f"| {client} | {version} | Python | {what} |"
    if RESULTS.exists():
        row = _noted(client, version, "Python", what, {})
    cells = row.split(" | ")
    found = [line for line in documented() if line.split(" | ")[::3] == cells[::3]]
    assert found, f"the manual's table of clients lacks {row}"


def _noted(client: str, version: str, place: str, what: str, measured: dict[str, float]) -> str:
    row = f"| {client} | {version} | {place} | {what} |"
    name = hashlib.sha256(f"{client} {place} {what} {version * (place not in BROWSERS)}".encode()).hexdigest()[:16]
    (RESULTS / f"{name}.json").write_text(json.dumps({"row": row, "measured": measured}))
    return row


def documented() -> list[str]:
    """The rows of the manual's table."""
    found = _TABLE.search(MANUAL.read_text())
    assert found is not None, "the manual has no table of clients"
    return found[0].splitlines()[2:]


def write() -> None:
    """Put the rows of the latest runs into the manual."""
    rows = sorted({json.loads(path.read_text())["row"] for path in RESULTS.glob("*.json")})
    text = MANUAL.read_text()
    MANUAL.write_text(_TABLE.sub(lambda _: _HEAD + "".join(f"{row}\n" for row in rows), text))


if __name__ == "__main__":
    write()
