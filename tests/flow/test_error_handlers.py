from __future__ import annotations

from datetime import timedelta

import pytest

from chatbot import Ack, Context, Dialog, Event, ParticipantsAdded, Plugin, Reply, Retry
from chatbot.actions import APOLOGY
from chatbot.stores import MemoryStore
from chatbot.stores.writes import RequestRetry
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


async def test_an_apology_comes_after_the_last_retry_and_the_next_message_is_answered() -> None:
    plugin, attempts = Plugin("fragile"), list[str]()

    @plugin.message(retry=Retry(attempts=2))
    async def answer(ctx: Context) -> str:
        attempts.append(ctx.text)
        if ctx.text == "break":
            raise ValueError(ctx.text)
        return ctx.text

    @plugin.error(ValueError)
    async def sorry(ctx: Context[Event], error: ValueError) -> str:
        return "Sorry, that did not work."

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("break", "go on")

        assert room.replies == ["Sorry, that did not work.", "go on"]
        assert attempts == ["break", "break", "go on"]


def breaking(*, answers: bool) -> Plugin:
    plugin = Plugin("breaking")

    @plugin.message(from_bots=True, retry=Retry(attempts=2, first=timedelta(milliseconds=1)))
    async def answer(ctx: Context) -> str:
        raise ValueError(ctx.text)

    @plugin.on(ParticipantsAdded, retry=Retry(attempts=1))
    async def greet(ctx: Context[ParticipantsAdded]) -> str:
        raise ValueError

    if answers:

        @plugin.error(ValueError)
        async def silent(ctx: Context[Event], error: ValueError) -> None: ...

    return plugin


async def test_one_apology_is_sent_for_a_message_that_could_not_be_handled() -> None:
    async with chat(breaking(answers=False), apology=APOLOGY, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("one")
        assert room.replies == [APOLOGY]
        await room.restart()
        await room.user("Bob").joins()
        assert room.replies == [APOLOGY]
        await ann.says("two")
        assert room.replies == [APOLOGY, APOLOGY]


async def test_no_apology_is_sent_where_it_is_turned_off_or_an_error_handler_answered() -> None:
    async with chat(breaking(answers=False), raise_failures=False) as room:
        await room.user("Ann").says("one")
        assert room.replies == []
    async with chat(breaking(answers=True), apology=APOLOGY, raise_failures=False) as room:
        await room.user("Ann").says("one")
        assert room.replies == []


@pytest.mark.parametrize("returned", [None, 7, b"bytes"])
async def test_an_apology_is_sent_if_an_error_handler_fails_or_returns_no_reply(returned: object) -> None:
    plugin = Plugin("worse")

    @plugin.command("break", ack=Ack.RECEIVED, retry=Retry(attempts=1))
    async def break_(ctx: Context) -> str:
        raise ValueError

    @plugin.error(ValueError)
    async def worse(ctx: Context[Event], error: ValueError) -> Reply:
        await ctx.reply("dropped")
        if returned is None:
            raise OSError
        return returned  # type: ignore[return-value]

    async with chat(plugin, apology=APOLOGY, raise_failures=False) as room:
        await room.user("Ann").says("/break")

        assert room.replies == [APOLOGY]
        (letter,) = room.dead_letters
        assert letter.handler.endswith("break_")
        assert letter.error == "ValueError"


async def test_a_dialog_goes_on_with_its_dead_letter_only_although_the_error_handler_fails() -> None:
    plugin, broken, store = Plugin("survey"), [True], MemoryStore()

    @plugin.command("ask", retry=Retry(attempts=1))
    async def ask(talk: Dialog) -> str:
        name = await talk.ask("Who?")
        if broken:
            raise ValueError
        return f"Hi {name}"

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return f"echo {ctx.text}"

    @plugin.error(ValueError)
    async def worse(ctx: Context[Event], error: ValueError) -> str:
        raise OSError

    async with chat(plugin, store=store, raise_failures=False) as room:
        await room.user("Ann").says("/ask", "Ann", "between")
        broken.clear()
        (letter,) = await store.dead_letters(room.bot.user)
        await store.commit(room.bot.user, [RequestRetry(letter.id)])
        await room.restart()

        assert room.replies == ["Who?", "echo between", "Hi Ann"]


async def test_bots_do_not_answer_each_others_apologies() -> None:
    plugin = Plugin("echo")

    @plugin.message(from_bots=True)
    async def echo(ctx: Context) -> str:
        return ctx.text

    async with chat(breaking(answers=False), bots={"echo": [plugin]}, apology=APOLOGY, raise_failures=False) as room:
        await room.user("Ann").says("one")
        await room.advance(minutes=1)

        assert len(room.said) < 10
