"""What middleware wraps, and what it gets besides the event: things that providers make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from chatbot import Context, Event, Plugin, Proceed, Reply, text
from tests.unit.dispatch.talk import replies, talk


@dataclass
class Till:
    sold: list[str] = field(default_factory=list)


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


async def test_middleware_gets_what_is_made_once_per_bot() -> None:
    plugin, log = Plugin("a"), list[str]()

    @plugin.provide
    async def till() -> AsyncIterator[Till]:
        log.append("open")
        yield Till()
        log.append("close")

    @plugin.middleware
    async def count(ctx: Context[Event], proceed: Proceed, till: Till) -> Reply:
        till.sold.append("one")
        await proceed()
        return str(len(till.sold))

    @plugin.message()
    async def sell(ctx: Context) -> None: ...

    assert (await talk("tea", "milk").into(plugin)).replies == ["1", "2"]
    assert log == ["open", "close"]


async def test_what_a_middleware_asks_for_is_the_same_thing_inside_and_ends_when_the_middleware_does() -> None:
    plugin, log = Plugin("a"), list[str]()

    @plugin.provide
    async def till(ctx: Context[Event]) -> AsyncIterator[Till]:
        log.append("made")
        yield Till()
        log.append("torn down")

    @plugin.middleware
    async def outside(ctx: Context[Event], proceed: Proceed) -> Reply:
        reply = await proceed()
        log.append("outside")
        return reply

    @plugin.middleware
    async def total(ctx: Context[Event], proceed: Proceed, *, till: Till) -> Reply:
        await proceed()
        log.append("inside")
        return " ".join(till.sold)

    @plugin.message()
    async def sell(ctx: Context, till: Till) -> None:
        till.sold.append(ctx.text)

    assert (await talk("tea", "milk").into(plugin)).replies == ["tea", "milk"]
    assert log == ["made", "inside", "torn down", "outside"] * 2


async def test_what_only_the_handler_asks_for_ends_with_the_handler() -> None:
    plugin, log = Plugin("a"), list[str]()

    @plugin.provide
    async def till(ctx: Context[Event]) -> AsyncIterator[Till]:
        yield Till()
        log.append("torn down")

    @plugin.middleware
    async def around(ctx: Context[Event], proceed: Proceed) -> Reply:
        reply = await proceed()
        log.append("around")
        return reply

    @plugin.message()
    async def sell(ctx: Context, till: Till) -> None: ...

    await talk("tea").into(plugin)

    assert log == ["torn down", "around"]


async def test_a_failing_handler_is_seen_at_the_yield_although_the_middleware_answers_for_it() -> None:
    plugin, log = Plugin("a"), list[str]()

    @plugin.provide
    async def till(ctx: Context[Event]) -> AsyncIterator[Till]:
        try:
            yield Till()
        except ValueError:
            log.append("rolled back")
            raise

    @plugin.middleware
    async def answer(ctx: Context[Event], proceed: Proceed) -> Reply:
        try:
            return await proceed()
        except ValueError:
            return "sorry"

    @plugin.message()
    async def sell(ctx: Context, till: Till) -> None:
        msg = "sold out"
        raise ValueError(msg)

    assert (await talk("tea").into(plugin)).replies == ["sorry"]
    assert log == ["rolled back"]


async def test_a_middleware_that_goes_on_twice_has_the_handlers_things_made_twice() -> None:
    plugin, made = Plugin("a"), list[Till]()

    @plugin.provide
    async def till(ctx: Context[Event]) -> Till:
        made.append(Till())
        return made[-1]

    @plugin.middleware
    async def twice(ctx: Context[Event], proceed: Proceed) -> Reply:
        await proceed()
        return await proceed()

    @plugin.message()
    async def sell(ctx: Context, till: Till) -> str:
        till.sold.append(ctx.text)
        return " ".join(till.sold)

    assert (await talk("tea").into(plugin)).replies == ["tea"]
    assert len(made) == 2


async def test_a_middleware_sees_the_providers_of_its_own_plugin_not_those_of_plugins_it_includes() -> None:
    outer, inner = Plugin("outer"), Plugin("inner")
    outer.include(inner)

    @outer.provide
    async def outer_till() -> Till:
        return Till(["outer"])

    @inner.provide
    async def inner_till() -> Till:
        return Till(["inner"])

    @outer.middleware
    async def around(ctx: Context[Event], proceed: Proceed, till: Till) -> Reply:
        return f"{till.sold[0]}({await proceed()})"

    @inner.middleware
    async def within(ctx: Context[Event], proceed: Proceed, till: Till) -> Reply:
        return f"{till.sold[0]}({await proceed()})"

    @inner.message()
    async def show(ctx: Context, till: Till) -> str:
        return till.sold[0]

    assert (await talk("hi").into(outer)).replies == ["outer(inner(inner))"]


async def test_what_cannot_be_made_fails_the_event_before_the_handler_runs() -> None:
    plugin = Plugin("a")

    @plugin.provide
    async def till(ctx: Context[Event]) -> Till:
        msg = "no key"
        raise OSError(msg)

    @plugin.middleware
    async def around(ctx: Context[Event], proceed: Proceed, till: Till) -> Reply:
        return await proceed()

    @plugin.message()
    async def show(ctx: Context) -> None:
        raise AssertionError

    with pytest.raises(OSError, match="no key"):
        await talk("hi").into(plugin)
