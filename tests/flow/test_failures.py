from __future__ import annotations

from datetime import timedelta

import pytest

from chatbot import ActionFailed, Context, Plugin, Retry
from chatbot.bot import BotSettings
from chatbot.errors import Rejected
from chatbot.polling.cadence import Cadence
from chatbot.testing import chat
from tests.support.plugins import echo

pytestmark = pytest.mark.virtual_time


def fragile() -> Plugin:
    plugin = Plugin("fragile")

    @plugin.message()
    async def echo(ctx: Context) -> str:
        await ctx.reply("half an answer")
        if ctx.text == "bad":
            msg = "cannot digest this"
            raise ValueError(msg)
        return ctx.text

    return plugin


async def test_a_failing_handler_fails_the_act_that_caused_it() -> None:
    async with chat(fragile()) as room:
        with pytest.raises(ValueError, match="cannot digest this") as caught:
            await room.user("Ann").says("bad")

        assert caught.value.__notes__ == ["raised in bot 'bot' while it handled: MessageReceived"]


async def test_a_failing_handler_sends_nothing_and_affects_nothing_else() -> None:
    async with chat(fragile(), raise_failures=False) as room:
        await room.user("Ann").says("bad", "good")

        assert room.replies == ["half an answer", "good"]
        assert {(one.bot, str(one.error)) for one in room.failures} == {("bot", "cannot digest this")}


async def test_a_failing_handler_affects_no_other_thread_and_no_other_bot() -> None:
    async with chat(bots={"fragile": [fragile()], "echo": [echo()]}, raise_failures=False) as room:
        other = room.another()
        await room.user("Ann").says("bad")
        await other.user("Bob").says("good")

        assert room.replies == ["bad"]
        assert sorted(other.replies) == ["good", "good", "half an answer"]


async def test_a_failed_event_is_not_handled_again_after_a_restart() -> None:
    async with chat(fragile(), raise_failures=False) as room:
        await room.user("Ann").says("bad")
        attempts = len(room.failures)
        await room.restart()

        assert len(room.failures) == attempts


async def test_a_handler_that_succeeds_when_it_is_tried_again_answers_after_all() -> None:
    plugin = Plugin("hesitant")
    seen: list[str] = []

    @plugin.message()
    async def hesitate(ctx: Context) -> str:
        seen.append(ctx.text)
        if len(seen) == 1:
            msg = "not yet"
            raise ValueError(msg)
        return ctx.text

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("hi")

        assert seen == ["hi", "hi"]
        assert room.replies == ["hi"]


async def test_a_thread_that_waits_for_a_retry_is_polled_once_a_second_at_most_and_answers_at_once() -> None:
    attempts: list[str] = []
    plugin = Plugin("slow to succeed")

    @plugin.message(retry=Retry(4, first=timedelta(seconds=8)))
    async def answer(ctx: Context) -> str:
        attempts.append(ctx.text)
        if len(attempts) < 4:
            raise ValueError
        return "at last"

    settings = BotSettings(cadence=Cadence(interval=0.2, idle=5))
    async with chat(plugin, settings=settings, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.joins()
        before = len(room.emulator.calls)
        await ann.says("hi")

        polls = [call for call in list(room.emulator.calls)[before:] if call.operation == "list_messages"]
        question, reply = room.messages[-2:]
        assert room.replies == ["at last"]
        assert len(polls) < (reply.version - question.version) / 1000 + 10
        assert not [call for call in room.emulator.calls if call.status == 429]


async def test_an_action_that_the_service_refuses_fails_the_test_and_is_a_dead_letter() -> None:
    plugin = Plugin("inviting")

    @plugin.message()
    async def invite(ctx: Context) -> None:
        await ctx.update_topic("tea")

    async with chat(plugin) as room:
        room.emulator.faults.add(f"update_thread:400,user={room.bot.user}")
        with pytest.raises(Rejected, match="UpdateTopic was refused"):
            await room.user("Ann").says("hi")

        (letter,) = room.dead_letters
        assert letter.handler == "UpdateTopic"
        assert isinstance(letter.event, ActionFailed)


async def test_an_action_that_is_refused_fails_no_test_of_a_bot_that_deals_with_it() -> None:
    plugin = Plugin("inviting")

    @plugin.message()
    async def invite(ctx: Context) -> None:
        await ctx.update_topic("tea")

    @plugin.on(ActionFailed)
    async def explain(ctx: Context[ActionFailed]) -> str:
        return "I may not do that."

    async with chat(plugin) as room:
        room.emulator.faults.add(f"update_thread:400,user={room.bot.user}")
        await room.user("Ann").says("hi")

        assert room.replies == ["I may not do that."]


async def test_a_handler_that_keeps_failing_leaves_a_dead_letter() -> None:
    async with chat(fragile(), raise_failures=False) as room:
        await room.user("Ann").says("good")
        assert room.dead_letters == []
        await room.user("Ann").says("bad")

        assert [(letter.attempts, letter.error) for letter in room.dead_letters] == [
            (3, "ValueError: cannot digest this")
        ]
