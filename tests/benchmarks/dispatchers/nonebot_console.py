"""nonebot2: `nonebot.message.handle_event`, with the events of its console adapter."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import nonebot
from nonebot.adapters.console import Bot, Message, MessageSegment
from nonebot.adapters.console.event import PrivateMessageEvent
from nonebot.log import logger
from nonebot.message import event_preprocessor, handle_event
from nonechat.model import DIRECT, Robot, User
from work import COMMANDS, WORDS, Count, measure, pattern, run

logger.remove()
nonebot.init(driver="~none", log_level="CRITICAL")


async def main() -> None:
    count = Count()

    @event_preprocessor
    async def around() -> None:
        count.passed += 1

    async def handler() -> None:
        count.handled += 1

    for number, name in enumerate(COMMANDS):
        nonebot.on_command(name, priority=number + 1, block=True).append_handler(handler)
    for number, word in enumerate(WORDS):
        nonebot.on_regex(pattern(word), priority=len(COMMANDS) + number + 1, block=True).append_handler(handler)

    bot = Bot(SimpleNamespace(get_name=lambda: "Console"), Robot("bot"))  # type: ignore[arg-type]
    ann, now = User("ann"), datetime.now(UTC)

    def event(number: int, text: str) -> PrivateMessageEvent:
        message = Message([MessageSegment.text(text)])
        return PrivateMessageEvent(
            time=now, self_id="1", user=ann, channel=DIRECT, message_id=str(number), message=message
        )

    await measure(event, lambda event: handle_event(bot, event), count)


run(main)
