from datetime import UTC, datetime

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot import (
    PASS,
    Ack,
    BotInfo,
    BotStarted,
    ChatMessage,
    Context,
    Event,
    MessageDeleted,
    MessageEdited,
    MessageEvent,
    MessageReceived,
    ParticipantsAdded,
    ParticipantsRemoved,
    Pass,
    Plugin,
    PluginError,
    Proceed,
    Reply,
    SendMessage,
    SendReadReceipt,
    UserId,
    mentioned,
    regex,
    text,
)
from chatbot.actions import action_key
from chatbot.dispatch import Dispatcher
from chatbot.model import REPLY_KEY
from chatbot.testing import EventStream

BOT = BotInfo("desk", UserId("8:acs:desk"), "Help desk")


async def replies(stream: EventStream, *plugins: Plugin) -> list[str]:
    return (await stream.into(*plugins)).replies


def talk(*words: str) -> EventStream:
    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    stream += [ann.said(one) for one in words]
    return stream


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


async def test_a_command_comes_before_every_message_handler() -> None:
    first, second = Plugin("a"), Plugin("b")

    @first.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    @second.command("roll")
    async def roll(ctx: Context, count: int, sides: int = 6) -> str:
        return f"{count}d{sides}"

    assert await replies(talk("/roll 2", "/ROLL 2 8", "/rolls", "roll 2"), first, second) == [
        "2d6",
        "2d8",
        "/rolls",
        "roll 2",
    ]


async def test_a_command_is_found_in_html_and_behind_a_mention() -> None:
    plugin = Plugin("a")

    @plugin.command("roll")
    async def roll(ctx: Context, count: int) -> str:
        return f"{count} dice"

    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    stream += [
        ann.said(html="<p>/roll&nbsp;2</p>"),
        ann.said(html='<p><at id="0">Help desk</at>&nbsp;/roll 3</p>'),
        ann.said("@Help desk, /roll 4"),
        ann.said("I told Help desk /roll 5"),
    ]

    assert await replies(stream, plugin) == ["2 dice", "3 dice", "4 dice"]


async def test_arguments_that_do_not_fit_are_answered_with_the_usage() -> None:
    plugin = Plugin("a")

    @plugin.command("roll")
    async def roll(ctx: Context, count: int) -> str:
        raise AssertionError

    assert await replies(talk("/roll six"), plugin) == [
        'COUNT: "six" is not a whole number.\nUsage: /roll COUNT',
    ]


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


async def test_a_command_that_passes_becomes_a_message() -> None:
    plugin = Plugin("a")

    @plugin.command("x")
    async def never(ctx: Context) -> Pass:
        return PASS

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    assert await replies(talk("/x"), plugin) == ["/x"]


async def test_a_near_command_is_suggested_only_when_nobody_answers() -> None:
    quiet, loud = Plugin("quiet"), Plugin("loud")

    @quiet.command("help")
    async def show_help(ctx: Context) -> str:
        return "help"

    @loud.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    assert await replies(talk("/hepl", "/hello", "/etc/passwd"), quiet) == [
        "There is no /hepl. Did you mean /help?",
    ]
    assert await replies(talk("/hepl"), quiet, loud) == ["/hepl"]


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


async def test_a_bot_never_hears_itself() -> None:
    plugin = Plugin("a")

    @plugin.message(from_bots=True)
    async def echo(ctx: Context) -> str:
        return ctx.text

    stream = EventStream()
    stream += stream.itself().said("hi")
    handled = await stream.into(plugin)

    assert handled.actions == []
    assert handled.handlers == [None]


async def test_other_bots_are_heard_only_by_handlers_that_want_them() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def people(ctx: Context) -> str:
        return "people"

    @plugin.command("ping")
    async def ping(ctx: Context) -> str:
        return "pong"

    stream = EventStream()
    sibling, stranger = stream.sibling("Sibling"), stream.user("Stranger")
    said = [
        sibling.said("hi"),
        stranger.said("hi", metadata={REPLY_KEY: "k"}),
        sibling.said("/ping"),
        sibling.said("/pin"),
    ]
    stream += said
    assert (await stream.into(plugin)).actions == []

    @plugin.message(text("hi"), from_bots=True)
    async def bots(ctx: Context) -> str:
        return "bots"

    stream += said
    assert (await stream.into(plugin)).actions == [
        SendMessage("bots"),
        SendReadReceipt(said[0].message.id),
        SendMessage("bots"),
        SendReadReceipt(said[1].message.id),
    ]


async def test_bots_are_not_among_the_people_who_came_in() -> None:
    people, everyone = Plugin("people"), Plugin("everyone")

    async def count(ctx: Context[ParticipantsAdded | ParticipantsRemoved]) -> str:
        return str(len(ctx.event.participants))

    people.on(ParticipantsAdded)(count)
    people.on(ParticipantsRemoved)(count)
    everyone.on(ParticipantsAdded, from_bots=True)(count)
    stream = EventStream()
    ann, sibling = stream.user("Ann"), stream.sibling("Sibling")
    events = [ann.joined(sibling), sibling.joined(), ann.left(sibling)]

    stream += events
    assert await replies(stream, people) == ["1", "1"]
    stream += events
    assert await replies(stream, everyone) == ["2", "1"]


async def test_mentions_are_told_by_the_bots_display_name() -> None:
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


async def test_a_filter_may_restrict_a_command() -> None:
    plugin = Plugin("a")

    @plugin.command("ban", text(endswith="please"))
    async def ban(ctx: Context, who: str, *politely: str) -> str:
        return who

    assert await replies(talk("/ban Bob", "/ban Bob please"), plugin) == ["Bob"]


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

    assert outcome.wishes == ()
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


