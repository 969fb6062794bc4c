"""The handlers of a bot are replaced between events; what they need is made and torn down around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest

from chatbot import Context, Plugin, UserId
from chatbot.bot.handlers import HandlerGenerations
from chatbot.dispatch import BotInfo, Dispatcher
from chatbot.errors import AbnormalExit
from chatbot.testing import EventStream

BOT = BotInfo("bot", UserId("8:acs:bot"), "Bot")


class Shop:
    """Something that lives as long as its plugin."""


def keeping(name: str, diary: list[str], *, fails: str = "") -> Dispatcher:
    plugin = Plugin(name)

    @plugin.provide
    async def shop() -> AsyncIterator[Shop]:
        if fails == "opening":
            raise ConnectionError
        diary.append(f"{name} opened")
        yield Shop()
        diary.append(f"{name} closed")
        if fails == "closing":
            raise ConnectionError

    @plugin.message()
    async def answer(ctx: Context, shop: Shop) -> str:
        return f"{name}: {ctx.text}"

    return Dispatcher([plugin], bot=BOT)


async def answer(dispatcher: Dispatcher) -> str:
    outcome = await dispatcher.dispatch(EventStream(bot=BOT).user("Ann").said("hi"))
    return str(getattr(outcome.actions[0], "content", ""))


async def test_the_next_event_is_handled_by_the_new_ones_and_the_old_are_closed() -> None:
    diary: list[str] = []
    async with HandlerGenerations(keeping("old", diary)) as crew:
        with crew.use() as dispatcher:
            assert await answer(dispatcher) == "old: hi"
        await crew.replace(keeping("new", diary))
        with crew.use() as dispatcher:
            assert await answer(dispatcher) == "new: hi"

    assert diary == ["old opened", "new opened", "old closed", "new closed"]


async def test_old_handlers_are_closed_after_the_last_running_event() -> None:
    diary: list[str] = []
    async with HandlerGenerations(keeping("old", diary)) as crew:
        with crew.use(), crew.use() as dispatcher:
            await crew.replace(keeping("new", diary))
            await anyio.wait_all_tasks_blocked()
            assert await answer(dispatcher) == "old: hi"
        await anyio.wait_all_tasks_blocked()

        assert diary == ["old opened", "new opened", "old closed"]


async def test_new_ones_that_cannot_begin_leave_the_old_at_work() -> None:
    diary: list[str] = []
    async with HandlerGenerations(keeping("old", diary)) as crew:
        with pytest.raises(ConnectionError):
            await crew.replace(keeping("new", diary, fails="opening"))
        with crew.use() as dispatcher:
            assert await answer(dispatcher) == "old: hi"

    assert diary == ["old opened", "old closed"]


async def test_first_ones_that_cannot_begin_are_an_error_as_it_is() -> None:
    with pytest.raises(ConnectionError):
        async with HandlerGenerations(keeping("only", [], fails="opening")):
            pytest.fail("this must not begin")


async def test_an_error_of_the_block_is_raised_as_it_is_after_the_teardown() -> None:
    diary: list[str] = []
    with pytest.raises(ZeroDivisionError):
        async with HandlerGenerations(keeping("only", diary)):
            raise ZeroDivisionError

    assert diary == ["only opened", "only closed"]


async def test_a_failing_teardown_is_raised_as_it_is() -> None:
    with pytest.raises(ConnectionError):
        async with HandlerGenerations(keeping("only", [], fails="closing")):
            pass


async def test_a_handler_runner_works_again_with_its_latest_handlers() -> None:
    diary: list[str] = []
    crew = HandlerGenerations(keeping("old", diary))
    async with crew:
        await crew.replace(keeping("new", diary))
    await crew.replace(keeping("newest", diary))
    async with crew:
        pass

    assert diary[-2:] == ["newest opened", "newest closed"]


@pytest.mark.parametrize("raised", [SystemExit, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("fails", ["opening", "closing"])
async def test_whatever_a_provider_ends_with_is_raised_as_an_exception(raised: type[BaseException], fails: str) -> None:
    plugin = Plugin("hostile")

    @plugin.provide
    async def shop() -> AsyncIterator[Shop]:
        if fails == "opening":
            raise raised
        yield Shop()
        raise raised

    @plugin.message()
    async def answer(ctx: Context, shop: Shop) -> None: ...

    with pytest.raises(AbnormalExit, match=raised.__name__):
        async with HandlerGenerations(Dispatcher([plugin], bot=BOT)):
            pass
