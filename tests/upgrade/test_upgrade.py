"""A store that an older version made is opened, continued and erased by today's.

`make_data.py` made the data with the version whose commit its directory is named after.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import anyio
import anyio.to_thread
import pytest

from chatbot.actions import ActionKey, DeleteMessage, EditMessage, SendMessage, UpdateTopic
from chatbot.conversation import journal
from chatbot.dispatch import Rate
from chatbot.emulator import World
from chatbot.emulator.persistence import persist
from chatbot.events import BotStarted
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores import MemoryStore, SqliteStore, codec
from chatbot.stores.records import BotRecord, DeadLetter, RowStatus
from chatbot.stores.schema import MIGRATIONS
from chatbot.stores.writes import MarkJoined, MoveHorizon, SaveDeadLetter
from chatbot.testing import Room, chat

HERE = Path(__file__).parent
HALF = "half \ud83d"


@dataclass(frozen=True)
class OldData:
    """A copy of what an old version left."""

    store: Path
    world: World
    people: dict[str, UserId]
    room: ThreadId
    left: ThreadId
    orders: ModuleType

    @property
    def bot(self) -> UserId:
        return self.people["bot"]

    def values(self) -> str:
        """Everything that the file holds, as text."""
        with closing(sqlite3.connect(self.store)) as connection:
            return "\n".join(connection.iterdump())


@pytest.fixture(params=["f8eade2"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OldData]:
    for name in ("store.sqlite", "emulator.jsonl"):
        shutil.copy(HERE / request.param / name, tmp_path)
    world = World(seed=1)
    with persist(world, tmp_path / "emulator.jsonl"):
        pass  # it is filled
    people = json.loads((HERE / request.param / "people.json").read_text())
    # The names of states begin with the module's.
    spec = importlib.util.spec_from_file_location("orders", HERE / "orders.py")
    assert spec is not None
    assert spec.loader is not None
    orders = sys.modules["orders"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(orders)
    yield OldData(tmp_path / "store.sqlite", world, people, people["room"], people["left"], orders)
    del sys.modules["orders"]


async def say(room: Room, old: OldData, name: str, text: str) -> None:
    await room.stage.service_of(old.people[name]).send_message(old.room, text)
    await room.advance(hours=1)


def replies(room: Room, old: OldData) -> list[str]:
    return [one.text for one in room.stage.messages(old.room) if one.sender == old.bot]


def on_disk(file: Path) -> SqliteStore:
    return SqliteStore(file)


def in_memory(file: Path) -> MemoryStore:
    store = MemoryStore()
    store.restore(file.read_bytes())
    return store


@pytest.mark.virtual_time
@pytest.mark.parametrize("opened", [on_disk, in_memory])
async def test_conversations_go_on_where_the_old_version_was_killed(
    old: OldData, opened: Callable[[Path], SqliteStore | MemoryStore]
) -> None:
    store = opened(old.store)
    await anyio.sleep(timedelta(hours=44).total_seconds())
    rate = Rate(100, timedelta(days=1))
    async with chat(old.orders.orders(), world=old.world, store=store, rate=rate) as room:
        assert room.bot.user == old.bot
        await room.advance(hours=1)
        assert replies(room, old)[11:] == ["late", "the plate is whole", "no longer hanging"]

        await say(room, old, "Ann", "water")
        await say(room, old, "Ann", "/add milk")
        await say(room, old, "Bob", "juice")
        await room.advance(hours=1)

        assert replies(room, old)[14:] == [
            "Ann-secret drinks water.",
            # What was read is not told twice, and what was due meanwhile is done once.
            "tea, cake, bread, milk (1003, 3, 204)",
            "Bob-secret drinks juice.",
            "remember tea",
            "remember Bob-secret",
        ]
        assert room.failures == []
        assert [letter.id for letter in await store.dead_letters(old.bot)] == ["0123456789", "89b4358898", "c4e2ec31d5"]


async def test_old_rows_are_read_as_they_were_written(old: OldData) -> None:
    async with SqliteStore(old.store) as store:
        assert store.was_killed
        half = next(dialog for dialog in await store.dialogs(old.bot) if dialog.id == "dhalf")
        settled = await store.row(old.bot, "kf3cbc0c755f45dd395f65e3f689081d4")
        letter = next(one for one in await store.dead_letters(old.bot) if one.id == "0123456789")
        (attempt,) = (await store.attempts(old.bot)).values()
        (record,) = await store.bots()

        assert half.event == letter.event
        assert journal.load(half.journal)[2].value == HALF
        assert letter.event.message.content == f"{HALF} of {old.people['Eve']}"
        assert json.loads((await store.timers(old.bot))[-1].payload) == {"what": HALF}
        assert await store.result(old.bot, "half") == json.dumps(HALF)
        assert settled is not None
        assert settled.status == "failed"
        assert (attempt.count, attempt.cuts, attempt.handler) == (1, 0, "")
        assert (record.name, record.user) == ("bot", old.bot)
        assert {one.thread: one.is_left for one in await store.threads(old.bot)} == {old.room: False, old.left: True}
    with closing(sqlite3.connect(old.store)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_old_actions_and_events_are_written_with_the_same_bytes(old: OldData) -> None:
    with closing(sqlite3.connect(old.store)) as connection:
        actions = [stored for (stored,) in connection.execute("SELECT action FROM outbox")]
        events = [
            stored for (stored,) in connection.execute("SELECT event FROM dead_letter UNION SELECT event FROM dialog")
        ]

    assert [codec.encode_action(codec.decode_action(stored)) for stored in actions] == actions
    assert [codec.encode_event(codec.decode_event(stored)) for stored in events] == events


async def test_a_user_of_the_old_version_is_erased(old: OldData) -> None:
    assert "Ann-secret" in old.values()

    async with SqliteStore(old.store) as store:
        for name in ("Ann", "Eve"):
            assert await store.forget(old.people[name]) > 0
            assert await store.forget(old.people[name]) == 0

    content = old.values()
    assert not [
        word for word in ("Ann-secret", old.people["Ann"], old.people["Eve"], "dhalf", "thalf") if word in content
    ]
    assert b"Ann-secret" not in old.store.read_bytes()
    assert "Bob-secret" in content
    assert old.people["Bob"] in content


@pytest.mark.parametrize("opened", [on_disk, in_memory])
async def test_the_store_of_the_first_version_that_had_one_is_continued(
    tmp_path: Path, opened: Callable[[Path], SqliteStore | MemoryStore]
) -> None:
    shutil.copy(HERE / "4df41c8" / "store.sqlite", tmp_path)
    bot, hall, yard = UserId("8:acs:bot"), ThreadId("19:hall@thread.v2"), ThreadId("19:yard@thread.v2")
    letter = DeadLetter("1", BotStarted(bot=bot, occurred_on=datetime(2030, 1, 1, tzinfo=UTC)), "f", "E", 1, 7)

    async with await anyio.to_thread.run_sync(opened, tmp_path / "store.sqlite") as store:
        assert await store.bots() == [BotRecord("desk", "contoso", bot, 5)]
        threads = {thread.thread: thread for thread in await store.threads(bot)}
        assert (threads[hall].seen, threads[hall].receipt_due) == ({11: 12}, "11")
        assert threads[yard].is_left
        assert [row.action for row in await store.pending(bot)] == [
            EditMessage(MessageId("8"), "hi"),
            DeleteMessage(MessageId("8")),
            UpdateTopic("tea"),
        ]
        sent = await store.row(bot, ActionKey("sent"))
        assert sent is not None
        assert (sent.status, sent.message, sent.action) == (RowStatus.DONE, "9", SendMessage("hello"))
        await store.commit(bot, [SaveDeadLetter(letter), MoveHorizon(9), MarkJoined(yard, 3)])
        assert await store.dead_letters(bot) == [letter]
        assert await store.timers(bot) == await store.dialogs(bot) == await store.every_state(bot) == []
        assert await store.forget(UserId("8:acs:ann")) == 1
