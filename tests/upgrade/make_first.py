"""Make the stored data of the first version that had a store, whose commit its directory is named after.

Run it from a checkout of that commit, with an interpreter that has its dependencies:

    PYTHONPATH=. python PATH/TO/tests/upgrade/make_first.py PATH/TO/tests/upgrade/4df41c8

There were no bots yet, so the rows are written by hand: every kind of write that there was, and every kind of action.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from pathlib import Path

import anyio

from chatbot.actions import ActionKey, DeleteMessage, EditMessage, SendMessage, UpdateTopic
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores.base import (
    BotRecord,
    Enqueue,
    LeaveThread,
    OutboxRow,
    OweReceipt,
    RowStatus,
    SaveBot,
    SaveThread,
    SettleRow,
    ThreadRecord,
)
from chatbot.stores.sqlite import SqliteStore

BOT, ANN = UserId("8:acs:bot"), UserId("8:acs:ann")
HALL, YARD = ThreadId("19:hall@thread.v2"), ThreadId("19:yard@thread.v2")


async def make(file: Path) -> None:
    async with SqliteStore(file) as store:
        rows = [
            OutboxRow(ActionKey("sent"), HALL, SendMessage("hello"), 7, 1000, caused_by=ANN),
            OutboxRow(ActionKey("edit"), HALL, EditMessage(MessageId("8"), "hi"), 7, 1000),
            OutboxRow(ActionKey("delete"), HALL, DeleteMessage(MessageId("8")), 7, 1000),
            OutboxRow(ActionKey("topic"), HALL, UpdateTopic("tea"), 7, 1000),
        ]
        await store.commit(
            BOT,
            [
                SaveBot(BotRecord("desk", "contoso", BOT, 5)),
                SaveThread(ThreadRecord(HALL, floor=5, base=10, seen={11: 12})),
                SaveThread(ThreadRecord(YARD, floor=5, base=10)),
                LeaveThread(YARD, "the bot left"),
                OweReceipt(HALL, MessageId("11")),
                *map(Enqueue, rows),
                SettleRow(ActionKey("sent"), RowStatus.DONE, MessageId("9")),
            ],
        )


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "chatbot.db"
        anyio.run(make, file)
        with sqlite3.connect(file) as made, sqlite3.connect(target / "store.sqlite") as copy:
            made.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute("VACUUM")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
