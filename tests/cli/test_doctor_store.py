"""`chatbot doctor` looks at the store: each thing that can be wrong with it, wrong for real."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from chatbot.stores import SqliteStore
from chatbot.stores.schema import MIGRATIONS
from tests.cli.doctor_report import Doctor, bots_yaml, keyed
from tests.support.rights import as_ordinary_user


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that everybody may enter."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def kept(home: Path) -> Path:
    """A directory with a store in it."""

    async def keep() -> None:
        async with SqliteStore(home / "chatbot.db"):
            pass

    anyio.run(keep)
    return bots_yaml(home, "emulator")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="to be another user, one has to be root")
def test_a_store_that_this_user_may_not_write(kept: Path, doctor: Doctor) -> None:
    # Loads what is imported late: the other user may not be able to read the interpreter's library.
    assert doctor(kept).code == 0

    with as_ordinary_user():
        report = doctor(kept)

    assert (report.code, report.ills) == (69, ["store", "emulator"])
    assert f"this user cannot write its directory {kept}" in report.all("store")[0][1]
    assert "belongs to another user (id 0)" in report.all("store")[1][1]
    assert (kept / "chatbot.db.lock").stat().st_uid == 0


def _can_mount() -> bool:
    try:
        return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not _can_mount(), reason="to mount a file system, one has to be root on Linux, and be let")
def test_a_store_on_a_file_system_that_is_mounted_read_only(kept: Path) -> None:
    script = (
        f"mount --bind {kept} {kept} && mount -o remount,bind,ro {kept} && "
        f"{sys.executable} -m chatbot doctor {kept}/bots.yaml"
    )

    finished = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)

    assert finished.returncode == 69, finished.stderr
    assert f"✗ store         sqlite:///chatbot.db: this user cannot write its directory {kept}" in finished.stdout


def test_a_store_that_others_may_read(kept: Path, doctor: Doctor) -> None:
    (kept / "chatbot.db").chmod(0o644)

    report = doctor(kept)

    assert report.code == 0
    assert [state for state, _, _ in report.all("store")] == ["ok", "warning"]
    assert f"chmod 600 {kept / 'chatbot.db'}" in report.all("store")[1][2]


def test_a_store_that_is_damaged_of_another_program_or_too_new(kept: Path, doctor: Doctor) -> None:
    file = kept / "chatbot.db"
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    newer = doctor(kept)
    file.unlink()
    foreign = sqlite3.connect(file)
    foreign.executescript("PRAGMA user_version = 1; CREATE TABLE pictures (id)")
    foreign.close()
    other = doctor(kept)
    file.write_text("this is no database")
    damaged = doctor(kept)
    file.unlink()
    file.mkdir()
    directory = doctor(kept)

    assert "it has version 99" in newer.one("store")[1]
    assert "another program's SQLite database" in other.all("store")[0][1]
    assert "is not an SQLite database, or it is damaged" in damaged.all("store")[0][1]
    assert "is a directory: name a file in it" in directory.all("store")[0][1]
    assert {one.code for one in (newer, other, damaged, directory)} == {69}


def test_a_store_of_an_older_version_is_left_as_it_is(kept: Path, doctor: Doctor) -> None:
    connection = sqlite3.connect(kept / "chatbot.db")
    connection.execute("PRAGMA user_version = 1")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = (kept / "chatbot.db").read_bytes()

    report = doctor(bots_yaml(kept, keyed("https://nowhere.invalid")))

    assert "version 1, to be migrated at the next start" in report.one("store")[1]
    assert (kept / "chatbot.db").read_bytes() == before


def test_a_store_that_somebody_else_has_open(kept: Path, doctor: Doctor) -> None:
    holder = "import sys; from pathlib import Path; from chatbot.stores.sqlite_file import StoreLock\n"
    holder += "lock = StoreLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(kept / "chatbot.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

        report = doctor(kept)
        process.communicate()

    assert (report.code, report.ills) == (69, ["store"])
    assert "is in use by another process" in report.one("store")[1]


def test_a_store_in_memory_is_a_warning(tmp_path: Path, doctor: Doctor) -> None:
    report = doctor(bots_yaml(tmp_path, "emulator", more='store: "memory:"\n'))

    assert report.code == 0
    assert report.one("store")[0] == "warning"


def test_a_directory_that_is_not_there(tmp_path: Path, doctor: Doctor) -> None:
    report = doctor(bots_yaml(tmp_path, "emulator", more="store: sqlite:///nowhere/chatbot.db\n"))

    assert (report.code, report.ills) == (69, ["store"])
    assert f"its directory {tmp_path / 'nowhere'} is not there: create it" in report.one("store")[1]
