from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NewType, Protocol

import pytest

from chatbot import Context, Event, MessageReceived, ParticipantsAdded, Plugin, PluginError
from chatbot.dispatch import Dispatcher
from chatbot.errors import StateError
from tests.unit.dispatch.talk import talk


@dataclass
class Shop:
    name: str = "shop"
    sold: list[str] = field(default_factory=list)


@dataclass
class Basket:
    shop: Shop
    owner: str


class Log(list[str]):
    """What happened, in order."""


async def test_a_provided_thing_is_made_once_per_bot_and_torn_down_at_the_end() -> None:
    plugin, log = Plugin("a"), list[str]()

    @plugin.provide
    async def shop() -> AsyncIterator[Shop]:
        log.append("open")
        yield Shop()
        log.append("close")

    @plugin.command("buy")
    async def buy(ctx: Context, shop: Shop, item: str, *more: str) -> str:
        shop.sold += [item, *more]
        log.append("sell")
        return " ".join(shop.sold)

    handled = await talk("/buy tea", "/buy milk bread").into(plugin)

    assert handled.replies == ["tea", "tea milk bread"]
    assert log == ["open", "sell", "sell", "close"]


async def test_a_provider_that_takes_a_context_makes_its_thing_for_every_event() -> None:
    plugin, log = Plugin("a"), list[str]()

    @plugin.provide
    async def basket(ctx: Context, shop: Shop) -> AsyncIterator[Basket]:
        log.append(f"take for {ctx.text}")
        yield Basket(shop, ctx.text)
        log.append("give back")

    @plugin.provide
    async def shop() -> Shop:
        log.append("open")
        return Shop()

    @plugin.message()
    async def show(ctx: Context, basket: Basket, shop: Shop) -> str:
        assert basket.shop is shop
        return basket.owner

    assert (await talk("one", "two").into(plugin)).replies == ["one", "two"]
    assert log == ["open", "take for one", "give back", "take for two", "give back"]


async def test_what_needs_a_thing_of_an_event_is_made_for_the_event_too() -> None:
    plugin = Plugin("a")
    made: list[Basket] = []

    @plugin.provide
    async def shop(ctx: Context[Event]) -> Shop:
        return Shop()

    @plugin.provide
    async def basket(shop: Shop) -> Basket:
        made.append(Basket(shop, "x"))
        return made[-1]

    @plugin.message()
    async def show(ctx: Context, basket: Basket) -> None: ...

    await talk("one", "two").into(plugin)

    assert len(made) == 2
    assert made[0].shop is not made[1].shop


async def test_a_provider_that_makes_nothing_is_named_unless_it_says_that_it_may() -> None:
    plugin = Plugin("a")

    @plugin.provide
    async def basket(ctx: Context) -> AsyncIterator[Basket]:
        yield  # type: ignore[misc]

    @plugin.provide
    async def maybe(ctx: Context) -> Shop | None:
        return None

    @plugin.command("buy")
    async def buy(ctx: Context, basket: Basket) -> str:
        return "bought"

    @plugin.command("look")
    async def look(ctx: Context, shop: Shop | None) -> str:
        return f"{shop}"

    assert (await talk("/look").into(plugin)).replies == ["None"]
    with pytest.raises(
        TypeError, match=r"test_provider\.py:\d+: provider basket yields None instead of Basket; is there"
    ):
        await talk("/buy").into(plugin)


async def test_a_failure_is_seen_by_the_providers_and_cannot_be_hidden_by_them() -> None:
    plugin, log = Plugin("a"), list[str]()

    @plugin.provide
    async def shop(ctx: Context) -> AsyncIterator[Shop]:
        try:
            yield Shop()
        except ValueError:
            log.append("rolled back")

    @plugin.message()
    async def fail(ctx: Context, shop: Shop) -> None:
        msg = "broken"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="broken"):
        await talk("hi").into(plugin)
    assert log == ["rolled back"]


