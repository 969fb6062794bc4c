"""Texts that have no UTF-8 form, and what is no text: repaired, or refused where the author's line is to be seen."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from chatbot import Context, Dialog, Plugin, State, TimerFired
from chatbot.testing import chat
from tests.support.failures import ONCE, STILL_HERE, chat_with_failures

pytestmark = pytest.mark.virtual_time

BAD = "done \ud83d"
READ = "done \ufffd"


def plugin() -> Plugin:
    plugin = Plugin("p")

    @plugin.command("returns")
    async def returns(ctx: Context) -> str:
        return BAD

    @plugin.command("replies")
    async def replies(ctx: Context) -> None:
        await ctx.reply(BAD)

    @plugin.command("html")
    async def html(ctx: Context) -> None:
        await ctx.reply(html=BAD)

    @plugin.command("edits")
    async def edits(ctx: Context) -> None:
        await (await ctx.reply("first")).edit(BAD)

    @plugin.command("says")
    async def says(talk: Dialog) -> None:
        await talk.say(BAD)

    @plugin.command("ends")
    async def ends(talk: Dialog) -> str:
        return BAD

    @plugin.command("streams")
    async def streams(ctx: Context) -> None:
        async def words() -> AsyncIterator[str]:
            yield "done "
            await anyio.sleep(5)
            yield "\ud83d"

        await ctx.stream(words())

    @plugin.message()
    async def others(ctx: Context) -> str:
        return "still here"

    return plugin


@pytest.mark.parametrize("command", ["returns", "replies", "html", "edits", "says", "ends", "streams"])
async def test_half_an_emoji_in_what_people_read_is_replaced(command: str) -> None:
    async with chat(plugin()) as room:
        await room.user("Ann").says(f"/{command}")

        assert room.replies == [READ]


async def test_halves_that_meet_in_a_stream_are_joined() -> None:
    plugin = Plugin("p")

    @plugin.command("ask")
    async def ask(ctx: Context) -> None:
        async def tokens() -> AsyncIterator[str]:
            for token in ("Sure \ud83d", "\ude00 here it is"):
                await anyio.sleep(2)
                yield token

        await ctx.stream(tokens())

    async with chat(plugin) as room:
        await room.user("Ann").says("/ask")

        assert room.replies == ["Sure \U0001f600 here it is"]


@dataclass
class Kept:
    text: str = ""


async def test_half_an_emoji_in_a_state_is_refused_with_a_dead_letter_that_names_the_handler() -> None:
    plugin = Plugin("p")

    @plugin.command("keep")
    async def keep(ctx: Context, kept: State[Kept]) -> None:
        kept.value.text = BAD

    async with chat_with_failures(plugin) as room:
        await room.user("Ann").says("/keep", "next")

        assert room.replies == [STILL_HERE]
        (letter,) = room.dead_letters
        assert letter.handler.endswith("keep")
        assert "half of a surrogate pair" in letter.error


async def test_half_an_emoji_in_a_question_is_refused_as_its_answer_belongs_to_its_words() -> None:
    plugin = Plugin("p")

    @plugin.command("ask", retry=ONCE)
    async def ask(talk: Dialog) -> None:
        await talk.ask(BAD)

    async with chat_with_failures(plugin) as room:
        await room.user("Ann").says("/ask", "next")

        assert room.replies == [STILL_HERE]
        (letter,) = room.dead_letters
        assert letter.error.startswith("ValueError: ask() got a text with half of a surrogate pair")


async def test_half_an_emoji_in_the_arguments_of_a_timer_is_refused_where_it_is_set() -> None:
    plugin = Plugin("p")

    @plugin.timer
    async def ring(ctx: Context[TimerFired], text: str, more: list[Kept] | None = None) -> str:
        return text

    @plugin.command("later", retry=ONCE)
    async def later(ctx: Context) -> None:
        await ctx.later(timedelta(seconds=1), ring, text=BAD)

    @plugin.command("deep", retry=ONCE)
    async def deep(ctx: Context) -> None:
        await ctx.later(timedelta(seconds=1), ring, text="", more=[Kept(BAD)])

    @plugin.command("talk", retry=ONCE)
    async def talk(talk: Dialog) -> None:
        await talk.later(timedelta(seconds=1), ring, text=BAD)

    async with chat_with_failures(plugin) as room:
        await room.user("Ann").says("/later", "/deep", "/talk")
        await room.advance(minutes=1)

        assert room.replies == []
        dead_letters = room.dead_letters
        assert [letter.handler.rpartition(".")[2] for letter in dead_letters] == ["later", "deep", "talk"]
        assert all("ring.text has half" in letter.error or "ring.more" in letter.error for letter in dead_letters)


@pytest.mark.parametrize("kind", ["choices", "confirm"])
async def test_half_an_emoji_in_what_can_be_answered_is_refused_like_one_in_the_question(kind: str) -> None:
    plugin = Plugin("p")

    @plugin.command("ask", retry=ONCE)
    async def ask(talk: Dialog) -> None:
        if kind == "choices":
            await talk.ask("Which?", choices=["one", BAD])
        else:
            await talk.confirm("Well?", yes=[BAD])

    async with chat_with_failures(plugin) as room:
        await room.user("Ann").says("/ask")

        (letter,) = room.dead_letters
        assert "half of a surrogate pair" in letter.error


Call = Callable[[Any], Awaitable[object]]


REFUSED: list[tuple[str, Call]] = [
    ("bytes", lambda ctx: ctx.reply(b"done")),
    ("html", lambda ctx: ctx.reply(html=7)),
    ("metadata", lambda ctx: ctx.reply("x", metadata={"key": 7})),
    ("half in metadata", lambda ctx: ctx.reply("x", metadata={"key": BAD})),
    ("half in a key of metadata", lambda ctx: ctx.reply("x", metadata={BAD: "value"})),
    ("thread", lambda ctx: ctx.reply("x", thread=BAD)),
    ("edit", lambda ctx: ctx.edit("1", b"x")),
    ("message", lambda ctx: ctx.edit(7, "x")),
    ("delete", lambda ctx: ctx.delete(BAD)),
    ("topic", lambda ctx: ctx.update_topic(b"x")),
    ("add", lambda ctx: ctx.add_participants(7)),
    ("remove", lambda ctx: ctx.remove_participant(BAD)),
    ("stream", lambda ctx: ctx.stream("text")),
    ("once", lambda ctx: ctx.once(BAD, lambda: datetime.now(UTC))),
    ("cancel", lambda ctx: ctx.cancel(7)),
]


@pytest.mark.parametrize(("name", "call"), REFUSED)
async def test_what_cannot_be_done_is_refused_at_the_call(name: str, call: Call) -> None:
    plugin = Plugin("p")

    @plugin.command("x", retry=ONCE)
    async def x(ctx: Context) -> None:
        await call(ctx)

    async with chat_with_failures(plugin) as room:
        await room.user("Ann").says("/x", "next")

        assert room.replies == [STILL_HERE]
        (failure,) = room.failures
        assert isinstance(failure.error, TypeError | ValueError)
        assert "await call(ctx)" in "".join(traceback.format_exception(failure.error))
        (letter,) = room.dead_letters
        assert letter.handler.endswith("x")
