import subprocess
import sys

import pytest

from chatbot.actions import ActionKey, SendMessage
from chatbot.errors import StateError, StoreInUse
from chatbot.model import ThreadId, UserId
from chatbot.stores.memory import MemoryStore
from chatbot.stores.records import OutboxRow
from chatbot.stores.writes import Enqueue

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
