"""Bots among themselves: none hears itself, and the others are heard only where that is wanted."""

from chatbot import Context, ParticipantsAdded, ParticipantsRemoved, Plugin, SendMessage, SendReadReceipt, text
from chatbot.model import REPLY_KEY
from chatbot.testing import EventStream
from tests.unit.dispatch.talk import replies


async def test_a_bot_never_handles_its_own_messages() -> None:
    plugin = Plugin("a")

    @plugin.message(from_bots=True)
    async def echo(ctx: Context) -> str:
        return ctx.text

    stream = EventStream()
    stream += stream.itself().said("hi")
    handled = await stream.into(plugin)

    assert handled.actions == []
    assert handled.handlers == [None]


async def test_messages_of_other_bots_reach_only_handlers_that_ask_for_them() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def people(ctx: Context) -> str:
        return "people"

    @plugin.command("ping")
    async def ping(ctx: Context) -> str:
        return "pong"

    stream = EventStream()
    sibling, stranger = stream.sibling("Sibling"), stream.user("Stranger")
    said = [
        sibling.said("hi"),
        stranger.said("hi", metadata={REPLY_KEY: "k"}),
        sibling.said("/ping"),
        sibling.said("/pin"),
    ]
    stream += said
    assert (await stream.into(plugin)).actions == []

    @plugin.message(text("hi"), from_bots=True)
    async def bots(ctx: Context) -> str:
        return "bots"

    stream += said
    assert (await stream.into(plugin)).actions == [
        SendMessage("bots"),
        SendReadReceipt(said[0].message.id),
        SendMessage("bots"),
        SendReadReceipt(said[1].message.id),
    ]


async def test_bots_are_not_among_the_people_who_came_in() -> None:
    people, everyone = Plugin("people"), Plugin("everyone")

    async def count(ctx: Context[ParticipantsAdded | ParticipantsRemoved]) -> str:
        return str(len(ctx.event.participants))

    people.on(ParticipantsAdded)(count)
    people.on(ParticipantsRemoved)(count)
    everyone.on(ParticipantsAdded, from_bots=True)(count)
    stream = EventStream()
    ann, sibling = stream.user("Ann"), stream.sibling("Sibling")
    events = [ann.joined(sibling), sibling.joined(), ann.left(sibling)]

    stream += events
    assert await replies(stream, people) == ["1", "1"]
    stream += events
    assert await replies(stream, everyone) == ["2", "1"]
