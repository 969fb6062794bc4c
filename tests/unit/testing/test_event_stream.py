from datetime import timedelta

import pytest

from chatbot import Ack, Context, Event, MessageEdited, MessageId, Plugin, SendMessage, SendReadReceipt, UserId
from chatbot.errors import StateError
from chatbot.testing import EventStream, context

plugin = Plugin("a")


@plugin.message()
async def echo(ctx: Context) -> str:
    if ctx.text == "fail":
        msg = "as asked"
        raise ValueError(msg)
    return ctx.text


@plugin.on(MessageEdited)
async def edited(ctx: Context[MessageEdited]) -> str:
    return f"edited to {ctx.text}"


async def test_what_came_of_a_stream_are_the_actions_of_its_events_in_order() -> None:
    stream = EventStream()
    ann = stream.user("Ann")
    said = ann.said("hi")
    stream += [said, ann.edited("hello"), ann.left()]

    handled = await stream.into(plugin)

    assert handled.actions == [SendMessage("hi"), SendReadReceipt(said.message.id), SendMessage("edited to hello")]
    assert handled.replies == ["hi", "edited to hello"]
    assert [one and one.rpartition(".")[2] for one in handled.handlers] == ["echo", "edited", None]


async def test_a_stream_goes_on_where_it_was() -> None:
    stream = EventStream()
    ann = stream.user("Ann")
    stream += ann.said("one")
    await stream.into(plugin)
    stream += ann.said("two")

    assert (await stream.into(plugin)).replies == ["two"]


async def test_a_failing_handler_fails_the_test_unless_that_is_what_is_tested() -> None:
    stream = EventStream()
    fails = stream.user("Ann").said("fail")

    stream += fails
    with pytest.raises(ValueError, match="as asked"):
        await stream.into(plugin)

    stream += fails
    (outcome,) = (await stream.into(plugin, should_raise=False)).outcomes
    assert isinstance(outcome.error, ValueError)


async def test_the_stream_acknowledges_as_it_is_told() -> None:
    stream = EventStream()
    stream += stream.user("Ann").said("hi")

    assert (await stream.into(plugin, ack=Ack.MANUAL)).actions == [SendMessage("hi")]


def test_an_edit_and_a_deletion_are_of_what_was_said_last() -> None:
    ann = EventStream().user("Ann")
    ann.said("one")
    said = ann.said("two").message

    edit, deletion = ann.edited("three").message, ann.deleted().message

    assert (edit.id, edit.content, edit.created_on) == (said.id, "three", said.created_on)
    assert said.version < edit.version < deletion.version
    assert (deletion.id, deletion.content, deletion.edited_on) == (said.id, "", None)
    assert edit.edited_on == said.created_on + timedelta(seconds=1)
    assert deletion.deleted_on == said.created_on + timedelta(seconds=2)
    with pytest.raises(StateError, match="Ann has said nothing to edit; put a said"):
        ann.edited("four")


def test_everybody_is_somebody_else_and_every_message_another() -> None:
    stream = EventStream()
    people = [stream.user("Ann"), stream.user("Ann"), stream.sibling("Ann"), stream.itself()]

    assert len({one.user for one in people}) == 4
    assert len({one.said("hi").message.id for one in people}) == 4
    assert stream.bot.siblings == {people[2].user}


async def test_every_kind_of_event_can_happen_in_a_stream() -> None:
    stream, everything = EventStream(), Plugin("everything")

    @everything.on(Event)
    async def note(ctx: Context[Event]) -> None: ...

    ann = stream.user("Ann")
    events: list[Event] = [stream.bot_started(), stream.bot_joined(), ann.joined(), ann.said("hi"), ann.edited("hello")]
    events += [ann.read(MessageId("17")), ann.deleted(), ann.renamed("Lunch"), ann.left(), stream.bot_left()]
    events += [stream.bot_stopping()]
    stream += events

    handled = await stream.into(everything)

    assert len({event.key for event in events}) == len(events)
    assert all(one is not None for one in handled.handlers)
    assert [event.occurred_on for event in events] == sorted(event.occurred_on for event in events)


def test_a_context_is_made_of_a_text_or_of_an_event() -> None:
    said = EventStream().user("Bob").said("hello")

    assert context().text == ""
    assert context("hi").sender.display_name == "Ann"
    assert context(said).sender.display_name == "Bob"


def test_a_context_lists_the_commands_of_the_plugins_it_is_given() -> None:
    desk = Plugin("desk")

    @desk.command("close")
    async def close(ctx: Context, ticket: int) -> None: ...

    assert [one.usage for one in context("/help", desk).commands] == ["/close TICKET"]


async def test_a_contexts_actions_are_those_of_the_call() -> None:
    ctx = context("hi")

    await ctx.edit(MessageId("17"), "new")
    assert await echo(ctx) == "hi"

    assert len(ctx.actions) == 1
    assert ctx.bot.user == UserId("8:acs:test_bot")
