"""What readiness has the store write: something that reaches the file, and leaves nothing in it."""

from __future__ import annotations

from pathlib import Path

from chatbot.model import UserId
from chatbot.runtime.observe.status import PROBE_WRITES
from chatbot.stores import SqliteStore


async def test_the_trial_is_written_to_the_file_each_time_and_leaves_nothing(tmp_path: Path) -> None:
    log, bot = tmp_path / "bots.db-wal", UserId("8:acs:bot")
    async with SqliteStore(tmp_path / "bots.db") as store:
        await store.commit(bot, PROBE_WRITES)  # notes who the bot is, the first time
        before = log.read_bytes()

        await store.commit(bot, PROBE_WRITES)

        assert log.read_bytes() != before  # not its size: after a checkpoint SQLite writes from its beginning again
        assert await store.attempts(bot) == {}
