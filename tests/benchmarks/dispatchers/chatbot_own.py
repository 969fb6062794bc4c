"""Ours: `Dispatcher.dispatch`, as a lane calls it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from work import COMMANDS, WORDS, Count, measure, pattern, run

from chatbot import Context, Event, MessageReceived, Plugin, Proceed, Reply, regex
from chatbot.dispatch import BotInfo, Dispatcher
from chatbot.model import ChatMessage, MessageId, MessageType, ThreadId, UserId

BOT, ANN, THREAD = UserId("8:acs:bot"), UserId("8:acs:ann"), ThreadId("19:thread@thread.v2")
BEGUN = datetime(2025, 1, 1, tzinfo=UTC)


def event(number: int, text: str) -> MessageReceived:
    time = BEGUN + timedelta(minutes=number)
    id = MessageId(str(1_735_689_600_000 + number * 60_000))
    message = ChatMessage(
        id=id,
        version=int(id),
        type=MessageType.TEXT,
        created_on=time,
        content=text,
        sender=ANN,
        sender_display_name="Ann",
    )
    return MessageReceived(bot=BOT, thread=THREAD, occurred_on=time, message=message)


def plugin_of(count: Count) -> Plugin:
    plugin = Plugin("fifty")

    @plugin.middleware
    async def around(ctx: Context[Event], proceed: Proceed) -> Reply:
        count.passed += 1
        return await proceed()

    def answer(name: str) -> Callable[[Context], Coroutine[Any, Any, None]]:
        async def handler(ctx: Context) -> None:
            count.handled += 1

        handler.__name__ = handler.__qualname__ = name
        return handler

    for name in COMMANDS:
        plugin.command(name)(answer(name))
    for word in WORDS:
        plugin.message(regex(pattern(word)))(answer(word))
    return plugin


async def main() -> None:
    count = Count()
    async with Dispatcher([plugin_of(count)], bot=BotInfo("bot", BOT, "Bot")) as dispatcher:
        await measure(event, dispatcher.dispatch, count)


run(main)
