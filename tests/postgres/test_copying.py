"""`chatbot store copy`, and the other commands that know of a store, on PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import anyio
import asyncpg  # noqa: F401 here, so that `imports_restored` does not have it loaded twice, which it does not survive
import pytest

from chatbot.actions import ActionKey
from chatbot.cli import main
from chatbot.errors import StoreError, StoreInUse
from chatbot.stores.base import ShardsGained
from chatbot.stores.copying import copy_store
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.records import BotRecord, StateKey, TimerRecord
from chatbot.stores.shards import ALL_SHARDS
from chatbot.stores.sqlite import SqliteStore
from chatbot.stores.writes import Enqueue, RetryRow, SaveBot, SaveDeadLetter, SaveState, SetTimer, SettleRow
from tests.contracts.records import ANN, BOT, HALL, YARD, begin, letter, outbox_row
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres

EVERYTHING = [
    SaveBot(BotRecord("desk", "contoso", BOT, 7)),
    begin(seen={6: 6, 7: 8}),
    begin(YARD),
    *(Enqueue(outbox_row(key, f"to ünï '{key}' \N{ROBOT FACE}", caused_by=ANN)) for key in "abc"),
    SettleRow(ActionKey("b"), "failed", None, "no"),
    SaveDeadLetter(letter("x")),
    SaveState(StateKey("Count", HALL, ANN), '{"n": 1}', None, 1),
    SetTimer(TimerRecord("t", "plugins.ring", 99, HALL)),
]


async def contents(store) -> list[object]:
    reads = (store.bots(), store.threads(BOT), store.pending(BOT), store.row(BOT, ActionKey("b")),
             store.dead_letters(BOT), store.every_state(BOT), store.timers(BOT))  # fmt: skip
    return [await read for read in reads]


async def filled(file: Path) -> list[object]:
    async with SqliteStore(file) as store:
        await store.commit(BOT, EVERYTHING)
        return await contents(store)


async def test_a_store_goes_to_postgresql_and_back_unchanged(tmp_path: Path, postgres_url: str) -> None:
    before = await filled(tmp_path / "a.db")

    there = await copy_store("sqlite:///a.db", postgres_url, base_dir=tmp_path)
    async with PostgresStore(postgres_url, is_between_runs=True) as store:
        assert await contents(store) == before
    back = await copy_store(postgres_url, "sqlite:///b.db", base_dir=tmp_path)

    async with SqliteStore(tmp_path / "b.db") as store:
        assert await contents(store) == before
        assert not store.was_killed
    assert there == back
    assert sum(there.rows.values()) > 10


async def test_what_is_added_after_a_copy_is_behind_what_was_copied(tmp_path: Path, postgres_url: str) -> None:
    await filled(tmp_path / "a.db")
    await copy_store("sqlite:///a.db", postgres_url, base_dir=tmp_path)

    async with PostgresStore(postgres_url) as store:
        await store.commit(BOT, [Enqueue(outbox_row("d")), RetryRow(ActionKey("b"), None), Enqueue(outbox_row("e"))])

        assert [row.key for row in await store.pending(BOT)] == ["a", "c", "d", "b", "e"]


async def test_a_copy_may_be_started_again_and_never_replaces_anything_else(tmp_path: Path, postgres_url: str) -> None:
    await filled(tmp_path / "a.db")
    first = await copy_store("sqlite:///a.db", postgres_url, base_dir=tmp_path)
    again = await copy_store("sqlite:///a.db", postgres_url, base_dir=tmp_path)
    assert again.was_there
    assert again.checksum == first.checksum

    async with SqliteStore(tmp_path / "a.db") as store:
        await store.commit(BOT, [Enqueue(outbox_row("z"))])
    with pytest.raises(StoreError, match="holds other data already: name an empty store"):
        await copy_store("sqlite:///a.db", postgres_url, base_dir=tmp_path)


async def test_a_copy_that_is_interrupted_has_left_nothing(tmp_path: Path, postgres_url: str) -> None:
    await filled(tmp_path / "a.db")
    connection = sqlite3.connect(tmp_path / "a.db")
    with connection:
        connection.execute("INSERT INTO timer VALUES (1, 'broken', 'h', 'not a number', '', '', '')")
    connection.close()

    with pytest.raises(StoreError):
        await copy_store("sqlite:///a.db", postgres_url, base_dir=tmp_path)

    async with PostgresStore(postgres_url) as store:
        assert await store.bots() == []


async def test_stores_in_use_are_not_copied(tmp_path: Path, postgres_url: str) -> None:
    async with SqliteStore(tmp_path / "a.db"):
        with pytest.raises(StoreInUse):
            await copy_store("sqlite:///a.db", postgres_url, base_dir=tmp_path)
    async with PostgresStore(postgres_url, is_shared=True):
        with pytest.raises(StoreInUse, match="is in use by another process"):
            await copy_store("sqlite:///a.db", postgres_url, base_dir=tmp_path)
        with pytest.raises(StoreInUse, match="is in use by another process"):
            await copy_store(postgres_url, "sqlite:///b.db", base_dir=tmp_path)


async def test_a_copy_of_a_store_whose_process_was_killed_still_says_so(tmp_path: Path, postgres_url: str) -> None:
    async with PostgresStore(postgres_url, is_shared=True) as store:
        await store.next_change()
        store.stay_marked()
    await copy_store(postgres_url, "sqlite:///a.db", base_dir=tmp_path)
    async with SqliteStore(tmp_path / "a.db") as copy:
        assert copy.was_killed
        copy.stay_marked()
    await copy_store("sqlite:///a.db", postgres_url + "2", base_dir=tmp_path)
    async with PostgresStore(postgres_url + "2", is_shared=True) as store:
        assert await store.next_change() == ShardsGained(ALL_SHARDS, ALL_SHARDS)


async def test_a_store_is_not_copied_to_itself_nor_from_nowhere(tmp_path: Path, postgres_url: str) -> None:
    with pytest.raises(StoreError, match="the same store"):
        await copy_store(postgres_url, postgres_url, base_dir=tmp_path)
    with pytest.raises(StoreError, match="there is no such store"):
        await copy_store("sqlite:///missing.db", postgres_url, base_dir=tmp_path)
    with pytest.raises(StoreError, match="in memory"):
        await copy_store("memory:", postgres_url, base_dir=tmp_path)


# ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────

YAML = "version: 1\nservice: emulator\nstore: !secret env:STORE\nbots:\n  desk: {plugins: [plugin]}\n"
PLUGIN = """
from chatbot import Context, Plugin