async def test_a_teardown_that_fails_is_a_failure_of_the_event() -> None:
    plugin = Plugin("a")

    @plugin.provide
    async def shop(ctx: Context) -> AsyncIterator[Shop]:
        yield Shop()
        msg = "not committed"
        raise OSError(msg)

    @plugin.message()
    async def sell(ctx: Context, shop: Shop) -> str:
        return "sold"

    (outcome,) = (await talk("hi").into(plugin, should_raise=False)).outcomes
    assert outcome.keyed_actions == ()
    assert isinstance(outcome.error, OSError)


async def test_if_one_thing_cannot_be_made_those_before_it_are_torn_down() -> None:
    plugin, log = Plugin("a"), list[str]()

    @plugin.provide
    async def shop() -> AsyncIterator[Shop]:
        yield Shop()
        log.append("closed")

    @plugin.provide
    async def basket(shop: Shop) -> Basket:
        msg = "no baskets"
        raise OSError(msg)

    @plugin.message()
    async def show(ctx: Context, basket: Basket) -> None: ...

    with pytest.raises(OSError, match="no baskets"):
        await talk("hi").into(plugin)
    assert log == ["closed"]


async def test_the_nearest_provider_counts_and_included_plugins_see_those_of_their_includer() -> None:
    outer, inner = Plugin("outer"), Plugin("inner")
    outer.include(inner)

    @outer.provide
    async def shop() -> Shop:
        return Shop("outer")

    @outer.provide
    async def basket(shop: Shop) -> Basket:
        return Basket(shop, "outer")

    @inner.provide
    async def own_shop() -> Shop:
        return Shop("inner")

    @inner.message()
    async def show(ctx: Context, shop: Shop, basket: Basket) -> str:
        return f"{shop.name} {basket.shop.name}"

    assert (await talk("hi").into(outer)).replies == ["inner outer"]


async def test_nothing_is_made_that_no_handler_needs() -> None:
    plugin = Plugin("a")

    @plugin.provide
    async def shop() -> Shop:
        raise AssertionError

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    assert (await talk("hi").into(plugin)).replies == ["hi"]


async def test_arguments_of_any_annotation_may_follow_provided_objects() -> None:
    plugin = Plugin("a")

    @plugin.provide
    async def shop() -> Shop:
        return Shop("corner")

    @plugin.command("buy")
    async def buy(
        ctx: Context, count: Annotated[int, {"cannot": "be hashed"}], shop: Shop, *, gift: bool = False
    ) -> str:
        return f"{count} {shop.name} {gift}"

    assert (await talk("/buy 2 --gift").into(plugin)).replies == ["2 corner True"]


async def test_a_dispatcher_that_was_not_entered_says_so() -> None:
    plugin = Plugin("a")

    @plugin.provide
    async def shop() -> Shop:
        return Shop()

    @plugin.message()
    async def show(ctx: Context, shop: Shop) -> None: ...

    stream = talk("hi")
    outcome = await Dispatcher([plugin], bot=stream.bot).dispatch(stream.events[0])

    assert isinstance(outcome.error, StateError)
    assert str(outcome.error) == "shop has not run: dispatch inside `async with dispatcher:`"


def refused(plugin: Plugin) -> str:
    with pytest.raises(PluginError) as caught:
        plugin.handlers()
    place, _, reason = str(caught.value).split(":", 2)
    assert place == "tests/unit/dispatch/test_provider.py"
    return reason.strip()


def sync() -> Shop:
    return Shop()


async def unsaid():  # type: ignore[no-untyped-def]
    return Shop()


async def nothing() -> None: ...


async def never_yields() -> AsyncIterator[Shop]:
    raise AssertionError


async def yields_unsaid() -> Shop:  # type: ignore[misc]
    yield Shop()


async def argument() -> int:
    return 1


async def a_context() -> Context:
    raise AssertionError


async def needs_basket(basket: Basket) -> Shop:
    return basket.shop


async def needs_untyped(basket) -> Shop:  # type: ignore[no-untyped-def]
    return Shop()


