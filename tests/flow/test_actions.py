"""Actions of handlers are done in order, each once; a refused one is logged and kept."""

from __future__ import annotations

import pytest

from chatbot import ActionFailed, Context, MessageReceived, Participant, Plugin, Rest, UserId
from chatbot.stores import MemoryStore
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time

TEAMS_USER = UserId("8:orgid:5b4a1d2e-0000-4000-8000-000000000001")


def doer() -> tuple[Plugin, list[ActionFailed]]:
    plugin, failures = Plugin("doer"), list[ActionFailed]()

    @plugin.command("invite")
    async def invite(ctx: Context, ids: Rest) -> str:
        await ctx.add_participants(*(Participant(UserId(one), "guest") for one in ids.split()))
        return "invited"

    @plugin.command("topic")
    async def topic(ctx: Context, text: Rest) -> None:
        await ctx.update_topic(text)

    @plugin.command("draft")
    async def draft(ctx: Context) -> None:
        first = await ctx.reply("draft")
        await first.edit("final")
        gone = await ctx.reply("never mind")
        await gone.delete()

    @plugin.on(ActionFailed)
    async def regret(ctx: Context[ActionFailed]) -> str:
        failures.append(ctx.event)
        return "that did not work"

    return plugin, failures


async def test_an_own_message_can_be_edited_and_deleted_before_it_was_ever_sent() -> None:
    plugin, _ = doer()
    async with chat(plugin) as room:
        await room.user("Ann").says("/draft")

        assert room.replies == ["final"]


async def test_a_user_who_cannot_be_added_is_retried_alone_then_given_up_with_an_event_and_a_dead_letter() -> None:
    plugin, failures = doer()
    store = MemoryStore()
    async with chat(plugin, store=store) as room:
        ann, carl = room.user("Ann"), room.another().user("Carl")
        await ann.says("hello")

        await ann.says(f"/invite {carl.user} {TEAMS_USER}")
        await room.settle()

        assert room.replies == ["invited", "that did not work"]
        assert [failure.reason for failure in failures] == [failures[0].reason]
        assert TEAMS_USER in failures[0].reason
        added = [one for one in room.messages if one.type == "participantAdded"]
        assert len(added) == 2, "the thread's beginning, and Carl once"
        dead_letters = await store.dead_letters(room.bot.user)
        assert [letter.handler for letter in dead_letters] == ["AddParticipants"]
        assert not isinstance(dead_letters[0].event, MessageReceived)


async def test_a_topic_is_given_once_although_the_answer_was_lost() -> None:
    plugin, _ = doer()
    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("hello")
        room.emulator.faults.add(f"update_thread:reset-after,times=1,user={room.bot.user}")

        await ann.says("/topic Plans")

        topics = [one for one in room.messages if one.type == "topicUpdated"]
        assert len(topics) == 2, "the thread's beginning, and once more"
