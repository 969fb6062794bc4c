from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from chatbot import (
    AddParticipants,
    BotStarted,
    DeleteMessage,
    EditMessage,
    MessageId,
    Participant,
    RemoveParticipant,
    SendMessage,
    ThreadId,
    UpdateTopic,
    UserId,
)
from chatbot.conversation import UnitOfWork
from chatbot.dispatch.action_buffer import ActionBuffer
from chatbot.dispatch.event_view import EventView
from chatbot.errors import StateError
from chatbot.testing import EventStream, context
from tests.unit.dispatch.talk import BOT

ELSEWHERE = ThreadId("19:elsewhere@thread.v2")


def started() -> BotStarted:
    return BotStarted(bot=BOT.user, occurred_on=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_context_knows_the_message_its_sender_and_its_thread() -> None:
    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    event = ann.said(html="<p>fish &amp; chips</p>")

    ctx = context(event, bot=BOT)

    assert ctx.event is event
    assert ctx.message is event.message
    assert ctx.sender == Participant(ann.user, "Ann")
    assert ctx.thread == stream.thread
    assert ctx.bot is BOT
    assert ctx.text == "fish & chips"
    assert ctx.html == "<p>fish &amp; chips</p>"


def test_a_text_message_has_no_html() -> None:
    ctx = context("1 < 2")

    assert ctx.text == "1 < 2"
    assert ctx.html is None


def test_the_sender_of_a_system_message_is_who_caused_it() -> None:
    ann = EventStream().user("Ann")

    assert context(ann.joined()).sender.user == ann.user


async def test_everything_asked_for_is_written_down_in_order() -> None:
    ctx = context("hi")

    await ctx.reply("text")
    await ctx.reply(html="<b>html</b>", thread=ELSEWHERE, metadata={"a": "b"})
    await ctx.edit(MessageId("17"), "new")
    await ctx.delete(MessageId("17"))
    await ctx.add_participants(UserId("8:acs:bob"), Participant(UserId("8:acs:cy"), "Cy"))
    await ctx.remove_participant(Participant(UserId("8:acs:cy")))
    await ctx.update_topic("Lunch")
    await ctx.leave()

    assert ctx.actions == [
        SendMessage("text"),
        SendMessage("<b>html</b>", "html", ELSEWHERE, metadata={"a": "b"}),
        EditMessage(MessageId("17"), "new"),
        DeleteMessage(MessageId("17")),
        AddParticipants((Participant(UserId("8:acs:bob")), Participant(UserId("8:acs:cy"), "Cy"))),
        RemoveParticipant(UserId("8:acs:cy")),
        UpdateTopic("Lunch"),
        RemoveParticipant(ctx.bot.user),
    ]


async def test_a_sent_message_is_edited_and_deleted_by_its_key_where_it_was_sent() -> None:
    ctx = context("hi")

    sent = await ctx.reply("one moment", thread=ELSEWHERE)
    await sent.edit("done")
    await sent.delete()
    await ctx.edit(sent.key, "later", thread=ELSEWHERE)

    assert ctx.actions[1:] == [
        EditMessage(sent.key, "done", ELSEWHERE),
        DeleteMessage(sent.key, ELSEWHERE),
        EditMessage(sent.key, "later", ELSEWHERE),
    ]


async def test_the_same_actions_have_the_same_keys_in_every_attempt_and_different_ones_in_another_handler() -> None:
    event = EventStream().user("Ann").said("hi")
    keys: list[list[object]] = []

    for handler in ("a", "a", "b"):
        view = EventView(event, BOT)
        buffer = ActionBuffer(view, UnitOfWork(view.event))
        for text in ("one", "two"):
            buffer.add(handler, SendMessage(text))
        keys.append([keyed.key for keyed in buffer.keyed_actions])

    assert keys[0] == keys[1]
    assert len({*keys[0], *keys[2]}) == 4


@pytest.mark.parametrize("nothing", ["", " \n"])
async def test_an_empty_reply_is_no_reply(nothing: str) -> None:
    ctx = context("hi")

    sent = await ctx.reply(nothing)

    assert sent.is_empty
    assert ctx.actions == []
    with pytest.raises(StateError, match="nothing was sent"):
        await sent.edit("late")


async def test_nothing_can_be_asked_for_when_the_handler_has_ended() -> None:
    with context("hi") as ctx:
        sent = await ctx.reply("in time")

    with pytest.raises(StateError, match="test has ended"):
        await sent.edit("too late")
    with pytest.raises(StateError, match="test has ended"):
        await ctx.acknowledge()
    assert ctx.actions == [SendMessage("in time")]


async def test_a_reply_to_an_event_without_a_thread_needs_a_thread() -> None:
    ctx = context(started(), bot=BOT)

    await ctx.reply("good morning", thread=ELSEWHERE)

    with pytest.raises(StateError, match="BotStarted happens in no thread; say where: thread="):
        await ctx.reply("good morning")
    assert ctx.actions == [SendMessage("good morning", thread=ELSEWHERE)]


async def test_impossible_messages_are_refused_where_they_are_written() -> None:
    ctx = context("hi")

    with pytest.raises(ValueError, match="either a text or html"):
        await ctx.reply("a", html="b")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="either a text or html"):
        await ctx.reply()  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"'chatbot\.key' is reserved"):
        await ctx.reply("a", metadata={"chatbot.key": "forged"})
    with pytest.raises(ValueError, match="use delete"):
        await ctx.edit(MessageId("17"), " ")
    with pytest.raises(ValueError, match="empty topic"):
        await ctx.update_topic("")
    assert ctx.actions == []


async def test_adding_nobody_is_nothing_to_do() -> None:
    ctx = context("hi")

    await ctx.add_participants()

    assert ctx.actions == []


def test_the_log_names_where_a_line_comes_from_and_not_what_was_said() -> None:
    ctx = context("secret words")

    with capture_logs() as lines:
        ctx.log.info("order.placed", items=2)
        ctx.log.info("order.paid")

    assert lines[0] == {
        "event": "order.placed",
        "log_level": "info",
        "items": 2,
        "bot": "bot",
        "thread": "19:test@thread.v2",
        "event_key": ctx.event.key,
        "handler": "test",
    }
    assert lines[1]["handler"] == "test"
    assert "secret" not in repr(ctx)
