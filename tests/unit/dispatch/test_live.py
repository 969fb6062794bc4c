"""What handlers do at once, where no bot stands behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from chatbot import Context, DeleteMessage, Plugin, SendMessage
from chatbot.dispatch.live import NoLiveChannel, show_typing_while
from chatbot.errors import StateError
from chatbot.model import Participant, UserId
from chatbot.testing import EventStream, context


async def pieces(*texts: str) -> AsyncIterator[str]:
    for text in texts:
        yield text


async def test_a_stream_is_one_message_in_an_event_stream() -> None:
    plugin = Plugin("talk")

    @plugin.message()
    async def talk(ctx: Context) -> str:
        async with ctx.typing():
            sent = await ctx.stream(pieces("one ", "two"))
        await sent.delete()
        return "three"

    stream = EventStream()
    stream += stream.user("Ann").said("go")

    handled = await stream.into(plugin)

    assert handled.replies == ["one two", "three"]
    said, taken_back = handled.outcomes[0].keyed_actions[:2]
    assert taken_back.action == DeleteMessage(said.key)


async def test_a_stream_of_nothing_is_no_message() -> None:
    ctx = context("go")

    sent = await ctx.stream(pieces(" ", "\n"))

    assert sent.is_empty
    assert ctx.actions == []


async def test_what_is_asked_for_before_and_after_a_stream_keeps_its_own_key() -> None:
    ctx = context("go")

    await ctx.reply("first")
    await ctx.stream(pieces("second"))
    await ctx.reply("third")

    assert ctx.actions == [SendMessage("first"), SendMessage("second"), SendMessage("third")]


async def test_the_error_of_a_block_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with show_typing_while(NoLiveChannel()):
            raise ZeroDivisionError


async def test_a_handler_in_an_event_stream_finds_the_bot_and_the_people_in_the_thread() -> None:
    plugin = Plugin("who")

    @plugin.message()
    async def who(ctx: Context) -> str:
        return ", ".join(str(person.display_name) for person in await ctx.participants())

    stream = EventStream()
    ann, _bob = stream.user("Ann"), stream.user("Bob")
    stream += ann.said("who?")

    assert (await stream.into(plugin)).replies == ["Bot, Ann, Bob"]


async def test_a_plainly_called_handler_finds_the_people_that_its_test_names() -> None:
    bob = Participant(UserId("8:acs:bob"), "Bob")

    people = await context("who?", people=[bob]).participants()

    assert [person.display_name for person in people] == ["Bot", "Ann", "Bob"]


async def test_nothing_can_be_asked_or_streamed_once_the_handler_has_ended() -> None:
    ctx = context("go")
    with ctx:
        pass

    with pytest.raises(StateError, match="has ended"):
        await ctx.participants()
    with pytest.raises(StateError, match="has ended"):
        await ctx.stream(pieces("late"))
    with pytest.raises(StateError, match="has ended"):
        async with ctx.typing():
            pass
