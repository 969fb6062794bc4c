"""The bots as an ordinary user, who may write the store and nothing else. Needs root, to become that user."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import pytest

from tests.cli.conftest import Demo, Run
from tests.cli.person import say, service_of, wait_for

NOBODY = 65534
PLUGIN = (
    "from chatbot import Context, Plugin\nplugin = Plugin('echoing')\n"
    + """
@plugin.message()
async def answer(ctx: Context) -> str:
    return ctx.text
"""
)
BOTS = "bots:\n  one: {plugins: [echoing_by_nobody], poll: {interval: 300ms}}\n"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("setpriv"),
    reason="only root on Linux can become an ordinary user, with setpriv: these tests say nothing here",
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that everybody may read, with `etc`, which is root's, and `state`, which is nobody's."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        for part in ("etc", "state"):
            (directory / part).mkdir(mode=0o755)
        shutil.chown(directory / "state", NOBODY, NOBODY)
        monkeypatch.setenv("PYTHONPATH", str(directory / "etc"))
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        monkeypatch.setenv("HOME", "/nonexistent")
        yield directory


def as_nobody() -> list[str]:
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]


def on_read_only_files(state: Path) -> list[str]:
    """A command that makes everything read-only for what follows it, but the file system of this directory."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", script, str(state)]


def can_make_read_only(state: Path) -> bool:
    probe = [*on_read_only_files(state), "sh", "-c", f"! touch {state.parent}/probe && touch {state}/probe"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def write_bots(place: Path, demo: Demo) -> str:
    """Write a configuration of which all but the store is root's; returns the service."""
    service = service_of(demo)
    (place / "etc" / "echoing_by_nobody.py").write_text(PLUGIN)
    (place / "etc" / "bots.yaml").write_text(BOTS)
    (place / "state" / "bots.yaml").write_text(f"version: 1\nservice: {service}\ninclude: ../etc/*.yaml\n")
    return service


@pytest.mark.parametrize("is_read_only", [False, True], ids=["rights alone", "a read-only file system"])
def test_bots_write_only_their_store_and_its_companion_files(
    place: Path, demo: Demo, run: Run, is_read_only: bool
) -> None:
    if is_read_only and not can_make_read_only(place / "state"):
        pytest.skip("this kernel lets nobody make a file system read-only here (unshare, mount): only rights are tried")
    service = write_bots(place, demo)
    before = sorted((place / "etc").iterdir())
    through: Sequence[str] = [*(on_read_only_files(place / "state") if is_read_only else []), *as_nobody()]

    bots = run(place / "state", "--require-azure", through=through)
    bots.event("daemon.started")
    bot = bots.event("bot.started")["user_id"]
    thread = anyio.run(say, service, bot, "hello")
    anyio.run(wait_for, service, bot, thread, "hello")
    (place / "etc" / "bots.yaml").write_text(BOTS.replace("interval", "idle: 5s, interval"))
    bots.process.send_signal(signal.SIGHUP)
    assert bots.event("reload.finished")["restarted"] == ["one"]
    status = Path(f"/proc/{bots.process.pid}/status").read_text()

    assert f"Uid:\t{NOBODY}\t{NOBODY}" in status
    assert bots.stop() == 0
    assert sorted((place / "etc").iterdir()) == before
    made = {path.name: path.stat() for path in (place / "state").rglob("*") if path.name not in ("bots.yaml", "probe")}
    assert "chatbot.db" in made
    assert {(found.st_uid, found.st_mode & 0o077) for found in made.values()} == {(NOBODY, 0)}


def test_a_store_that_this_user_may_not_write_ends_the_start_with_what_to_do(place: Path, demo: Demo, run: Run) -> None:
    write_bots(place, demo)
    shutil.chown(place / "state", 0, 0)

    bots = run(place / "state", through=as_nobody())

    assert bots.ended() == 69
    (problem,) = [json.loads(line)["problem"] for line in bots.lines]
    assert f"{place}/state/.chatbot: cannot be used: Permission denied; give it to the user" in problem


def test_what_root_leaves_in_the_directory_of_the_bots_is_its_owners(place: Path, run: Run) -> None:
    (place / "etc" / "echoing_by_nobody.py").write_text(PLUGIN)
    (place / "state" / "bots.yaml").write_text(f"version: 1\nservice: emulator\n{BOTS}")

    bots = run(place / "state")
    bots.event("daemon.started")
    directory = place / "state" / ".chatbot"
    while not (directory / "watchdog.stack").exists():  # the watchdog's thread makes it in its own time
        time.sleep(0.01)
    made = {path.name: path.lstat() for path in directory.rglob("*")}
    made |= {path.name: path.lstat() for path in (place / "state").glob("chatbot.db*")}

    assert {"chatbot.db", "chatbot.db-wal", "chatbot.db-shm", "chatbot.db.lock"} <= made.keys()
    assert {"emulator.db", "emulator.db.lock", "control.sock", "watchdog.stack", "run.json"} <= made.keys()
    assert {(found.st_uid, found.st_gid) for found in made.values()} == {(NOBODY, NOBODY)}
    assert bots.stop() == 0
