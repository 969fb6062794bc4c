"""What a test gives instead of what plugins make, and in the place of plugins."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatbot import Context, Event, Plugin, Proceed, Reply
from chatbot.testing import EventStream, chat

pytestmark = pytest.mark.virtual_time


class Api:
    async def price(self, item: str) -> int:
        raise NotImplementedError


class FakeApi(Api):
    async def price(self, item: str) -> int:
        return len(item)


class Shop:
    def __init__(self, api: Api) -> None:
        self.api = api


def shopping() -> Plugin:
    inner, outer = Plugin("shop"), Plugin("mall")

    @inner.provide
    async def api() -> AsyncIterator[Api]:
        msg = "the real service must not be opened"
        raise AssertionError(msg)
        yield Api()

    @inner.provide
    async def shop(ctx: Context[Event], api: Api) -> Shop:
        return Shop(api)

    @inner.middleware
    async def priced(ctx: Context[Event], proceed: Proceed, api: Api) -> Reply:
        reply = await proceed()
        return f"{reply} {await api.price('fig')}" if isinstance(reply, str) else reply

    @inner.message()
    async def sell(ctx: Context, shop: Shop) -> str:
        return f"{await shop.api.price(ctx.text)}"

    outer.include(inner)
    return outer


async def test_handlers_middleware_and_providers_get_what_the_test_provides() -> None:
    async with chat(shopping(), provide={Api: FakeApi()}) as room:
        await room.user("Ann").says("banana")

        assert room.replies == ["6 3"]


async def test_an_event_stream_provides_too() -> None:
    stream = EventStream()
    stream += stream.user("Ann").said("banana")

    assert (await stream.into(shopping(), provide={Api: FakeApi()})).replies == ["6 3"]


async def test_a_type_that_nobody_provides_can_be_given() -> None:
    plugin = Plugin("orphan")

    @plugin.message()
    async def sell(ctx: Context, api: Api) -> str:
        return str(await api.price(ctx.text))

    async with chat(plugin, provide={Api: FakeApi()}) as room:
        await room.user("Ann").says("fig")

        assert room.replies == ["3"]


@pytest.mark.parametrize(
    ("provide", "message"),
    [
        ({FakeApi: FakeApi()}, r"gives FakeApi, which no handler asks for; handlers ask for Api, Shop"),
        ({Api: FakeApi}, r"gives the class FakeApi for Api; give an instance, FakeApi\(\)"),
    ],
)
async def test_an_unused_replacement_of_a_provider_is_named(provide: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        async with chat(shopping(), provide=provide):
            pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (shopping, r"function shopping \(.*test_provided\.py:\d+\), not a plugin; call it: shopping\(\)"),
        (sys.modules[__name__], r"the module .*test_provided; give it the plugin: .*test_provided\.plugin"),
        ("plugins.shop", "takes plugins, not 'plugins.shop'"),
        (Plugin, "takes plugins, not <class"),
    ],
)
async def test_what_is_no_plugin_is_named(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        async with chat(given):
            pass
    with pytest.raises(TypeError, match=message):
        await EventStream().into(given)


async def test_bots_take_lists_of_plugins() -> None:
    with pytest.raises(TypeError, match=r"write \[plugin\]"):
        async with chat(bots={"shop": shopping()}):  # type: ignore[dict-item]
            pass
