"""What an author writes wrong is refused before any event: with file and line, what it is, and what to write."""

from __future__ import annotations

import decimal
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

from chatbot import (
    BotStarted,
    Context,
    Dialog,
    Event,
    MessageEdited,
    MessageReceived,
    ParticipantsAdded,
    Plugin,
    PluginError,
    Rest,
    State,
    ThreadLeft,
    TimerFired,
    regex,
)
from chatbot.dispatch import Roster

if TYPE_CHECKING:
    from decimal import Decimal

Mistake = Callable[[Any], object]  # a plugin of no type: the point is what the type checker would have told
MISTAKES: dict[str, Mistake] = {}


def says(reason: str) -> Callable[[Mistake], Mistake]:
    def note(mistake: Mistake) -> Mistake:
        MISTAKES[reason] = mistake
        return mistake

    return note


@says("handler echo is not async; write `async def echo`")
def sync_function(plugin: Any) -> None:
    @plugin.message()
    def echo(ctx: Context) -> str:
        return ctx.text


@says("handler echo yields; let it return its reply, or await ctx.reply() for each of several")
def generator(plugin: Any) -> None:
    @plugin.message()
    async def echo(ctx: Context) -> AsyncIterator[str]:
        yield ctx.text


@says("handler echo takes no context; its first parameter is `ctx: Context`")
def no_context(plugin: Any) -> None:
    @plugin.message()
    async def echo() -> None: ...


@says("parameter 'ctx' of echo has no type; write `ctx: Context`")
def untyped_context(plugin: Any) -> None:
    @plugin.message()
    async def echo(ctx) -> None: ...  # type: ignore[no-untyped-def]


@says("parameter 'ctx' of echo is str; its first parameter is the context: write `ctx: Context`")
def not_a_context(plugin: Any) -> None:
    @plugin.message()
    async def echo(ctx: str) -> None: ...


@says(
    "parameter 'ctx' of greet is Context[MessageReceived], but it is registered for ParticipantsAdded;"
    " write `ctx: Context[ParticipantsAdded]`"
)
def wrong_event(plugin: Any) -> None:
    @plugin.on(ParticipantsAdded)
    async def greet(ctx: Context) -> None: ...


@says(
    "parameter 'ctx' of roll is Context[MessageEdited | ParticipantsAdded], but it is registered for MessageReceived;"
    " write `ctx: Context`"
)
def wrong_events(plugin: Any) -> None:
    @plugin.command("roll")
    async def roll(ctx: Context[MessageEdited | ParticipantsAdded]) -> None: ...


@says("handler count returns int; it may return str (a reply), None, or PASS (annotated `Pass`)")
def wrong_return(plugin: Any) -> None:
    @plugin.message()
    async def count(ctx: Context) -> int:
        return 1


@says("handler wake returns a reply, but BotStarted happens in no thread; return None, and use ctx.reply(…, thread=…)")
def reply_to_nobody(plugin: Any) -> None:
    @plugin.on(BotStarted)
    async def wake(ctx: Context[BotStarted]) -> str | None:
        return "good morning"


@says(
    "the annotation of parameter 'price' in buy cannot be resolved: there is no 'Decimal' in the module;"
    " import it at the top of the file, not under TYPE_CHECKING"
)
def unresolved(plugin: Any) -> None:
    @plugin.command("buy")
    async def buy(ctx: Context, price: Decimal) -> None: ...


@says("the annotations of buy cannot be resolved: Forward reference must be an expression -- got 'no type'")
def nonsense(plugin: Any) -> None:
    @plugin.command("buy")
    async def buy(ctx: Context, price: "no type") -> None: ...  # type: ignore[valid-type] # noqa: F722


@says(
    "parameter 'things' of buy is list[str], which nothing can fill; a command's arguments are"
    " str, int, float, bool, date, timedelta, UUID, an Enum or a Literal, Participant, or Rest; provide anything else"
)
def unfillable(plugin: Any) -> None:
    @plugin.command("buy")
    async def buy(ctx: Context, things: list[str]) -> None: ...


