"""A look misses nothing, whatever happens in the thread while it walks; over the real SDK, into the emulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from chatbot.emulator import Emulator
from chatbot.errors import Throttled
from chatbot.model import ThreadId, UserId
from chatbot.polling.poller import HELD_PAGES, Interrupted, Poll
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService, MessagePage
from chatbot.service.budget import Budget
from chatbot.testing import VirtualClock
from chatbot.testing.transport import AsgiTransport

pytestmark = pytest.mark.virtual_time


class Scene:
    """A thread, a look at it, and what happens between two pages."""

    def __init__(self, emulator: Emulator, service: ChatService, thread: ThreadId) -> None:
        self.emulator = emulator
        self.service = service
        self.thread = thread
        self.between: Iterator[Callable[[], object]] = iter(())
        self.pages = 0

    def send(self, text: str) -> int:
        return self.emulator.send(self.thread, self.service.user, text)

    async def list_messages(self, *args: Any, **kwargs: Any) -> MessagePage:
        page = await self.service.list_messages(*args, **kwargs)
        self.pages += 1
        next(self.between, lambda: None)()
        return page

    def __getattr__(self, name: str) -> Any:
        return getattr(self.service, name)

    def look(self, *, bound: int = 0, page_size: int = 5, known_page: int | None = None) -> Poll:
        return Poll(
            self,  # type: ignore[arg-type]
            self.thread,
            bound=bound,
            budget=Budget(),
            page_size=page_size,
            known_page=known_page,
        )


@asynccontextmanager
async def scene(*, quotas: bool = False) -> AsyncIterator[Scene]:
    clock = VirtualClock()
    emulator = Emulator(clock=clock, quotas=quotas)
    transport = AsgiTransport(emulator)
    async with AcsResource.from_connection_string(emulator.connection_string, transport=transport, clock=clock) as acs:
        user = UserId(emulator.create_user())
        thread = ThreadId(emulator.create_thread(user))
        yield Scene(emulator, acs.chat(user, acs.issued_tokens(user)), thread)


async def contents(look: Poll) -> list[list[str]]:
    found: list[list[str]] = []
    await look.read()
    while (batch := await look.next_batch()) is not None:
        ordered = sorted(batch, key=lambda message: message.number)
        found.append([message.content for message in ordered if message.is_said])
    return found


async def test_a_thread_that_fits_a_page_is_read_with_one_request() -> None:
    async with scene() as stage:
        stage.send("a")
        last = stage.send("b")
        look = stage.look()

        assert await contents(look) == [["a", "b"]]
        assert stage.pages == 1
        assert look.top == last


async def test_a_look_ends_where_everything_is_settled() -> None:
    async with scene() as stage:
        ids = [stage.send(f"{number}") for number in range(20)]

        assert await contents(stage.look(bound=ids[17])) == [["18", "19"]]
        assert stage.pages == 1


async def test_a_message_edited_behind_the_walk_is_not_missed() -> None:
    async with scene() as stage:
        ids = [stage.send(f"{number}") for number in range(14)]
        # After the first page, the oldest message jumps to the top, where the walk has been already.
        stage.between = iter([lambda: stage.emulator.edit(stage.thread, stage.service.user, ids[0], "0, edited")])

        [batch] = await contents(stage.look())

        assert batch == ["0, edited", *(f"{number}" for number in range(1, 14))]


async def test_messages_that_come_during_the_walk_come_in_their_order() -> None:
    async with scene() as stage:
        for number in range(14):
            stage.send(f"{number}")
        stage.between = iter([lambda: stage.send("14"), lambda: stage.send("15")])
        look = stage.look()

        [batch] = await contents(look)

        assert batch == [f"{number}" for number in range(16)]


async def test_a_deep_walk_is_read_back_oldest_first_and_complete() -> None:
    async with scene() as stage:
        count = 5 * (HELD_PAGES + 7)
        for number in range(count):
            stage.send(f"{number}")

        batches = await contents(stage.look())

        assert len(batches) > 1
        assert [text for batch in batches for text in batch] == [f"{number}" for number in range(count)]


async def test_a_deep_walk_loses_nothing_when_old_messages_are_edited_and_deleted_meanwhile() -> None:
    async with scene() as stage:
        count = 5 * (HELD_PAGES + 4)
        ids = [stage.send(f"{number}") for number in range(count)]
        user = stage.service.user
        stage.between = iter(
            [
                lambda: stage.emulator.edit(stage.thread, user, ids[3], "3, edited"),
                lambda: stage.emulator.edit(stage.thread, user, ids[40], "40, edited"),
                lambda: stage.emulator.delete(stage.thread, user, ids[7]),
                *[lambda: stage.send("more")] * 3,
            ]
        )

        texts = [text for batch in await contents(stage.look()) for text in batch]

        expected = {f"{number}" for number in range(count)} - {"3", "40", "7"} | {"3, edited", "40, edited", ""}
        assert expected <= set(texts)
        assert texts.count("more") == 3


async def test_own_reply_keys_are_known_before_anything_is_handled() -> None:
    async with scene() as stage:
        first = stage.emulator.send(stage.thread, stage.service.user, "reply", metadata={"chatbot.key": "k1"})
        stage.emulator.send(stage.thread, stage.service.user, "double", metadata={"chatbot.key": "k1"})
        look = stage.look()
        await look.read()
        while await look.next_batch() is not None:
            assert look.keys == {"k1": str(first)}


async def test_a_walk_waits_for_its_quota_between_pages_and_is_never_throttled() -> None:
    async with scene(quotas=True) as stage:
        for number in range(300):
            stage.send(f"{number}")
        begun = anyio.current_time()

        texts = [text for batch in await contents(stage.look()) for text in batch]

        assert texts == [f"{number}" for number in range(300)]
        assert stage.pages > 100
        assert anyio.current_time() - begun > 10
        assert 429 not in {call.status for call in stage.emulator.calls}


async def test_a_page_in_the_middle_that_is_throttled_is_asked_for_again_and_not_for_ever() -> None:
    async with scene() as stage:
        for number in range(7):
            stage.send(f"{number}")
        stage.emulator.faults.add("list_messages:429,skip=1,times=2")
        assert [text for batch in await contents(stage.look()) for text in batch] == [f"{n}" for n in range(7)]
        assert anyio.current_time() >= 1 + 2

        stage.emulator.faults.add("list_messages:429,skip=1")
        with pytest.raises(Throttled):
            await contents(stage.look())


async def test_a_look_that_is_throttled_before_it_has_read_anything_gives_up_at_once() -> None:
    async with scene() as stage:
        stage.emulator.faults.add("list_messages:429")

        with pytest.raises(Throttled):
            await contents(stage.look())

        assert anyio.current_time() < 1


async def test_a_look_that_is_interrupted_ends_in_the_middle_of_its_read() -> None:
    async with scene() as stage:
        stage.emulator.faults.add("list_messages:hang")
        look = stage.look()

        async def interrupt() -> None:
            await anyio.sleep(1)
            look.interrupt()

        async with anyio.create_task_group() as group:
            group.start_soon(interrupt)
            with pytest.raises(Interrupted):
                await contents(look)
        assert anyio.current_time() < 10
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


async def test_an_interruption_leaves_nothing_on_the_task_although_the_request_ends_all_the_same() -> None:
    async with scene() as stage:
        stage.send("hello")
        stage.emulator.faults.add("list_messages:latency=2")
        look, task = stage.look(), asyncio.current_task()
        assert task is not None

        async def answer_late(*args: Any, **kwargs: Any) -> MessagePage:
            try:
                await anyio.sleep(5)
            except asyncio.CancelledError:  # as what is read by a library that drops a cancellation
                assert task.cancelling()
            return await stage.service.list_messages(*args, **kwargs)

        stage.list_messages = answer_late  # type: ignore[method-assign]
        asyncio.get_running_loop().call_later(1, look.interrupt)
        assert await contents(look) == [["hello"]]
        assert not task.cancelling()


async def test_a_scope_that_is_cancelled_together_with_a_look_ends_its_block() -> None:
    async with scene() as stage:
        stage.emulator.faults.add("list_messages:hang")
        look, ended = stage.look(), list[str]()
        with anyio.CancelScope() as scope:

            def cancel_both() -> None:
                look.interrupt()
                scope.cancel()

            asyncio.get_running_loop().call_later(1, cancel_both)
            try:
                await contents(look)
            except Interrupted:
                ended.append("look")
            await anyio.sleep(60)
            ended.append("block")
        assert scope.cancelled_caught
        assert "block" not in ended
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


async def read(stage: Scene, known: int | None = None, *, bound: int = 0, page_size: int = 5) -> Poll:
    look = stage.look(bound=bound, page_size=page_size, known_page=known)
    await contents(look)
    return look


async def test_a_page_without_news_is_skipped_when_it_is_read_again() -> None:
    async with scene() as stage:
        last = stage.send("a")
        first = await read(stage, bound=last)
        again = await read(stage, first.settled_page, bound=last)

        assert first.settled_page is not None
        assert not first.has_read_known
        assert again.has_read_known
        assert again.server_time_ms is not None


@pytest.mark.parametrize("what", ["send", "edit", "delete"])
async def test_a_page_that_has_changed_is_not_skipped(what: str) -> None:
    async with scene() as stage:
        message = stage.send("a")
        settled = await read(stage, bound=message)
        if what == "send":
            stage.send("b")
        elif what == "edit":
            stage.emulator.edit(stage.thread, stage.service.user, message, "b")
        else:
            stage.emulator.delete(stage.thread, stage.service.user, message)
        again = await read(stage, settled.settled_page, bound=message)

        assert not again.has_read_known
        assert again.top is not None
        assert again.top > message


async def test_a_page_with_news_is_not_settled() -> None:
    async with scene() as stage:
        stage.send("a")

        assert (await read(stage)).settled_page is None


async def test_a_page_that_does_not_reach_what_is_settled_is_not_settled_itself() -> None:
    async with scene() as stage:
        for text in "abcdefg":
            stage.send(text)
        look = Poll(stage, stage.thread, bound=0, budget=Budget(), page_size=5, order_of=lambda _: None)  # type: ignore[arg-type]
        await contents(look)

        assert stage.pages == 3  # two, and one for what has changed meanwhile
        assert look.settled_page is None
