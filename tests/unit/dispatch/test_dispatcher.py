"""Which handler an event reaches, and what comes of it."""

import re
from datetime import UTC, datetime

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot import (
    PASS,
    BotStarted,
    Context,
    Event,
    MessageDeleted,
    MessageEdited,
    MessageEvent,
    MessageReceived,
    Pass,
    Plugin,
    mentioned,
    regex,
    text,
)
from chatbot.actions import action_key
from chatbot.dispatch import Dispatcher
from chatbot.dispatch.author_code import RunLimits
from chatbot.testing import EventStream
from tests.unit.dispatch.talk import BOT, replies, talk


async def test_the_first_handler_that_matches_answers() -> None:
    plugin, other = Plugin("a"), Plugin("b")

    @other.message()
    async def rest(ctx: Context) -> str:
        return "rest"

    @plugin.message(text("hi"))
    async def greet(ctx: Context) -> str:
        return "first"

    @plugin.message(text(startswith="h"))
    async def anything(ctx: Context) -> str:
        return "second"

    assert await replies(talk("hi", "hello", "bye"), plugin, other) == ["first", "second", "rest"]


async def test_pass_hands_on_and_keeps_what_was_asked_for() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def remark(ctx: Context) -> Pass:
        await ctx.reply("heard")
        return PASS

    @plugin.message()
    async def answer(ctx: Context) -> str:
        return "answered"

    assert await replies(talk("hi"), plugin) == ["heard", "answered"]


async def test_messages_without_text_reach_only_those_who_ask_for_all_messages() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return "message"

    @plugin.on(MessageReceived)
    async def everything(ctx: Context[MessageReceived]) -> str:
        return "on"

    assert await replies(talk("", "  ", "hi"), plugin) == ["on", "on", "message"]


async def test_events_reach_the_handlers_of_their_class_and_its_bases() -> None:
    plugin = Plugin("a")

    @plugin.on(MessageEdited)
    async def edited(ctx: Context[MessageEdited]) -> str:
        return f"edited {ctx.text}"

    @plugin.on(MessageEvent)
    async def other(ctx: Context[MessageEvent]) -> str:
        return type(ctx.event).__name__

    stream = EventStream()
    ann = stream.user("Ann")
    stream += [ann.said("a"), ann.edited("b"), ann.deleted(), ann.joined(), ann.left()]

    assert await replies(stream, plugin) == [
        "MessageReceived",
        "edited b",
        "MessageDeleted",
        "ParticipantsAdded",
        "ParticipantsRemoved",
    ]


async def test_groups_of_a_regex_fill_the_parameters_of_their_names() -> None:
    plugin = Plugin("a")

    @plugin.message(regex(r"^remind (?P<who>\w+)(?: in (?P<minutes>\w+) min)?$"))
    async def remind(ctx: Context, who: str, minutes: int = 5) -> str:
        return f"{who} {minutes}"

    stream = talk("remind Ann in 10 min", "remind Ann", "remind Ann in ten min")

    assert await replies(stream, plugin) == ["Ann 10", "Ann 5"]


async def test_a_group_that_took_no_part_is_an_empty_text() -> None:
    plugin = Plugin("a")

    @plugin.message(regex("^a(?P<b>b)?"))
    async def show(ctx: Context, b: str) -> str:
        return f"[{b}]"

    assert await replies(talk("a", "ab"), plugin) == ["[]", "[b]"]


async def test_mentions_are_recognized_by_the_bots_display_name() -> None:
    plugin = Plugin("a")

    @plugin.message(mentioned)
    async def answer(ctx: Context) -> str:
        return "yes?"

    assert await replies(talk("hi", "hi @Help desk!"), plugin) == ["yes?"]


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.text(alphabet=st.sampled_from("/rol 26<p>&;\"'\n-—x"), max_size=20), st.booleans()), max_size=20
    )
)
def test_nothing_that_people_say_breaks_a_bot(said: list[tuple[str, bool]]) -> None:
    plugin = Plugin("a")

    @plugin.command("roll")
    async def roll(ctx: Context, count: int, *, loud: bool = False) -> str:
        return str(count)

    @plugin.message(mentioned | regex("(?P<word>x)"))
    async def words(ctx: Context, word: str = "") -> str:
        return word

    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    stream += [ann.said(html=words) if is_html else ann.said(words) for words, is_html in said]

    assert len(anyio.run(stream.into, plugin).outcomes) == len(said)


async def test_a_failed_handler_leaves_nothing_behind_and_stops_the_event() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def remark(ctx: Context) -> Pass:
        await ctx.reply("never seen")
        return PASS

    @plugin.message()
    async def fail(ctx: Context) -> None:
        await ctx.reply("never seen either")
        msg = "broken"
        raise ValueError(msg)

    @plugin.message()
    async def unreached(ctx: Context) -> str:
        return "unreached"

    (event,) = talk("hi").events
    outcome = await Dispatcher([plugin], bot=BOT).dispatch(event)

    assert outcome.keyed_actions == ()
    assert str(outcome.error) == "broken"
    assert outcome.handler is not None
    assert outcome.handler.endswith("<locals>.fail")