@pytest.mark.parametrize(
    ("provider", "reason"),
    [
        (sync, "provider sync is not async; write `async def sync`"),
        (unsaid, "provider unsaid does not say what it provides; annotate what it returns"),
        (nothing, "provider nothing does not say what it provides; annotate what it returns"),
        (
            never_yields,
            "provider never_yields returns AsyncIterator[Shop], but it never yields; yield what it provides once",
        ),
        (
            yields_unsaid,
            "provider yields_unsaid yields, so annotate its return as AsyncIterator[…] of what it provides",
        ),
        (argument, "provider argument provides int, which parameters are filled with already; wrap it"),
        (a_context, "provider a_context provides Context, which parameters are filled with already; wrap it"),
        (
            needs_basket,
            "parameter 'basket' of provider needs_basket has Basket, which no provider supplies;"
            " provide it, or remove it",
        ),
        (needs_untyped, "parameter 'basket' of provider needs_untyped has no type; annotate it, or remove it"),
    ],
)
def test_a_provider_that_cannot_be_used_is_refused(provider: Any, reason: str) -> None:
    plugin = Plugin("a")
    plugin.provide(provider)

    assert refused(plugin) == reason


def test_two_providers_of_one_thing_are_refused() -> None:
    plugin = Plugin("a")

    @plugin.provide
    async def shop() -> Shop:
        return Shop()

    @plugin.provide
    async def another() -> Shop:
        return Shop()

    assert refused(plugin).startswith("Shop is provided already, by tests/unit/dispatch/test_provider.py:")


def test_providers_that_need_each_other_are_refused() -> None:
    plugin = Plugin("a")
    plugin.provide(needs_basket)

    @plugin.provide
    async def basket(shop: Shop) -> Basket:
        return Basket(shop, "x")

    assert refused(plugin) == (
        "providers cannot need each other in a circle: Shop needs Basket needs Shop; remove one parameter"
    )


def test_a_provider_for_other_events_is_refused_where_it_is_asked_for() -> None:
    plugin = Plugin("a")

    @plugin.provide
    async def shop(ctx: Context[MessageReceived]) -> Shop:
        return Shop()

    @plugin.on(ParticipantsAdded)
    async def welcome(ctx: Context[ParticipantsAdded], shop: Shop) -> None: ...

    assert refused(plugin) == (
        "parameter 'shop' of welcome is made by shop, whose context is not one of ParticipantsAdded;"
        " give shop a `Context[Event]`"
    )


def test_what_nobody_provides_is_refused() -> None:
    plugin = Plugin("a")

    @plugin.message()
    async def show(ctx: Context, shop: Shop) -> None: ...

    assert refused(plugin).startswith("parameter 'shop' of show is Shop, which nothing can fill;")


async def _coroutine() -> Shop:
    return Shop()


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (Shop, lambda: Basket),
        (Shop, lambda: "shop"),
        (Shop | None, lambda: 7),
        (list[Shop], lambda: (Shop(),)),
        (Annotated[Shop, "x"], dict),
        (NewType("Own", Shop), lambda: 1.0),
        (Callable[[], int], lambda: 1),
        (Shop, _coroutine),
    ],
)
async def test_a_provider_that_makes_something_else_than_it_says_is_named(wanted: Any, value: Any) -> None:
    plugin = Plugin("a")

    async def make(ctx: Context) -> Any:
        return value()

    async def look(ctx: Context, thing: Any) -> str:
        return "looked"

    make.__annotations__["return"] = look.__annotations__["thing"] = wanted
    plugin.provide(make)
    plugin.command("look")(look)

    with pytest.raises(TypeError, match=r"test_provider\.py:\d+: provider make returns a .* instead of "):
        await talk("/look").into(plugin)


class Sells(Protocol):
    def sell(self) -> None: ...


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (Shop | None, None),
        (list[Shop], []),
        (Mapping[str, Shop], {}),
        (Sells, Shop()),
        (Callable[[], int], len),
        (NewType("Own", Shop), Shop()),
        (Annotated[Shop, "x"], Shop()),
    ],
)
async def test_what_a_provider_says_is_read_as_type_checkers_read_it(wanted: Any, value: Any) -> None:
    plugin = Plugin("a")

    async def make(ctx: Context) -> Any:
        return value

    async def look(ctx: Context, thing: Any) -> str:
        return "looked"

    make.__annotations__["return"] = look.__annotations__["thing"] = wanted
    plugin.provide(make)
    plugin.command("look")(look)

    assert (await talk("/look").into(plugin)).replies == ["looked"]
