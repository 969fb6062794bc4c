import sqlite3
import subprocess
import sys

import pytest

from chatbot.actions import ActionKey, SendMessage
from chatbot.errors import StateError, StoreInUse, StoreTooNew
from chatbot.model import ThreadId, UserId
from chatbot.stores.memory import MemoryStore
from chatbot.stores.records import OutboxRow, RowStatus
from chatbot.stores.schema import APPLICATION_ID
from chatbot.stores.writes import Enqueue, Prune, SettleRow

BOT = UserId("8:acs:bot")
WISH = Enqueue(OutboxRow(ActionKey("a"), ThreadId("19:hall"), SendMessage("hi"), 7, 1000))


async def test_a_killed_store_keeps_what_was_committed_and_says_that_it_was_killed():
    store = MemoryStore()

    async with store:
        await store.commit(BOT, [WISH])
        store.kill()
        with pytest.raises(StateError, match="not open"):
            await store.commit(BOT, [])
    async with store:
        assert store.was_killed
        assert len(await store.pending(BOT)) == 1
    async with store:
        assert not store.was_killed


async def test_a_killed_store_is_not_opened_before_its_last_user_is_gone():
    """Or what is left of the killed bot could write into the new one's memory."""
    store = MemoryStore()

    async with store:
        store.kill()
        with pytest.raises(StoreInUse, match="end the one `async with` block before the next begins"):
            await store.__aenter__()
    async with store:
        assert store.was_killed


async def test_a_snapshot_is_restored_with_everything_and_whether_the_store_was_killed():
    store, other = MemoryStore(), MemoryStore()
    async with store:
        await store.commit(BOT, [WISH])
        while_open = store.snapshot()
        await store.commit(BOT, [Prune(2000), SettleRow(WISH.row.key, RowStatus.DONE)])
        with pytest.raises(StoreInUse, match="before its contents are replaced"):
            store.restore(while_open)

    other.restore(while_open)
    async with other:
        assert other.was_killed
        assert [row.key for row in await other.pending(BOT)] == ["a"]
    other.restore(store.snapshot())
    async with other:
        assert not other.was_killed
        assert await other.pending(BOT) == []


async def test_what_a_newer_version_wrote_is_not_opened():
    store = MemoryStore()
    database = sqlite3.connect(":memory:")
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute("PRAGMA user_version = 1000")
    database.execute("CREATE TABLE future (id)")
    store.restore(database.serialize())
    database.close()

    with pytest.raises(StoreTooNew, match="has version 1000"):
        await store.__aenter__()


def test_a_store_costs_only_what_it_needs_to_load():
    """A bot in memory loads no database, and what only names the protocol loads no store."""
    code = (
        "import sys, chatbot.stores.base\n"
        "assert not {'sqlite3', 'filelock', 'chatbot.stores.memory'} & set(sys.modules)\n"
        "from chatbot.stores import MemoryStore\n"
        "assert not {'sqlite3', 'filelock'} & set(sys.modules)\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_no_store_is_no_attribute():
    import chatbot.stores

    with pytest.raises(AttributeError, match=r"module 'chatbot\.stores' has no attribute 'RedisStore'"):
        chatbot.stores.RedisStore  # noqa: B018
