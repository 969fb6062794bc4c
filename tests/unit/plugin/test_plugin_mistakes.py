"""What an author writes wrong is refused before any event: with file and line, what it is, and what to write."""

from __future__ import annotations

import decimal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

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
    UserId,
    from_user,
    regex,
)
from chatbot.dispatch import HandlerRegistry
from tests.unit.plugin.mistakes import Mistakes

if TYPE_CHECKING:
    from decimal import Decimal

MISTAKES = Mistakes()
says = MISTAKES.says


@says("handler echo is not async; write `async def echo`")
def sync_function(plugin: Any) -> None:
    @plugin.message()
    def echo(ctx: Context) -> str:
        return ctx.text


@says("a lambda cannot be a handler, which is async; write a separate `async def`")
def nameless_function(plugin: Any) -> None:
    plugin.message()(lambda ctx: ctx.text)


@says("parameter 'count' of roll is int, but its default is 'one'; write a default of that type")
def default_of_another_type(plugin: Any) -> None:
    @plugin.command("roll")
    async def roll(ctx: Context, count: int = "one") -> None: ...  # type: ignore[assignment]


@says("parameter 'color' of paint is Literal['red', 'blue'], but its default is 'green'; write a default of that type")
def default_that_is_no_choice(plugin: Any) -> None:
    @plugin.command("paint")
    async def paint(ctx: Context, color: Literal["red", "blue"] = "green") -> None: ...  # type: ignore[assignment]


@says(
    "parameter 'count' of roll is int | str, which nothing can fill; a command's arguments are"
    " str, int, float, bool, date, timedelta, UUID, an Enum or a Literal, Participant, or Rest; provide anything else"
)
def argument_of_two_types(plugin: Any) -> None:
    @plugin.command("roll")
    async def roll(ctx: Context, count: int | str) -> None: ...


@says("from_user('Ann') never matches; write a user's id, such as 8:acs:…")
def name_for_an_id(plugin: Any) -> None:
    plugin.message(from_user(UserId("Ann")))


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


@says("handler say returns a reply, but after ThreadLeft the bot is not in the thread any more; return None")
def reply_to_those_who_are_left(plugin: Any) -> None:
    @plugin.on(ThreadLeft)
    async def say(ctx: Context[ThreadLeft]) -> str:
        return "bye"


@says("handler say is a method; move it out of its class, or register a bound method")
def method(plugin: Any) -> None:
    class Desk:
        @plugin.message()
        async def say(self, ctx: Context) -> None: ...


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


@says("parameter 'shop' of middleware time_it has Decimal, which no provider supplies; provide it, or remove it")
def middleware_asks_for_what_nobody_provides(plugin: Any) -> None:
    @plugin.middleware
    async def time_it(ctx: Context[Event], proceed: object, shop: decimal.Decimal) -> None: ...


@says("parameter 'shop' of middleware time_it has no type; annotate it, or remove it")
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


@says("parameter 'shop' of error handler sorry has Decimal, which no provider supplies; provide it, or remove it")
def error_handler_asks_for_what_nobody_provides(plugin: Any) -> None:
    @plugin.error(ValueError)
    async def sorry(ctx: Context[Event], error: ValueError, shop: decimal.Decimal) -> None: ...


@says("plugins cannot include each other in a circle: 'a' includes 'a'; remove one of the includes")
def includes_itself(plugin: Any) -> None:
    plugin.include(plugin)


@says("plugins cannot include each other in a circle: 'b' includes 'a', which includes 'b'; remove one of the includes")
def circle(plugin: Any) -> None:
    between, other = Plugin("between"), Plugin("b")
    plugin.include(between)
    between.include(other)
    other.include(plugin)


@says("plugin 'a' includes 'b' already; remove this include")
def included_twice(plugin: Any) -> None:
    other = Plugin("b")
    plugin.include(other)
    plugin.include(other)


@pytest.mark.parametrize("reason", MISTAKES, ids=MISTAKES.name)
def test_a_mistake_is_refused_with_its_place_and_its_remedy(reason: str) -> None:
    MISTAKES.check(reason, __file__)


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

    with pytest.raises(PluginError, match=r":\d+: timer .*ring names two functions, the other at tests/.*:\d+;"):
        HandlerRegistry(plugin.handlers())


def test_two_dialogs_of_one_name_are_refused_but_one_may_begin_in_several_ways() -> None:
    plugin = Plugin("a")

    async def hello(talk: Dialog) -> None: ...

    plugin.command("hello")(hello)
    plugin.message(regex("^hello$"))(hello)
    assert len(HandlerRegistry(plugin.handlers()).everyone) == 2

    for name in ("tea", "milk"):

        @plugin.command(name)
        async def order(talk: Dialog) -> None: ...

    with pytest.raises(PluginError, match=r":\d+: dialog .*order names two functions, the other at tests/.*:\d+;"):
        HandlerRegistry(plugin.handlers())