async def test_a_failing_filter_is_its_handlers_failure() -> None:
    plugin = Plugin("a")

    def broken(event: Event) -> bool:
        raise KeyError("x")

    @plugin.message(broken)
    async def never(ctx: Context) -> None: ...

    (event,) = talk("hi").events
    outcome = await Dispatcher([plugin], bot=BOT).dispatch(event)

    assert isinstance(outcome.error, KeyError)


async def test_something_else_than_a_reply_is_an_error_with_its_place() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def answer(ctx: Context):  # type: ignore[no-untyped-def]
        return 42

    with pytest.raises(TypeError, match=r"test_dispatcher\.py:\d+: .*answer returned int; a handler returns str"):
        await talk("hi").into(plugin)


async def test_cancellation_passes_through() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def hang(ctx: Context) -> None:
        await anyio.sleep_forever()

    (event,) = talk("hi").events
    with anyio.move_on_after(0) as scope:
        await Dispatcher([plugin], bot=BOT).dispatch(event)

    assert scope.cancelled_caught


async def test_reply_keys_name_bot_thread_event_handler_and_ordinal() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def twice(ctx: Context) -> str:
        await ctx.reply("one")
        return "two"

    (event,) = talk("hi").events
    dispatcher = Dispatcher([plugin], bot=BOT)
    first, again = await dispatcher.dispatch(event), await dispatcher.dispatch(event)

    name = f"{__name__}.{twice.__qualname__}"
    thread = EventStream().thread
    assert first.handler == name
    assert [keyed.key for keyed in first.keyed_actions[:2]] == [
        action_key(BOT.user, thread, event.key, name, ordinal) for ordinal in (0, 1)
    ]
    assert first == again


async def test_a_function_that_is_asked_twice_makes_different_keys() -> None:
    plugin = Plugin("a")

    async def remark(ctx: Context) -> Pass:
        await ctx.reply("again")
        return PASS

    plugin.message()(remark)
    plugin.message()(remark)
    (outcome,) = (await talk("hi").into(plugin)).outcomes

    assert len({keyed.key for keyed in outcome.keyed_actions}) == 2


def test_a_dispatcher_says_which_events_it_wants() -> None:
    plugin = Plugin("a")

    @plugin.on(MessageDeleted)
    async def deleted(ctx: Context[MessageDeleted]) -> None: ...

    dispatcher = Dispatcher([plugin], bot=BOT)

    assert dispatcher.subscribes(MessageDeleted)
    assert not dispatcher.subscribes(MessageReceived)

    @plugin.command("x")
    async def command(ctx: Context) -> None: ...

    assert Dispatcher([plugin], bot=BOT).subscribes(MessageReceived)


async def test_events_of_the_bot_itself_are_handled_too() -> None:
    plugin = Plugin("a")
    seen: list[Event] = []

    @plugin.on(BotStarted)
    async def started(ctx: Context[BotStarted]) -> None:
        seen.append(ctx.event)

    event = BotStarted(bot=BOT.user, occurred_on=datetime(2026, 1, 1, tzinfo=UTC))
    outcome = await Dispatcher([plugin], bot=BOT).dispatch(event)

    assert outcome.keyed_actions == ()
    assert seen == [event]


SELECTIVE = (
    regex("well"),
    regex(r"\bwell\b|good"),
    regex("WELL", flags=re.IGNORECASE),
    regex("well") & (lambda event: "done" in str(getattr(event, "message", ""))),
    (lambda event: True) & regex("done"),
    ~regex("well"),
    regex("good") | regex("done"),
    regex("don't"),
)


@given(
    said=st.lists(st.sampled_from(["well", "Well", "good", "done", "don\u2019t", "we\u200bll", "\uff57ell", "é"])),
    order=st.permutations(range(len(SELECTIVE))),
)
@settings(max_examples=60, deadline=None)
def test_handlers_that_a_text_cannot_match_are_skipped_without_a_difference(said: list[str], order: list[int]) -> None:
    """An inspector is shown each handler, so that nothing is skipped for it."""
    plugin = Plugin("a")
    for number in order:

        async def handler(ctx: Context) -> None:
            pass

        handler.__name__ = handler.__qualname__ = f"handler{number}"
        plugin.message(SELECTIVE[number])(handler)

    event = EventStream(bot=BOT).user("Ann").said(" ".join(said) or "-")

    async def handled_by(limits: RunLimits | None) -> str | None:
        async with Dispatcher([plugin], bot=BOT) as dispatcher:
            return (await dispatcher.dispatch(event, limits=limits)).handler

    seen: list[object] = []
    shown = RunLimits(considered=lambda handler, match: seen.append(handler))
    assert anyio.run(handled_by, None) == anyio.run(handled_by, shown)
    assert seen
