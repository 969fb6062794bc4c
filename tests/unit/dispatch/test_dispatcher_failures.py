from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import pytest

from chatbot import (
    PASS,
    Ack,
    Context,
    Event,
    ParticipantsAdded,
    Pass,
    Plugin,
    PluginError,
    Retry,
    SendMessage,
    SendReadReceipt,
)
from chatbot.dispatch import Dispatcher
from chatbot.testing import EventStream, Handled


class Desk(list[str]):
    """Where failures are reported."""


async def failing(plugin: Plugin, error: Exception, ack: Ack = Ack.HANDLED) -> Handled:
    """What comes of it when a handler of the plugin fails for good."""

    async def fail(ctx: Context) -> None:
        await ctx.reply("never seen")
        raise error

    plugin.message()(fail)
    stream = EventStream()
    stream += stream.user("Ann").said("hi")
    return await stream.into(plugin, should_raise=False, ack=ack)


async def test_an_error_handler_decides_about_a_failure() -> None:
    plugin = Plugin("a")

    @plugin.error(ValueError)
    async def sorry(ctx: Context[Event], error: ValueError) -> str:
        return f"Sorry: {error}"

    (outcome,) = (await failing(plugin, ValueError("no luck"))).outcomes

    assert [type(action) for action in outcome.actions] == [SendMessage, SendReadReceipt]
    assert outcome.actions[0] == SendMessage("Sorry: no luck")
    assert isinstance(outcome.error, ValueError)


async def test_an_error_handler_gets_what_providers_make() -> None:
    plugin, desk, log = Plugin("a"), Desk(), list[str]()

    @plugin.provide
    async def the_desk() -> Desk:
        return desk

    @plugin.provide
    async def event_key(ctx: Context[Event], desk: Desk) -> AsyncIterator[list[str]]:
        log.append("made")
        yield [ctx.event.key]
        log.append("torn down")

    @plugin.error(ValueError)
    async def report(ctx: Context[Event], error: ValueError, desk: Desk, *, keys: list[str]) -> None:
        desk.append(f"{error} {keys == [ctx.event.key]}")

    await failing(plugin, ValueError("no luck"))

    assert desk == ["no luck True"]
    assert log == ["made", "torn down"]


async def test_what_cannot_be_made_for_an_error_handler_is_what_went_wrong_last() -> None:
    plugin = Plugin("a")

    @plugin.provide
    async def desk(ctx: Context[Event]) -> Desk:
        msg = "closed"
        raise OSError(msg)

    @plugin.error(ValueError)
    async def report(ctx: Context[Event], error: ValueError, desk: Desk) -> str:
        raise AssertionError

    (outcome,) = (await failing(plugin, ValueError("no luck"))).outcomes

    assert isinstance(outcome.error, OSError)


async def test_error_handlers_get_only_errors_of_their_types_and_may_pass() -> None:
    plugin = Plugin("a")

    @plugin.error(KeyError)
    async def not_mine(ctx: Context[Event], error: KeyError) -> str:
        raise AssertionError

    @plugin.error(ValueError, OSError)
    async def note(ctx: Context[Event], error: Exception) -> Pass:
        await ctx.reply("noted")
        return PASS

    @plugin.error()
    async def anything(ctx: Context[Event], error: Exception) -> str:
        return "sorry"

    assert (await failing(plugin, OSError())).replies == ["noted", "sorry"]


async def test_the_nearest_plugins_error_handler_goes_first() -> None:
    outer, inner = Plugin("outer"), Plugin("inner")
    outer.include(inner)

    @outer.error()
    async def far(ctx: Context[Event], error: Exception) -> str:
        return "far"

    assert (await failing(outer, ValueError())).replies == ["far"]

    @inner.error()
    async def near(ctx: Context[Event], error: Exception) -> str:
        return "near"

    @inner.message()
    async def fail(ctx: Context) -> None:
        raise ValueError

    stream = EventStream()
    stream += stream.user("Ann").said("hi")
    assert (await stream.into(inner, should_raise=False)).replies == ["near"]
    stream += stream.user("Ann").said("hi")
    assert (await stream.into(outer, should_raise=False)).replies == ["near"]


async def test_what_a_passing_error_handler_asked_for_is_done_even_if_nobody_answers() -> None:
    plugin = Plugin("a")

    @plugin.error()
    async def note(ctx: Context[Event], error: Exception) -> Pass:
        await ctx.reply("noted")
        return PASS

    assert (await failing(plugin, ValueError())).actions == [SendMessage("noted")]


async def test_error_handlers_see_the_event_as_its_handler_saw_it() -> None:
    plugin = Plugin("a")

    @plugin.on(ParticipantsAdded)
    async def greet(ctx: Context[ParticipantsAdded]) -> None:
        raise ValueError

    @plugin.error()
    async def sorry(ctx: Context[Event], error: Exception) -> str:
        assert isinstance(ctx.event, ParticipantsAdded)
        return str(len(ctx.event.participants))

    stream = EventStream()
    stream += stream.user("Ann").joined(stream.sibling("Helper"))

    assert (await stream.into(plugin, should_raise=False)).replies == ["1"]


