"""What a reply quotes."""

from __future__ import annotations

import pytest

from chatbot import Context, MessageReceived, ParticipantsAdded, SendMessage
from chatbot.dispatch.context import MAX_QUOTE, quoted
from chatbot.errors import StateError
from chatbot.testing import EventStream, context


def test_a_reply_is_below_the_lines_it_quotes() -> None:
    assert quoted(" one\n\ntwo ", "Yes.", "text") == "> one\n>\n> two\n\nYes."


def test_an_html_reply_is_below_its_quote_with_brackets_as_they_were_typed() -> None:
    assert quoted("a < b\nc", "<b>Yes</b>", "html") == "<blockquote>a &lt; b<br>c</blockquote><b>Yes</b>"


def test_only_the_beginning_of_a_long_message_is_quoted() -> None:
    assert quoted("x" * (MAX_QUOTE + 1), "Yes.", "text") == f"> {'x' * MAX_QUOTE}…\n\nYes."


def test_a_message_without_text_is_not_quoted() -> None:
    assert quoted(" ", "Yes.", "text") == "Yes."


async def test_a_reply_quotes_the_message_of_its_event_as_plain_text() -> None:
    html = EventStream().user("Ann").said(html="<p>a &lt; b</p>")
    ctx: Context[MessageReceived] = context(html)

    await ctx.reply("Yes.", quote=True)
    await ctx.reply(html="<i>No.</i>", quote=True)
    sent = await ctx.reply("", quote=True)

    assert sent.is_empty
    assert ctx.actions == [
        SendMessage("> a < b\n\nYes."),
        SendMessage("<blockquote>a &lt; b</blockquote><i>No.</i>", type="html"),
    ]


async def test_an_event_without_text_cannot_be_quoted() -> None:
    stream = EventStream()
    ctx = context(stream.bot_joined())

    with pytest.raises(StateError, match="ThreadJoined has no message that reply"):
        await ctx.reply("Hello.", quote=True)


async def test_a_system_message_has_nothing_to_quote() -> None:
    stream = EventStream()
    ctx: Context[ParticipantsAdded] = context(stream.user("Ann").joined())

    await ctx.reply("Hello.", quote=True)

    assert ctx.actions == [SendMessage("Hello.")]