@says(
    "parameter 'thing' of buy has no type; a command's arguments are"
    " str, int, float, bool, date, timedelta, UUID, an Enum or a Literal, Participant, or Rest; provide anything else"
)
def untyped_argument(plugin: Any) -> None:
    @plugin.command("buy")
    async def buy(ctx: Context, thing) -> None: ...  # type: ignore[no-untyped-def]


@says("parameter 'text' of say is Rest, which takes everything still to come; make it the last one")
def rest_in_the_middle(plugin: Any) -> None:
    @plugin.command("say")
    async def say(ctx: Context, text: Rest, count: int) -> None: ...


@says(
    "parameter 'count' of echo is int, which nothing can fill; provide it, make it a State, or have a regex find a"
    " text of its name"
)
def message_with_arguments(plugin: Any) -> None:
    @plugin.message()
    async def echo(ctx: Context, count: int) -> None: ...


@says(
    "parameter 'when' of remind is str, which nothing can fill; provide it, make it a State, or have a regex find a"
    " text of its name (its filter finds who)"
)
def unknown_group(plugin: Any) -> None:
    @plugin.message(regex("(?P<who>.*)"))
    async def remind(ctx: Context, who: str, when: str) -> None: ...


@says(
    "parameter 'who' of remind is bytes, which nothing can fill; a text that a filter found becomes"
    " str, int, float, bool, date, timedelta, UUID, an Enum or a Literal"
)
def inconvertible_group(plugin: Any) -> None:
    @plugin.message(regex("(?P<who>.*)"))
    async def remind(ctx: Context, who: bytes) -> None: ...


@says("'roll dice' cannot be typed as a command; use letters, digits, - and _, as in @plugin.command(\"roll\")")
def untypable_command(plugin: Any) -> None:
    plugin.command("roll dice")


@says('the function roll cannot be typed as a command; use letters, digits, - and _, as in @plugin.command("roll")')
def command_without_its_name(plugin: Any) -> None:
    @plugin.command
    async def roll(ctx: Context) -> None: ...


@says(
    "echo stands where a filter is wanted, but it is async: a handler's decorator needs its parentheses,"
    " as in @plugin.message(), and a filter is a plain function from an event to a bool"
)
def forgotten_parentheses(plugin: Any) -> None:
    @plugin.message
    async def echo(ctx: Context) -> None: ...


@says("'hi' is not a filter; use one of chatbot's filters or a function from an event to a bool")
def text_as_a_filter(plugin: Any) -> None:
    plugin.message("hi")


@says("on() takes a class of events, as in @plugin.on(ParticipantsAdded), not 'ParticipantsAdded'")
def event_by_name(plugin: Any) -> None:
    plugin.on("ParticipantsAdded")


@says("on() takes a class of events, as in @plugin.on(ParticipantsAdded), not the function greet")
def no_event(plugin: Any) -> None:
    @plugin.on
    async def greet(ctx: Context[ParticipantsAdded]) -> None: ...


@says("on(TimerFired) gets nothing: a timer calls the function it was set for; decorate that with @plugin.timer")
def timers_for_everybody(plugin: Any) -> None:
    plugin.on(TimerFired)


@says("handler say returns a reply, but after ThreadLeft the bot is not in the thread any more; return None")
def reply_to_those_who_are_left(plugin: Any) -> None:
    @plugin.on(ThreadLeft)
    async def say(ctx: Context[ThreadLeft]) -> str:
        return "bye"


@says("handler say is a method; take it out of its class, or register it of an instance")
def method(plugin: Any) -> None:
    class Desk:
        @plugin.message()
        async def say(self, ctx: Context) -> None: ...


