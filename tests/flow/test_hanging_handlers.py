"""A handler that does not end: it is canceled, and what does not stop even then keeps only its own thread waiting."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest
from structlog.testing import capture_logs

from chatbot import BotStarted, Context, Dialog, Event, Plugin, Retry
from chatbot.bot import BotSettings
from chatbot.polling.cadence import Cadence
from chatbot.stores import MemoryStore
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time

ONCE = Retry(attempts=1)
LONG = timedelta(days=7)


async def sleep_forever(ctx: Context) -> str:
    if ctx.text != "hang":
        return f"you said {ctx.text}"
    await anyio.sleep_forever()
    return "never"


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [({}, 600), ({"timeout": timedelta(seconds=30)}, 30), ({"timeout": timedelta(days=2)}, 172800)],
)
async def test_an_attempt_is_canceled_after_ten_minutes_or_the_handlers_own_timeout(
    timeout: dict[str, timedelta], seconds: float
) -> None:
    plugin, store = Plugin("slow"), MemoryStore()
    plugin.message(retry=ONCE, **timeout)(sleep_forever)

    async with chat(plugin, store=store, raise_failures=False, patience=LONG) as room:
        ann = room.user("Ann")
        await ann.joins()
        begun = anyio.current_time()
        await ann.says("hang", "hi")

        (letter,) = await store.dead_letters(room.bot.user)
        assert seconds <= anyio.current_time() - begun < seconds + 60
        assert letter.error.startswith("TimeoutError: ")
        assert letter.error.endswith(f"did not end within {seconds:g} s")
        assert room.replies == ["you said hi"]


async def test_a_handler_without_timeout_may_take_any_time() -> None:
    plugin = Plugin("slow")

    @plugin.message(timeout=None)
    async def think(ctx: Context) -> str:
        await anyio.sleep(86400)
        return "42"

    async with chat(plugin, patience=LONG) as room:
        await room.user("Ann").says("what is the answer?")

        assert room.replies == ["42"]


async def test_the_start_of_a_bot_may_take_longer_than_ten_minutes() -> None:
    plugin, warm = Plugin("slow"), list[str]()

    @plugin.on(BotStarted)
    async def warm_up(ctx: Context[BotStarted]) -> None:
        await anyio.sleep(3600)
        warm.append("warm")

    async with chat(plugin, patience=LONG) as room:
        await room.user("Ann").says("hi")

    assert warm == ["warm"]


async def test_a_dialog_that_waits_for_an_answer_does_not_run() -> None:
    plugin = Plugin("talk")

    @plugin.command("hello")
    async def hello(talk: Dialog) -> None:
        name = await talk.ask("Who are you?", timeout=timedelta(days=2))
        await talk.say(f"Hi {name}!")

    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("/hello")
        await room.advance(days=1)
        await ann.says("Ann")

        assert room.replies == ["Who are you?", "Hi Ann!"]


async def test_an_error_handler_that_hangs_does_not_keep_its_thread_waiting() -> None:
    plugin, store = Plugin("slow"), MemoryStore()

    @plugin.error(ValueError)
    async def excuse(ctx: Context[Event], error: ValueError) -> str:
        await anyio.sleep_forever()
        return "sorry"

    @plugin.message(retry=ONCE)
    async def fail(ctx: Context) -> str:
        if ctx.text == "fail":
            raise ValueError
        return "fine"

    async with chat(plugin, store=store, raise_failures=False, patience=LONG) as room:
        await room.user("Ann").says("fail", "hi")

        assert len(await store.dead_letters(room.bot.user)) == 1
        assert room.replies == ["fine"]


class Stubborn:
    """Handlers that take no notice of being canceled until they are released."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.at_once = self.most_at_once = 0
        self.released = anyio.Event()

    async def handle(self, ctx: Context) -> str:
        if not ctx.text.startswith("hang"):
            return f"you said {ctx.text}"
        self.begun.append(ctx.text)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        while not self.released.is_set():
            with anyio.CancelScope(shield=True):
                await self.released.wait()
        self.at_once -= 1
        return "released"


async def test_a_handler_that_does_not_end_keeps_only_its_own_thread_waiting_until_it_does() -> None:
    plugin, store, stubborn = Plugin("stubborn"), MemoryStore(), Stubborn()
    plugin.message(retry=Retry(attempts=2), timeout=timedelta(seconds=30))(stubborn.handle)
    settings = BotSettings(max_handlers=1, cadence=Cadence(interval=10))

    with capture_logs() as logs:
        async with chat(plugin, store=store, settings=settings, raise_failures=False, patience=LONG) as room:
            ann = room.user("Ann")
            await ann.joins()
            other = room.another()
            bob = other.user("Bob")
            with room.not_waiting():
                await ann.says("hang", "hi")
                await room.advance(minutes=5)
                await bob.says("hello")
                await room.advance(minutes=5)

                assert stubborn.begun == ["hang"]
                assert (room.replies, other.replies) == ([], ["you said hello"])
                assert [line["handler"] for line in logs if line["event"] == "handler.abandoned"] == [
                    "tests.flow.test_hanging_handlers.Stubborn.handle"
                ]
            stubborn.released.set()
            await room.settle()

            assert stubborn.most_at_once == 1
            assert await store.dead_letters(room.bot.user) == []
            assert room.replies == ["released", "you said hi"]


async def test_a_stop_waits_for_a_handler_that_runs() -> None:
    plugin, begun = Plugin("slow"), anyio.Event()

    @plugin.message()
    async def think(ctx: Context) -> str:
        begun.set()
        await anyio.sleep(300)
        return "done"

    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.joins()
        with room.not_waiting():
            await ann.says("hi")
            await begun.wait()
        await room.stop()

        assert room.replies == ["done"]
