"""Records for store tests: bots, people, threads, outbox rows, threads that begin, dead letters."""

from collections.abc import Callable
from datetime import UTC, datetime

from chatbot.actions import ActionKey, SendMessage
from chatbot.events import MessageReceived
from chatbot.model import ChatMessage, MessageId, MessageType, ThreadId, UserId
from chatbot.stores.base import Store
from chatbot.stores.records import DeadLetter, OutboxRow, ThreadRecord
from chatbot.stores.writes import SaveThread

BOT = UserId("8:acs:bot")
OTHER_BOT = UserId("8:acs:other-bot")
ANN = UserId("8:acs:ann")
BOB = UserId("8:acs:bob")
HALL = ThreadId("19:hall@thread.v2")
YARD = ThreadId("19:yard@thread.v2")

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

Open = Callable[[], Store]


def outbox_row(key: str, text: str = "hello", **fields) -> OutboxRow:
    values = {"key": ActionKey(key), "thread": HALL, "action": SendMessage(text), "after": 7, "created_ms": 1000}
    return OutboxRow(**values | fields)


def begin(thread: ThreadId = HALL, **fields) -> SaveThread:
    return SaveThread(ThreadRecord(thread, **{"floor": 5, "base": 10} | fields))


def letter(id: str, text: str = "hello", **fields) -> DeadLetter:
    said = ChatMessage(id=MessageId("8"), version=8, type=MessageType.TEXT, created_on=NOON, content=text, sender=ANN)
    event = MessageReceived(bot=BOT, thread=HALL, occurred_on=NOON, message=said)
    values = {"event": event, "handler": "plugins.echo.echo", "error": "ValueError: no", "attempts": 3, "died_ms": 5}
    return DeadLetter(id, **values | fields)


async def only_thread(store: Store) -> ThreadRecord:
    (thread,) = await store.threads(BOT)
    return thread