plugin = Plugin('echo')


@plugin.message()
async def echo(ctx: Context):
    return 'hi'
"""


@pytest.fixture
def config(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STORE", postgres_url)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "bots.yaml").write_text(YAML)
    return tmp_path / "bots.yaml"


@pytest.mark.usefixtures("imports_restored")
def test_commands_read_a_store_on_postgresql(
    config: Path, tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    anyio.run(filled, tmp_path / "a.db")

    assert main(["store", "info", "--config", str(config)]) == 69
    assert "there is no such store yet" in capsys.readouterr().err
    assert main(["store", "copy", f"sqlite:///{tmp_path / 'a.db'}", postgres_url]) == 0
    assert "rows copied; both stores have the checksum" in capsys.readouterr().out
    assert main(["store", "info", "--format", "json", "--config", str(config)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bots"][0]["counts"] == {
        "threads": 2,
        "outbox": 3,
        "states": 1,
        "dialogs": 0,
        "timers": 1,
        "dead_letters": 1,
    }
    assert "swordfish" not in shown["file"]
    assert main(["dead-letters", "list", str(config)]) == 0
    assert "MessageReceived" in capsys.readouterr().out
    assert main(["state", "forget", ANN, "--yes", str(config)]) == 0
    assert main(["check", str(config)]) == 0
    assert "timer" in capsys.readouterr().out  # of a function that the plugin does not have


@pytest.mark.usefixtures("imports_restored")
def test_what_needs_a_file_says_what_to_do_instead(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["backup", str(tmp_path / "copy.db")], ["check"]):
        assert main(["store", *command, "--config", str(config)]) == 69
        said = capsys.readouterr().err
        assert "pg_dump --schema=test" in said
        assert "swordfish" not in said


@pytest.mark.usefixtures("imports_restored")
def test_the_doctor_reports_a_store_on_postgresql(
    config: Path, postgres_server: PostgresServer, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def doctor_beside_an_owner() -> str:
        async with PostgresStore(postgres_url):
            await anyio.to_thread.run_sync(main, ["doctor", str(config)])
        return capsys.readouterr().out

    async def doctor_beside_a_replica() -> str:
        async with PostgresStore(postgres_url, is_shared=True) as store:
            await store.next_change()
            await anyio.to_thread.run_sync(main, ["doctor", str(config)])
        return capsys.readouterr().out

    main(["doctor", str(config)])
    assert "does not exist yet; it is created at the first start" in capsys.readouterr().out
    assert "is in use by another process" in anyio.run(doctor_beside_an_owner).replace("\n", " ")
    assert "used by 1 process" in anyio.run(doctor_beside_a_replica).replace("\n", " ")
    main(["doctor", str(config)])
    said = capsys.readouterr().out
    assert "readable and writable, version 8" in said
    assert "swordfish" not in said