async def test_without_an_error_handler_a_failure_leaves_nothing_to_do() -> None:
    assert (await failing(Plugin("a"), ValueError())).actions == []


async def test_what_is_owed_for_receiving_stays_owed() -> None:
    (action,) = (await failing(Plugin("a"), ValueError(), Ack.RECEIVED)).actions

    assert isinstance(action, SendReadReceipt)


async def test_a_failing_error_handler_is_logged_and_its_actions_are_dropped() -> None:
    plugin = Plugin("a")

    @plugin.error()
    async def worse(ctx: Context[Event], error: Exception) -> str:
        await ctx.reply("dropped")
        msg = "even worse"
        raise OSError(msg)

    (outcome,) = (await failing(plugin, ValueError())).outcomes

    assert outcome.actions == []
    assert str(outcome.error) == "even worse"


async def test_a_handler_that_takes_too_long_is_cancelled_and_has_failed() -> None:
    plugin, ended = Plugin("a"), list[str]()

    @plugin.message(timeout=timedelta(milliseconds=1))
    async def slow(ctx: Context) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    @plugin.message(timeout=timedelta(seconds=9))
    async def fast(ctx: Context) -> None: ...

    stream = EventStream()
    stream += stream.user("Ann").said("hi")

    with pytest.raises(TimeoutError, match=r"test_dispatcher_failures\.py:\d+: .*slow did not end within 0\.001 s"):
        await stream.into(plugin)
    assert ended == ["cancelled"]


async def test_a_handlers_own_timeout_error_stays_its_own() -> None:
    plugin = Plugin("a")

    @plugin.message(timeout=timedelta(seconds=9))
    async def impatient(ctx: Context) -> None:
        with anyio.fail_after(0):
            await anyio.sleep_forever()

    stream = EventStream()
    stream += stream.user("Ann").said("hi")
    (outcome,) = (await stream.into(plugin, should_raise=False)).outcomes

    assert isinstance(outcome.error, TimeoutError)
    assert "did not end" not in str(outcome.error)


@pytest.mark.parametrize("retry", [None, Retry(attempts=7)])
async def test_a_failure_says_how_often_its_handler_is_tried(retry: Retry | None) -> None:
    plugin = Plugin("a")

    @plugin.message(retry=retry)
    async def fail(ctx: Context) -> None:
        raise ValueError

    stream = EventStream()
    outcome = await Dispatcher([plugin], bot=stream.bot).dispatch(stream.user("Ann").said("hi"))

    assert outcome.retry == (retry or Retry())


async def sync_name(ctx: Context[Event], error: ValueError) -> int:
    return 1


def not_async(ctx: Context[Event], error: ValueError) -> None: ...
async def one_parameter(ctx: Context[Event]) -> None: ...
async def one_event(ctx: Context, error: ValueError) -> None: ...
async def other_error(ctx: Context[Event], error: KeyError) -> None: ...
async def fine(ctx: Context[Event], error: Exception) -> None: ...


@pytest.mark.parametrize(
    ("function", "errors", "reason"),
    [
        (not_async, (ValueError,), "error handler not_async is not async; write `async def not_async`"),
        (
            one_parameter,
            (),
            "error handler one_parameter takes two parameters:"
            " `async def one_parameter(ctx: Context[Event], error: Exception)`",
        ),
        (
            one_event,
            (ValueError,),
            "parameter 'ctx' of error handler one_event must take every event; write `ctx: Context[Event]`",
        ),
        (
            other_error,
            (KeyError, ValueError),
            "parameter 'error' of error handler other_error is KeyError, but it is registered for KeyError, ValueError",
        ),
        (
            sync_name,
            (ValueError,),
            "error handler sync_name returns int; it may return str (a reply), None, or PASS (annotated `Pass`)",
        ),
        (
            fine,
            ("ValueError",),
            "error() takes classes of exceptions, as in @plugin.error(OSError), not 'ValueError'",
        ),
    ],
)
def test_an_error_handler_that_cannot_be_used_is_refused(function: Any, errors: Any, reason: str) -> None:
    with pytest.raises(PluginError) as caught:
        Plugin("a").error(*errors)(function)

    place, _, said = str(caught.value).split(":", 2)
    assert place == "tests/unit/dispatch/test_dispatcher_failures.py"
    assert said.strip() == reason


@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(seconds=-1), 60])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(
        PluginError, match=r"^tests/.*:\d+: timeout=.* is not a time; write timeout=timedelta\(seconds=60\)"
    ):
        Plugin("a").message(timeout=timeout)