def message_of(event: Event) -> ChatMessage:
    assert isinstance(event, MessageReceived)
    return event.message


@pytest.mark.parametrize("ack", [Ack.HANDLED, Ack.RECEIVED])
async def test_a_receipt_comes_last_whether_anybody_answered_or_not(ack: Ack) -> None:
    plugin = Plugin("a")

    @plugin.message(text("hi"))
    async def greet(ctx: Context) -> str:
        return "hello"

    stream = talk("hi", "bye")
    hi, bye = map(message_of, stream.events)

    handled = await stream.into(plugin, ack=ack)

    assert handled.actions == [SendMessage("hello"), SendReadReceipt(hi.id), SendReadReceipt(bye.id)]


async def test_only_received_messages_are_acknowledged() -> None:
    stream = EventStream()
    ann = stream.user("Ann")
    ann.said("a")
    stream += [ann.edited("b"), ann.deleted(), ann.joined()]

    assert (await stream.into(Plugin("a"))).actions == []


async def test_a_failed_message_is_shown_as_read_only_if_receiving_it_is_enough() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def fail(ctx: Context) -> None:
        raise ValueError

    for ack, count in ((Ack.RECEIVED, 1), (Ack.HANDLED, 0), (Ack.MANUAL, 0)):
        handled = await talk("hi").into(plugin, ack=ack, should_raise=False)
        assert len(handled.actions) == count


async def test_manual_receipts_are_sent_when_the_handler_says_so() -> None:
    plugin = Plugin("a")

    @plugin.message(text("yes"))
    async def acknowledged(ctx: Context) -> str:
        await ctx.acknowledge()
        await ctx.acknowledge()
        return "ok"

    @plugin.message(text("no"), ack=Ack.HANDLED)
    async def automatic(ctx: Context) -> None: ...

    @plugin.message()
    async def silent(ctx: Context) -> None: ...

    stream = talk("yes", "no", "perhaps")
    yes, no, _ = map(message_of, stream.events)

    handled = await stream.into(plugin, ack=Ack.MANUAL)

    assert handled.actions == [SendMessage("ok"), SendReadReceipt(yes.id), SendReadReceipt(no.id)]


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
    assert [wish.key for wish in first.wishes[:2]] == [
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

    assert len({wish.key for wish in outcome.wishes}) == 3


async def test_middleware_wraps_its_plugin_and_what_that_includes() -> None:
    outer, inner, other = Plugin("outer"), Plugin("inner"), Plugin("other")
    calls: list[str] = []

    def around(name: str, plugin: Plugin) -> None:
        @plugin.middleware
        async def log_call(ctx: Context[Event], proceed: Proceed) -> Reply:
            calls.append(f"{name} in")
            reply = await proceed()
            calls.append(f"{name} out")
            return reply

    around("outer", outer)
    around("second", outer)
    around("inner", inner)
    outer.include(inner)

    @inner.message(text("in"))
    async def hear(ctx: Context) -> str:
        calls.append("handler")
        return "heard"

    @other.message()
    async def otherwise(ctx: Context) -> None: ...

    assert await replies(talk("in", "out"), outer, other) == ["heard"]
    assert calls == ["outer in", "second in", "inner in", "handler", "inner out", "second out", "outer out"]


async def test_middleware_may_answer_instead_even_of_a_usage() -> None:
    plugin = Plugin("a")

    @plugin.middleware
    async def refuse(ctx: Context[Event], proceed: Proceed) -> Reply:
        return "members only"

    @plugin.command("roll")
    async def roll(ctx: Context, count: int) -> str:
        return "rolled"

    assert await replies(talk("/roll 1", "/roll x"), plugin) == ["members only", "members only"]


async def test_the_commands_of_all_plugins_are_known_to_every_handler() -> None:
    first, second = Plugin("a"), Plugin("b")

    @first.message()
    async def show(ctx: Context) -> str:
        return "; ".join(f"{one.name}: {one.usage}: {one.summary}" for one in ctx.commands)

    @second.command("roll")
    async def roll(ctx: Context, count: int) -> None:
        """Roll dice.

        Not shown.
        """

    @second.command("bare")
    async def bare(ctx: Context) -> None: ...

    assert await replies(talk("?"), first, second) == ["roll: /roll COUNT: Roll dice.; bare: /bare: "]


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


def test_two_plugins_cannot_have_the_same_command() -> None:
    first, second = Plugin("a"), Plugin("b")

    @first.command("roll")
    async def roll(ctx: Context) -> None: ...

    @second.command("ROLL")
    async def roll_too(ctx: Context) -> None: ...

    with pytest.raises(
        PluginError,
        match=r"^tests/unit/dispatch/test_dispatcher\.py:\d+: command /roll is taken already, by tests/.*:\d+; rename",
    ):
        Dispatcher([first, second], bot=BOT)


async def test_events_of_the_bot_itself_are_handled_too() -> None:
    plugin = Plugin("a")
    seen: list[Event] = []

    @plugin.on(BotStarted)
    async def started(ctx: Context[BotStarted]) -> None:
        seen.append(ctx.event)

    event = BotStarted(bot=BOT.user, occurred_on=datetime(2026, 1, 1, tzinfo=UTC))
    outcome = await Dispatcher([plugin], bot=BOT).dispatch(event)

    assert outcome.wishes == ()
    assert seen == [event]
