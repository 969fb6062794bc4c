"""`chatbot store`: a copy of a store in use is whole, and bots that go on from it neither lose nor double anything."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from chatbot import Context, Plugin, State
from chatbot.cli import main
from chatbot.errors import StoreError
from chatbot.stores.backup import StoreInfo, back_up, info, problems
from chatbot.testing import SqliteStore, VirtualClock, chat


@dataclass
class Counter:
    count: int = 0


plugin = Plugin("parrot")

BOTS = "version: 1\nservice: emulator\nstore: sqlite:///chatbot.db\nbots:\n  parrot: {plugins: [parrot]}\n"


@plugin.message()
async def count(ctx: Context, counter: State[Counter]) -> str:
    counter.value.count += 1
    return f"{counter.value.count}: {ctx.text}"


def put_back(copy: Path, store: Path) -> None:
    """Restore a backup as the documentation says."""
    for suffix in ("-wal", "-shm"):
        store.with_name(f"{store.name}{suffix}").unlink(missing_ok=True)
    shutil.copyfile(copy, store)


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_bots_that_go_on_from_a_backup_say_nothing_twice(
    is_stopped: bool, tmp_path: Path, virtual_time: VirtualClock
) -> None:
    store, copy = tmp_path / "chatbot.db", tmp_path / "copy.db"
    async with chat(plugin, store=SqliteStore(store)) as room:
        ann = room.user("Ann")
        await ann.says("one", "two")
        if is_stopped:
            await room.stop()
        await to_thread.run_sync(back_up, store, copy)
        if is_stopped:
            await room.start()
        await ann.says("three", "four")
        await room.kill()
        await to_thread.run_sync(put_back, copy, store)
        await room.start()
        await ann.says("five")
        await room.advance(minutes=2)

        assert room.replies == ["1: one", "2: two", "3: three", "4: four", "5: five"]


echoing = Plugin("echoing")


@echoing.message()
async def echo(ctx: Context, counter: State[Counter]) -> str:
    counter.value.count += 1
    return f"echo {ctx.text}"


@pytest.mark.parametrize("after", [1, 5, 9])
async def test_a_backup_taken_under_load_duplicates_and_loses_nothing(
    after: int, tmp_path: Path, virtual_time: VirtualClock
) -> None:
    """Several people talk at once; the copy is made between any two commits of the bot, and is what goes on later."""
    store, copy = tmp_path / "chatbot.db", tmp_path / "copy.db"
    people, said = ("Ann", "Ben", "Cem"), 6
    async with chat(echoing, store=SqliteStore(store)) as room:

        async def talk(name: str) -> None:
            for number in range(said):
                await room.user(name).says(f"{name} {number}")

        async def back_up_amid() -> None:
            while len(room.replies) < after:  # noqa: ASYNC110 - the replies come from the service
                await anyio.sleep(0.1)
            await to_thread.run_sync(back_up, store, copy)
            assert len(room.replies) < len(people) * said, "nobody talks any more"

        async with anyio.create_task_group() as group:
            for name in people:
                group.start_soon(talk, name)
            group.start_soon(back_up_amid)
        await room.kill()
        await to_thread.run_sync(put_back, copy, store)
        await room.start()
        await room.user("Ann").says("after")
        await room.advance(minutes=5)

        expected = [f"echo {name} {number}" for name in people for number in range(said)] + ["echo after"]
        assert sorted(room.replies) == sorted(expected)


def look_at(copy: Path) -> tuple[list[str], int, list[str], StoreInfo]:
    mode = stat.S_IMODE(copy.stat().st_mode)
    return sorted(path.name for path in copy.parent.iterdir() if "copy" in path.name), mode, problems(copy), info(copy)


async def test_a_backup_is_one_whole_file_of_its_owner_alone(tmp_path: Path, virtual_time: VirtualClock) -> None:
    store, copy = tmp_path / "chatbot.db", tmp_path / "copy.db"
    async with chat(plugin, store=SqliteStore(store)) as room:
        await room.user("Ann").says("one")
        await to_thread.run_sync(back_up, store, copy)
        files, mode, wrong, found = await to_thread.run_sync(look_at, copy)

    assert (files, mode, wrong) == (["copy.db"], 0o600, [])
    (bot,) = found.bots
    assert bot.user == room.bot.user
    assert bot.counts["threads"] == bot.counts["states"] == 1


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which bots have run."""
    folder = tmp_path_factory.mktemp("used")
    (folder / "bots.yaml").write_text(BOTS)
    (folder / "parrot.py").write_text("from chatbot import Plugin\n\nplugin = Plugin('parrot')\n")
    subprocess.run([sys.executable, "-m", "chatbot", "run", "--once"], cwd=folder, check=True, timeout=100)
    return folder


@pytest.fixture
def folder(used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(used, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_take_the_store_of_the_configuration_or_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["store", "backup", "copy.db"]) == 0
    assert main(["store", "check", "copy.db"]) == 0
    assert main(["store", "info"]) == 0
    said = capsys.readouterr().out
    assert main(["store", "info", "copy.db", "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)

    assert "copy.db: sound" in said
    assert "parrot  8:acs:" in said
    assert [bot["name"] for bot in facts["bots"]] == ["parrot"]


def test_reading_an_unused_store_leaves_no_files_next_to_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("chatbot.db", "raw.db")
    before = sorted(path.name for path in folder.iterdir())

    for words in (["check"], ["store", "info"], ["store", "check"], ["store", "info", "raw.db"], ["doctor"]):
        assert main(words) == 0, words

    assert sorted(path.name for path in folder.iterdir() if "__pycache__" not in path.name) == [
        name for name in before if "__pycache__" not in name
    ]


def test_an_existing_file_is_not_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "copy.db").write_text("precious")

    assert main(["store", "backup", "copy.db"]) == 69

    assert "copy.db exists already: name another file" in capsys.readouterr().err
    assert (folder / "copy.db").read_text() == "precious"


def test_a_file_that_is_no_store_or_is_damaged_is_reported_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (folder / "chatbot.db").read_bytes()
    (folder / "damaged.db").write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    (folder / "text.db").write_text("hello " * 1000)
    with sqlite3.connect(folder / "other.db") as connection:
        connection.execute("CREATE TABLE bot (name)")
    connection.close()
    capsys.readouterr()

    codes = {name: main(["store", "check", name]) for name in ("damaged.db", "text.db", "other.db", "none.db")}

    said = capsys.readouterr()
    assert set(codes.values()) == {69}
    assert "text.db is damaged, or not an SQLite database" in said.err
    assert "other.db is not a store of chatbot" in said.err
    assert "none.db: there is no such store" in said.err
    assert "Traceback" not in said.err


def test_a_store_in_memory_has_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bots.yaml").write_text(BOTS.replace("sqlite:///chatbot.db", '"memory:"'))

    assert main(["store", "info"]) == 69

    assert "this store is in memory" in capsys.readouterr().err


def test_nothing_is_left_of_a_backup_that_failed(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such store"):
        back_up(tmp_path / "none.db", tmp_path / "copy.db")

    assert list(tmp_path.iterdir()) == []
