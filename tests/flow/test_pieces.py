"""A text too long for one message is sent in several, and is one message to its handle."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import pytest

from chatbot import ActionKey, Context, Dialog, Plugin, Rest, Retry, State
from chatbot.message_size import MAX_MESSAGE_BYTES
from chatbot.testing import Room, chat
from chatbot.testing.crash_points import crash_points
from tests.support.kills import sample_and_all

pytestmark = pytest.mark.virtual_time

ONCE = Retry(attempts=1)
LONG = "long " * 16_000  # three messages
HTML = f"<p>{'<b>word</b> ' * 3000}</p>"
CARD = json.dumps({"type": "AdaptiveCard", "body": [{"type": "TextBlock", "text": "word " * 8}] * 500})


@dataclass
class Last:
    key: ActionKey = ActionKey("")  # noqa: RUF009 -- it is plain text


async def tokens() -> AsyncIterator[str]:
    for _ in range(60):
        yield "x" * 999 + "\n"
        await anyio.sleep(1)


def speaker() -> Plugin:
    plugin = Plugin("speaker")

    @plugin.command("now", retry=ONCE)
    async def now(ctx: Context, size: int, *, delete: bool = False) -> None:
        sent = await ctx.reply(LONG)
        await (sent.delete() if delete else sent.edit("word " * size))

    @plugin.command("twice", retry=ONCE)
    async def twice(ctx: Context) -> None:
        sent = await ctx.reply(LONG)
        await sent.edit("word " * 8000)
        await sent.edit("short")
        await sent.edit("word " * 8000)

    @plugin.command("say", retry=ONCE)
    async def say(ctx: Context, last: State[Last]) -> None:
        last.value = Last((await ctx.reply(LONG)).key)

    @plugin.command("stream", retry=ONCE)
    async def stream(ctx: Context, last: State[Last]) -> None:
        last.value = Last((await ctx.stream(tokens())).key)

    @plugin.command("edit", retry=ONCE)
    async def edit(ctx: Context, last: State[Last], size: int) -> None:
        await ctx.edit(last.value.key, "word " * size)

    @plugin.command("delete", retry=ONCE)
    async def delete(ctx: Context, last: State[Last]) -> None:
        await ctx.delete(last.value.key)

    @plugin.command("html", retry=ONCE)
    async def html(ctx: Context) -> None:
        await ctx.reply(html=HTML)

    @plugin.command("card", retry=ONCE)
    async def card(ctx: Context) -> None:
        await ctx.reply(CARD)

    @plugin.command("returned", retry=ONCE)
    async def returned(ctx: Context) -> str:
        return CARD

    @plugin.command("grown", retry=ONCE)
    async def grown(ctx: Context) -> None:
        await (await ctx.reply("one moment…")).edit(LONG)

    @plugin.command("grown-html", retry=ONCE)
    async def grown_html(ctx: Context) -> None:
        await (await ctx.reply(html="<p>one moment…</p>")).edit(HTML)

    @plugin.command("metadata", retry=ONCE)
    async def metadata(ctx: Context) -> None:
        await ctx.reply("hi", metadata={"card": CARD})

    @plugin.command("number", retry=ONCE)
    async def number(ctx: Context) -> None:
        await ctx.reply("hi", metadata={"number": 7})  # type: ignore[dict-item]

    @plugin.command("tagged")
    async def tagged(ctx: Context) -> None:
        await ctx.reply(LONG, metadata={"tags": "x" * 9000})

    @plugin.command("ask-html", retry=ONCE)
    async def ask_html(talk: Dialog) -> None:
        await talk.say(html=HTML)

    @plugin.command("notes")
    async def notes(ctx: Context, words: Rest) -> str:
        return f"[{words}] " + LONG

    return plugin


def sizes(room: Room) -> list[int]:
    return [len(text.split()) for text in room.replies]


@pytest.mark.parametrize(("typed", "left"), [("/now 3", [3]), ("/now 8000", [8000]), ("/now 3 --delete", [])])
async def test_a_handle_edits_and_deletes_all_that_was_said(typed: str, left: list[int]) -> None:
    async with chat(speaker(), quotas=False) as room:
        await room.user("Ann").says(typed)

        assert sum(sizes(room)) == sum(left)
        assert len(room.replies) == (2 if left == [8000] else len(left))


@pytest.mark.parametrize("said", ["/say", "/stream"])
async def test_a_later_event_edits_and_deletes_all_pieces_also_after_a_restart(said: str) -> None:
    async with chat(speaker(), quotas=False) as room:
        ann = room.user("Ann")
        await ann.says(said)
        assert len(room.replies) == 3
        await room.restart()
        await ann.says("/edit 8000")
        assert sum(sizes(room)) == 8000
        assert len(room.replies) == 2
        await room.restart()
        await ann.says("/edit 3")
        assert sizes(room) == [3]
        await ann.says("/delete")
        assert room.replies == []


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("/edit 60000", "edit() got 300,000 bytes, which need 12 messages; this one takes at most 3 times 27,000"),
        ("/now 60000", "edit() got 300,000 bytes, which need 12 messages; this one takes at most 3 times 27,000"),
        ("/twice", "edit() got 40,000 bytes, which need 2 messages; this one takes at most 27,000"),
        ("/grown", "edit() got 80,000 bytes, which need 3 messages; this one takes at most 27,000"),
        ("/grown-html", f"edit() got {len(HTML):,} bytes, which need 2 messages; this one takes at most 27,000"),
        ("/html", f"reply() got html of {len(HTML):,} bytes; a message takes at most 27,000"),
        ("/ask-html", f"a dialog got html of {len(HTML):,} bytes; a message takes at most 27,000"),
        ("/card", f"reply() got JSON text of {len(CARD):,} bytes; a message takes at most 27,000"),
        ("/returned", f"reply() got JSON text of {len(CARD):,} bytes; a message takes at most 27,000"),
        ("/metadata", f"reply() got metadata of {len(CARD) + 4:,} bytes; a message takes at most 20,000"),
        ("/number", "metadata['number'] takes a text, not int"),
    ],
)
async def test_what_is_too_large_fails_its_handler_with_the_size_and_the_limit(typed: str, reason: str) -> None:
    async with chat(speaker(), quotas=False, raise_failures=False) as room:
        await room.user("Ann").says("/say")
        said = room.replies
        await room.user("Ann").says(typed)

        assert [str(failure.error).startswith(reason) for failure in room.failures] == [True]
        assert room.replies[: len(said)] == said


async def test_a_message_that_was_shortened_does_not_grow_again() -> None:
    async with chat(speaker(), quotas=False, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("/say", "/edit 3", "/edit 8000")

        assert sizes(room) == [3]
        assert "at most 27,000" in str(room.failures[0].error)


async def test_parts_of_a_long_reply_leave_space_for_the_metadata_of_each() -> None:
    async with chat(speaker(), quotas=False) as room:
        await room.user("Ann").says("/tagged")

        assert sum(sizes(room)) == 16_000
        assert max(len(text.encode()) for text in room.replies) < MAX_MESSAGE_BYTES - 7000


async def test_a_long_text_that_only_begins_like_json_is_sent_in_pieces() -> None:
    async with chat(speaker(), quotas=False) as room:
        await room.user("Ann").says("/notes a")

        assert sum(sizes(room)) == 16_001


def forgetful() -> Plugin:
    """Keeps the handle outside of the store: its key depends on when a message came, which a kill may change."""
    plugin = Plugin("forgetful")
    keys: list[ActionKey] = []

    @plugin.command("say")
    async def say(ctx: Context) -> None:
        keys.append((await ctx.reply(LONG)).key)

    @plugin.command("edit")
    async def edit(ctx: Context, size: int) -> None:
        await ctx.edit(keys[-1], "word " * size)

    @plugin.command("delete")
    async def delete(ctx: Context) -> None:
        await ctx.delete(keys[-1])

    return plugin


@pytest.mark.timeout(300)
@sample_and_all
async def test_a_kill_between_two_pieces_leaves_no_piece_undone(every: int) -> None:
    async def script(room: Room) -> None:
        ann = room.user("Ann")
        await ann.says("/say")
        await ann.says("/edit 8000")
        await ann.says("/edit 3")
        await ann.says("/say")
        await ann.says("/delete")

    report = await crash_points(script, forgetful(), every=every)

    assert not report.violations
