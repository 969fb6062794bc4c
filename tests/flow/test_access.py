"""Who is answered, how much, and when talks between machines end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chatbot import Context, Dialog, Plugin, UserId, admin
from chatbot.dispatch import BotInfo, Rate
from chatbot.dispatch.access import MAX_ANSWERS_IN_A_ROW, MAX_ANSWERS_TO_BOT
from chatbot.testing import EventStream, chat

pytestmark = pytest.mark.virtual_time

LIMIT = "That is a lot at once. Please give me a moment, and then ask again."


def echo(*, from_bots: bool = False) -> Plugin:
    plugin = Plugin("echo")

    @plugin.message(from_bots=from_bots)
    async def repeat(ctx: Context) -> str:
        return ctx.text

    return plugin


async def test_with_an_allow_list_nobody_else_but_admins_is_answered() -> None:
    async with chat(echo(), allow=["Ann"], admins=["Cem"]) as room:
        await room.user("Ann").says("a")
        await room.user("Bob").says("b")
        await room.user("Cem").says("c")

        assert room.replies == ["a", "c"]
        assert room.read["bot"] == "c"


async def test_an_admins_command_is_no_command_for_others() -> None:
    plugin = Plugin("ops")

    @plugin.command("stop", admin)
    async def stop(ctx: Context) -> str:
        return "stopped"

    async with chat(plugin, echo(), admins=["Ann"]) as room:
        await room.user("Ann").says("/stop")
        await room.user("Bob").says("/stop")

        assert room.replies == ["stopped", "/stop"]


async def test_the_admin_filter_holds_in_an_event_stream_too() -> None:
    plugin = Plugin("ops")

    @plugin.message(admin)
    async def obey(ctx: Context) -> str:
        return "yes"

    stream = EventStream(
        bot=BotInfo("bot", UserId("8:acs:bot"), "Bot", admins=frozenset({UserId("8:acs:test_00000001")}))
    )
    ann, bob = stream.user("Ann"), stream.user("Bob")
    stream += [ann.said("go"), bob.said("go")]

    assert (await stream.into(plugin)).replies == ["yes"]


async def test_a_rate_limit_bounds_the_answers_to_a_user_and_is_announced_once() -> None:
    async with chat(echo(), rate=Rate(3, timedelta(minutes=1)), admins=["Cem"]) as room:
        ann, bob, cem = room.user("Ann"), room.user("Bob"), room.user("Cem")
        await ann.says("1", "2", "3", "4", "5")
        await bob.says("bob")
        await cem.says("a", "b", "c", "d")
        assert room.replies == ["1", "2", "3", LIMIT, "bob", "a", "b", "c", "d"]

        await room.advance(minutes=1)
        await ann.says("6", "7", "8", "9")
        await room.another().user("Ann").says("elsewhere")

        assert room.replies[-4:] == ["6", "7", "8", LIMIT]


async def test_a_rate_limit_and_its_announcement_survive_a_restart() -> None:
    async with chat(echo(), rate=Rate(2, timedelta(days=1))) as room:
        ann = room.user("Ann")
        await ann.says("1", "2")
        await room.restart()
        await ann.says("3")
        await room.restart()
        await ann.says("4")
        assert room.replies == ["1", "2", LIMIT]

        await room.advance(days=1)
        await ann.says("5")
        assert room.replies[3:] == ["5"]


async def test_the_rate_limit_of_messages_during_downtime_goes_by_when_they_were_sent() -> None:
    async with chat(echo(), rate=Rate(2, timedelta(minutes=1))) as room:
        ann = room.user("Ann")
        await ann.says("1")
        await room.kill()
        with room.not_waiting():
            await ann.says("2", "3")
            await room.advance(minutes=2)
            await ann.says("4", "5")
        await room.start()

        assert room.replies == ["1", "2", LIMIT, "4", "5"]


async def test_the_rate_limit_and_dialogs_are_stored_side_by_side() -> None:
    plugin = Plugin("dialog")

    @plugin.command("order")
    async def order(talk: Dialog) -> str:
        return f"{await talk.ask('What?')} {await talk.ask('How many?')}"

    async with chat(plugin, rate=Rate(3, timedelta(days=1))) as room:
        await room.user("Ann").says("/order", "tea", "2", "/order")

        assert room.replies == ["What?", "How many?", "tea 2", LIMIT]


async def test_what_the_bot_does_not_answer_is_not_limited() -> None:
    plugin = Plugin("picky")

    @plugin.command("dice")
    async def dice(ctx: Context) -> str:
        return "6"

    async with chat(plugin, rate=Rate(2, timedelta(minutes=1))) as room:
        await room.user("Ann").says(*"abcdefgh", "/dice")

        assert room.replies == ["6"]


async def test_an_event_that_is_tried_again_is_one_answer() -> None:
    plugin, attempts = Plugin("shaky"), []

    @plugin.message()
    async def shaky(ctx: Context) -> str:
        attempts.append(ctx.text)
        if attempts.count(ctx.text) < 2:
            raise ConnectionError
        return ctx.text

    async with chat(plugin, rate=Rate(2, timedelta(minutes=1)), raise_failures=False) as room:
        await room.user("Ann").says("a", "b", "c")

        assert room.replies == ["a", "b", LIMIT]


async def test_two_bots_that_answer_each_other_stop_and_continue_when_a_user_writes() -> None:
    async with chat(bots={"one": [echo(from_bots=True)], "two": [echo(from_bots=True)]}) as room:
        ann = room.user("Ann")
        await ann.says("hello")
        first = len(room.replies)
        await ann.says("hello again")

        assert 2 * MAX_ANSWERS_TO_BOT <= first <= 4 * MAX_ANSWERS_TO_BOT + 4
        assert len(room.replies) > first


async def test_a_machine_that_answers_every_answer_is_left_alone_in_the_end() -> None:
    """It has no key in its messages; only its endurance gives it away."""
    stream = EventStream()
    ann, machine = stream.user("Ann"), stream.user("Machine")
    stream += [machine.said(str(number)) for number in range(MAX_ANSWERS_IN_A_ROW + 20)]
    stream += [ann.said("What was that?"), machine.said("hello")]

    handled = await stream.into(echo())

    assert handled.replies == [*map(str, range(MAX_ANSWERS_IN_A_ROW)), "What was that?", "hello"]


async def test_a_user_who_writes_for_long_with_pauses_is_always_answered() -> None:
    stream = EventStream()
    ann = stream.user("Ann")
    for number in range(MAX_ANSWERS_IN_A_ROW + 20):
        if number == MAX_ANSWERS_IN_A_ROW // 2:
            for _ in range(60):
                stream.tick()
        stream += ann.said(str(number))

    assert len((await stream.into(echo())).replies) == MAX_ANSWERS_IN_A_ROW + 20


async def test_people_who_take_turns_are_no_machines() -> None:
    stream = EventStream()
    ann, bob = stream.user("Ann"), stream.user("Bob")
    stream += [person.said("hi") for _ in range(MAX_ANSWERS_IN_A_ROW) for person in (ann, bob)]

    assert len((await stream.into(echo())).replies) == 2 * MAX_ANSWERS_IN_A_ROW