@says("error() takes classes of exceptions, as in @plugin.error(OSError), not the function sorry")
def error_handler_without_parentheses(plugin: Any) -> None:
    @plugin.error
    async def sorry(ctx: Context[Event], error: Exception) -> None: ...


@says("'(unclosed' is no regular expression: missing ), unterminated subpattern at position 0")
def broken_pattern(plugin: Any) -> None:
    plugin.message(regex("(unclosed"))


@says("'0 25 * * *' is no cron expression: bad hour; an example is '0 9 * * 1-5'")
def no_such_hour(plugin: Any) -> None:
    plugin.cron("0 25 * * *")


@says("9 is no cron expression; give minute, hour, day of month, month, day of week, as in '0 9 * * 1-5'")
def cron_by_hour(plugin: Any) -> None:
    plugin.cron(9)


@says("'Europe/Pari' is no time zone; give one of the IANA database, as in 'Europe/Paris'")
def unknown_zone(plugin: Any) -> None:
    plugin.cron("0 9 * * *", tz="Europe/Pari")


@says("2 is no time zone; give one of the IANA database, as in 'Europe/Paris'")
def zone_by_offset(plugin: Any) -> None:
    plugin.cron("0 9 * * *", tz=2)


@says("every(60) is no time; write every(timedelta(seconds=60))")
def period_in_seconds(plugin: Any) -> None:
    plugin.every(60)


@says("timeout=60 is not a time; write timeout=timedelta(seconds=60)")
def timeout_in_seconds(plugin: Any) -> None:
    plugin.message(timeout=60)


@says("retry=3 does not say how to retry; write retry=Retry(attempts=3)")
def retry_by_number(plugin: Any) -> None:
    plugin.message(retry=3)


@says("ack='manual' is not when to acknowledge; write ack=Ack.HANDLED, or another one of Ack")
def ack_by_name(plugin: Any) -> None:
    plugin.command("roll", ack="manual")


@says("from_bots='echo' is neither True nor False")
def from_one_bot(plugin: Any) -> None:
    plugin.message(from_bots="echo")


@says("include() takes a Plugin, not 'plugins.other'; write `from plugins.other import plugin as other`")
def included_by_name(plugin: Any) -> None:
    plugin.include("plugins.other")


@says('7 is no name of a plugin; write Plugin("dice")')
def number_as_a_name(plugin: Any) -> None:
    plugin.include(Plugin(7))  # type: ignore[arg-type]


@says("middleware time_it is not async; write `async def time_it`")
def sync_middleware(plugin: Any) -> None:
    @plugin.middleware
    def time_it(ctx: Context[Event], proceed: object) -> None: ...


@says("middleware time_it takes two parameters: `async def time_it(ctx: Context[Event], proceed: Proceed)`")
def middleware_without_proceed(plugin: Any) -> None:
    @plugin.middleware
    async def time_it(ctx: Context[Event]) -> None: ...


@says("parameter 'ctx' of middleware time_it must take every event; write `ctx: Context[Event]`")
def middleware_for_messages(plugin: Any) -> None:
    @plugin.middleware
    async def time_it(ctx: Context, proceed: object) -> None: ...


@says("parameter 'shop' of middleware time_it has Decimal, which nobody provides; provide it, or take it out")
def middleware_asks_for_what_nobody_provides(plugin: Any) -> None:
    @plugin.middleware
    async def time_it(ctx: Context[Event], proceed: object, shop: decimal.Decimal) -> None: ...


@says("parameter 'shop' of middleware time_it has no type; say what it is, or take it out")
def middleware_asks_for_anything(plugin: Any) -> None:
    @plugin.middleware
    async def time_it(ctx: Context[Event], proceed: object, shop) -> None: ...  # type: ignore[no-untyped-def]


@says("parameter 'seen' of middleware time_it is a State, but only handlers have state; let the handler ask for it")
def middleware_with_state(plugin: Any) -> None:
    @plugin.middleware
    async def time_it(ctx: Context[Event], proceed: object, seen: State[list[str]]) -> None: ...


