"""A bot, and what Ann says to it."""

from chatbot import BotInfo, Plugin, UserId
from chatbot.testing import EventStream

BOT = BotInfo("desk", UserId("8:acs:desk"), "Help desk")


async def replies(stream: EventStream, *plugins: Plugin) -> list[str]:
    return (await stream.into(*plugins)).replies


def talk(*words: str) -> EventStream:
    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    stream += [ann.said(one) for one in words]
    return stream
