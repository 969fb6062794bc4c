from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from chatbot import (
    Ack,
    Context,
    Dialog,
    DialogTimeout,
    Event,
    MessageEdited,
    MessageId,
    Plugin,
    PluginError,
    ScheduleFired,
    SendMessage,
    SendReadReceipt,
    State,
    TimerFired,
    UserId,
)
from chatbot.errors import CannotStore, StateError
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


# What is due.


def kettle() -> tuple[Plugin, Callable[..., Coroutine[Any, Any, str]]]:
    """A bot with a timer that is set by a command, and the timer."""
    plugin = Plugin("kettle")

    @plugin.timer
    async def ready(ctx: Context[TimerFired], cups: int, pot: State[Pot]) -> str:
        pot.value = Pot(pot.value.filled + 1)
        return f"{cups} cups at {ctx.event.due:%H:%M}, pot {pot.value.filled}"

    @plugin.command("brew")
    async def brew(ctx: Context, cups: int) -> str:
        await ctx.later(timedelta(minutes=4), ready, cups=cups)
        return "The kettle is on."

    return plugin, ready


@dataclass
class Pot:
    filled: int = 0


async def test_a_timer_that_a_handler_has_set_fires_when_time_advances() -> None:
    plugin, _ = kettle()
    stream = EventStream()
    stream += stream.user("Ann").said("/brew 2")

    assert (await stream.into(plugin)).replies == ["The kettle is on."]
    stream.advance(minutes=3)
    assert (await stream.into(plugin)).replies == []
    stream.advance(timedelta(minutes=1))
    assert (await stream.into(plugin)).replies == ["2 cups at 09:04, pot 1"]
    stream.advance(days=1)
    assert (await stream.into(plugin)).replies == []


async def test_what_is_due_before_an_event_happens_before_it() -> None:
    plugin, _ = kettle()
    stream = EventStream()
    ann = stream.user("Ann")
    stream += ann.said("/brew 1")
    stream.advance(minutes=2)
    stream += ann.said("/brew 2")
    stream.advance(minutes=3)
    stream += ann.said("/brew 3")

    handled = await stream.into(plugin)

    assert handled.replies == [
        "The kettle is on.", "The kettle is on.", "1 cups at 09:04, pot 1", "The kettle is on."
    ]  # fmt: skip


async def test_a_timer_that_was_not_set_can_be_fired() -> None:
    plugin, ready = kettle()
    stream = EventStream()
    stream += [stream.timer_fired(ready, cups=3), stream.timer_fired(ready, cups=4)]

    assert (await stream.into(plugin)).replies == ["3 cups at 09:00, pot 1", "4 cups at 09:00, pot 2"]
    assert await ready(context(stream.timer_fired(ready, cups=5)), 5, State(Pot(1))) == ("5 cups at 09:00, pot 2")


async def test_a_timer_is_refused_what_it_does_not_take() -> None:
    _, ready = kettle()
    stream = EventStream()

    with pytest.raises(TypeError, match="timer ready takes cups, but is to be called with cups, sugar"):
        stream.timer_fired(ready, cups=1, sugar=2)
    with pytest.raises(CannotStore, match=r"ready\.cups"):
        stream.timer_fired(ready, cups="many")
    with pytest.raises(PluginError, match="write `ctx: Context\\[TimerFired\\]`"):
        stream.timer_fired(echo)


async def test_a_failing_timer_fails_the_test_and_does_not_fire_again_if_failures_are_expected() -> None:
    plugin = Plugin("a")

    @plugin.timer
    async def fails(ctx: Context[TimerFired]) -> None:
        msg = "as asked"
        raise ValueError(msg)

    @plugin.message()
    async def later(ctx: Context) -> None:
        await ctx.later(timedelta(minutes=1), fails)

    stream = EventStream()
    stream += stream.user("Ann").said("hi")
    await stream.into(plugin)
    stream.advance(minutes=1)
    with pytest.raises(ValueError, match="as asked"):
        await stream.into(plugin)
    (outcome,) = (await stream.into(plugin, should_raise=False)).outcomes

    assert isinstance(outcome.error, ValueError)
    assert (await stream.into(plugin)).outcomes == ()


async def test_a_timer_that_was_cancelled_does_not_fire() -> None:
    plugin, ready = kettle()

    @plugin.command("off")
    async def off(ctx: Context) -> None:
        await ctx.cancel(await ctx.later(timedelta(minutes=1), ready, cups=1))

    stream = EventStream()
    stream += stream.user("Ann").said("/off")
    stream.advance(days=1)

    assert (await stream.into(plugin)).replies == []


clock, rung = Plugin("clock"), list[str]()


@clock.every(timedelta(hours=1))
async def beat(ctx: Context[ScheduleFired]) -> None:
    rung.append(f"beat {ctx.event.due:%H:%M}")


@clock.cron("30 10 * * *")
async def morning(ctx: Context[ScheduleFired]) -> None:
    rung.append(f"morning {ctx.event.due:%H:%M}")


async def test_schedules_fire_from_the_start_of_the_stream_at_each_of_their_times() -> None:
    rung.clear()
    stream = EventStream()
    await stream.into(clock)
    assert rung == []

    stream.advance(hours=2)
    await stream.into(clock)
    assert rung == ["beat 10:00", "morning 10:30", "beat 11:00"]

    stream += stream.schedule_fired(morning)
    assert (await stream.into(clock)).handlers == [f"{__name__}.morning"]


async def test_a_dialog_runs_out_of_time() -> None:
    plugin = Plugin("a")

    @plugin.command("order")
    async def order(talk: Dialog) -> str:
        try:
            return await talk.ask("Which?", timeout=timedelta(minutes=5))
        except DialogTimeout:
            return "Never mind."

    stream = EventStream()
    ann = stream.user("Ann")
    stream += [ann.said("/order"), ann.said("tea"), ann.said("/order")]
    stream.advance(minutes=5)

    assert (await stream.into(plugin)).replies == ["Which?", "tea", "Which?", "Never mind."]