@says("parameter 'rest' of middleware time_it has no name of its own; name it")
def middleware_takes_anything(plugin: Any) -> None:
    @plugin.middleware
    async def time_it(ctx: Context[Event], proceed: object, *rest: str) -> None: ...


@says("parameter 'shop' of time_it is made by shop, whose context is not one of Event; give shop a `Context[Event]`")
def middleware_asks_for_what_only_messages_have(plugin: Any) -> None:
    @plugin.middleware
    async def time_it(ctx: Context[Event], proceed: object, shop: decimal.Decimal) -> None: ...

    @plugin.provide
    async def shop(ctx: Context) -> decimal.Decimal:
        return decimal.Decimal(1)


@says("parameter 'shop' of error handler sorry has Decimal, which nobody provides; provide it, or take it out")
def error_handler_asks_for_what_nobody_provides(plugin: Any) -> None:
    @plugin.error(ValueError)
    async def sorry(ctx: Context[Event], error: ValueError, shop: decimal.Decimal) -> None: ...


@says("plugins cannot include each other in a circle: 'a' includes 'a'; take out one of the includes")
def includes_itself(plugin: Any) -> None:
    plugin.include(plugin)


@says(
    "plugins cannot include each other in a circle: 'b' includes 'a', which includes 'b'; take out one of the includes"
)
def circle(plugin: Any) -> None:
    between, other = Plugin("between"), Plugin("b")
    plugin.include(between)
    between.include(other)
    other.include(plugin)


@says("plugin 'a' includes 'b' already; take this include out")
def included_twice(plugin: Any) -> None:
    other = Plugin("b")
    plugin.include(other)
    plugin.include(other)


@pytest.mark.parametrize("reason", MISTAKES, ids=[mistake.__name__ for mistake in MISTAKES.values()])
def test_a_mistake_is_refused_with_its_place_and_its_remedy(reason: str) -> None:
    mistake, plugin = MISTAKES[reason], Plugin("a")

    with pytest.raises(PluginError) as caught:  # noqa: PT012 -- some are refused at once, some when all is written
        mistake(plugin)
        Roster(plugin.handlers())

    file, line, said = str(caught.value).split(":", 2)
    assert file == "tests/unit/plugin/test_mistakes.py"
    assert mistake.__code__.co_firstlineno < int(line) < mistake.__code__.co_firstlineno + 9
    assert said.strip() == reason


def test_the_second_command_of_a_name_is_refused_naming_the_first() -> None:
    plugin = Plugin("a")

    @plugin.command("roll")
    async def roll(ctx: Context) -> None: ...

    async def roll_again(ctx: Context[MessageReceived]) -> None: ...

    with pytest.raises(
        PluginError, match=r":\d+: command /roll is taken already, by tests/.*:\d+; rename one of them$"
    ):
        plugin.command("/ROLL")(roll_again)


def test_two_timers_of_one_name_are_refused_as_only_the_name_is_stored() -> None:
    plugin = Plugin("a")
    for _ in range(2):

        @plugin.timer
        async def ring(ctx: Context[TimerFired]) -> None: ...

    with pytest.raises(PluginError, match=r":\d+: timer .*ring stands for two functions, the other at tests/.*:\d+;"):
        Roster(plugin.handlers())


def test_two_dialogs_of_one_name_are_refused_but_one_may_begin_in_several_ways() -> None:
    plugin = Plugin("a")

    async def hello(talk: Dialog) -> None: ...

    plugin.command("hello")(hello)
    plugin.message(regex("^hello$"))(hello)
    assert len(Roster(plugin.handlers()).everyone) == 2

    for name in ("tea", "milk"):

        @plugin.command(name)
        async def order(talk: Dialog) -> None: ...

    with pytest.raises(PluginError, match=r":\d+: dialog .*order stands for two functions, the other at tests/.*:\d+;"):
        Roster(plugin.handlers())
