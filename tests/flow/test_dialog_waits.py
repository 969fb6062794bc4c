"""How long a dialog waits for an answer: over times without the bot, and over its absence from the thread."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chatbot import Dialog, DialogTimeout
from chatbot.testing import chat
from tests.flow.dialogs import plugin_of


async def patient(talk: Dialog) -> str:
    try:
        answer = await talk.ask("Still there?", timeout=timedelta(minutes=10))
    except DialogTimeout:
        answer = await talk.ask("Hello?", timeout=timedelta(minutes=10))
    return f"{answer} {talk.user == talk.event.message.sender}"


@pytest.mark.virtual_time
async def test_a_question_times_out_also_while_the_bot_is_down_and_the_next_one_on_its_own() -> None:
    async with chat(plugin_of(patient)) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        await room.advance(minutes=9)
        assert room.replies == ["Still there?"]
        await room.kill()
        await room.advance(minutes=5)
        await room.start()
        assert room.replies == ["Still there?", "Hello?"]
        await room.advance(minutes=11)
        await ann.says("late")

        assert room.replies[2:] == ["No answer came in time, so I have stopped waiting for one.", "echo late"]


@pytest.mark.virtual_time
async def test_an_answer_in_time_is_not_overtaken_by_the_end_of_the_wait() -> None:
    async with chat(plugin_of(patient)) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        await room.kill()
        await ann.says("here")
        await room.advance(minutes=30)
        await room.start()
        await room.advance(minutes=30)

        assert room.replies == ["Still there?", "here True"]


@pytest.mark.virtual_time
async def test_a_dialog_waits_for_a_bot_that_was_removed_and_goes_on_when_it_is_back() -> None:
    async with chat(plugin_of(patient)) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        await ann.removes(room.bot)
        await room.advance(hours=1)
        await ann.adds(room.bot)
        await ann.says("Ann")

        assert room.replies == ["Still there?", "Hello?", "Ann True"]
