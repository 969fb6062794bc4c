"""A process that commits from many tasks at once until it is killed, and prints what was acknowledged."""

import os
import sys
from itertools import count

import anyio

from chatbot.actions import ActionKey, SendMessage
from chatbot.model import ThreadId, UserId
from chatbot.stores.records import OutboxRow, ThreadRecord
from chatbot.stores.sqlite import SqliteStore
from chatbot.stores.writes import Enqueue, MarkSeen, SaveThread

BOT = UserId("8:acs:bot")
TASKS = 40


async def main() -> None:
    path, life = sys.argv[1], int(sys.argv[2])
    async with SqliteStore(path) as store, anyio.create_task_group() as tasks:
        for number in range(TASKS):
            tasks.start_soon(commit, store, ThreadId(f"19:{life * TASKS + number}"))


async def commit(store: SqliteStore, thread: ThreadId) -> None:
    """Commit pairs of rows, each pair with its mark, in one go."""
    await store.commit(BOT, [SaveThread(ThreadRecord(thread, 0, 0))])
    for number in count():
        pair = [f"{thread[3:]}.{number}.{half}" for half in "ab"]
        rows = [Enqueue(OutboxRow(ActionKey(key), thread, SendMessage("x" * 200), 7, 1000)) for key in pair]
        await store.commit(BOT, [rows[0], MarkSeen(thread, {number: number}), rows[1]])
        os.write(1, "".join(f"{key}\n" for key in pair).encode())


anyio.run(main)
