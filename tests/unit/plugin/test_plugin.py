from functools import partial, wraps
from typing import Any, Literal, NoReturn

import pytest

from chatbot import (
    PASS,
    Context,
    Event,
    MessageEvent,
    MessageReceived,
    ParticipantsAdded,
    ParticipantsRemoved,
    Pass,
    Plugin,
    Rest,
    text,
)
from chatbot.testing import EventStream, context


async def test_decorators_return_the_function_unchanged_so_that_tests_call_it() -> None:
    plugin = Plugin("dice")

    async def roll(ctx: Context, count: int, sides: int = 6) -> str:
        return f"{count}d{sides} for {ctx.text}"

    decorated = plugin.command("roll")(roll)

    assert decorated is roll
    assert await decorated(context("/roll 2 8"), 2, 8) == "2d8 for /roll 2 8"


async def test_handlers_of_an_included_plugin_are_ordered_where_it_was_included() -> None:
    outer, inner, innermost = Plugin("outer"), Plugin("inner"), Plugin("innermost")

    def answers(plugin: Plugin, wanted: str) -> None:
        @plugin.message(text(startswith=wanted))
        async def answer(ctx: Context) -> str:
            return wanted

    answers(innermost, "abc")
    answers(inner, "ab")
    inner.include(innermost)
    answers(outer, "abcd")
    outer.include(inner)
    answers(outer, "a")
    stream = EventStream()
    ann = stream.user("Ann")
    stream += [ann.said(one) for one in ("abcde", "abc", "a")]

    assert (await stream.into(outer)).replies == ["abcd", "ab", "a"]
    assert outer.includes(innermost)
    assert not inner.includes(outer)


def test_a_plugin_may_be_included_in_two_others() -> None:
    shared, one, two, both = Plugin("shared"), Plugin("one"), Plugin("two"), Plugin("both")
    shared.message()(_echo)
    one.include(shared)
    two.include(shared)
    both.include(one)

    assert len(one.handlers()) == len(two.handlers()) == len(both.handlers()) == 1


async def _echo(ctx: Context) -> str:
    return ctx.text


@pytest.mark.parametrize(
    "returned",
    [str, None, Pass, str | None, str | Pass, Pass | None, Literal["a", "b"], Literal[Pass.PASS], NoReturn, Any],
)
def test_everything_that_may_be_returned_may_be_annotated(returned: object) -> None:
    plugin = Plugin("a")

    async def answer(ctx: Context) -> Any:
        return PASS

    answer.__annotations__["return"] = returned
    plugin.message()(answer)

    assert len(plugin.handlers()) == 1


@pytest.mark.parametrize(
    "accepted",
    [
        Context,
        Context[MessageReceived],
        Context[MessageEvent],
        Context[Event],
        Context[Any],
        Context[MessageReceived | ParticipantsAdded],
    ],
)
def test_a_handler_may_take_wider_contexts_than_its_event_needs(accepted: object) -> None:
    plugin = Plugin("a")

    async def answer(ctx: Any) -> None: ...

    answer.__annotations__["ctx"] = accepted
    plugin.message()(answer)

    assert len(plugin.handlers()) == 1


async def test_one_function_may_handle_several_events() -> None:
    plugin = Plugin("door")

    async def note(ctx: Context[ParticipantsAdded | ParticipantsRemoved]) -> str:
        return type(ctx.event).__name__

    plugin.on(ParticipantsAdded)(note)
    plugin.on(ParticipantsRemoved)(note)
    stream = EventStream()
    ann = stream.user("Ann")
    stream += [ann.joined(), ann.left()]

    assert (await stream.into(plugin)).replies == ["ParticipantsAdded", "ParticipantsRemoved"]


async def test_a_handler_may_be_decorated_and_may_be_a_method() -> None:
    plugin = Plugin("a")

    def shouting(function: Any) -> Any:
        @wraps(function)
        async def shout(*args: Any) -> str:
            return f"{await function(*args)}!"

        return shout

    class Desk:
        async def greet(self, ctx: Context, name: Rest) -> str:
            return f"Hi {name}"

    plugin.command("hi")(shouting(Desk().greet))
    stream = EventStream()
    stream += stream.user("Ann").said("/hi Ann Lee")

    assert (await stream.into(plugin)).replies == ["Hi Ann Lee!"]


async def test_a_handler_may_be_a_partial_which_is_named_by_its_function() -> None:
    plugin = Plugin("a")

    async def say(words: str, ctx: Context) -> str:
        return words

    plugin.message()(partial(say, "hello"))
    stream = EventStream()
    stream += stream.user("Ann").said("hi")
    (outcome,) = (await stream.into(plugin)).outcomes

    assert outcome.handler == f"{__name__}.{say.__qualname__}"
    assert plugin.handlers()[0].place.startswith("tests/unit/plugin/test_plugin.py:")


def test_a_plugin_knows_its_name_and_where_it_was_made() -> None:
    plugin = Plugin("dice")

    assert repr(plugin) == "Plugin('dice')"
    assert plugin.place.startswith("tests/unit/plugin/test_plugin.py:")
