import inspect

import pytest

from chatbot import Plugin
from chatbot.errors import NotFound
from chatbot.model import ThreadId
from chatbot.runtime.observe.counters import BotCounters
from chatbot.runtime.observe.instrumented_service import counted
from chatbot.service.base import ChatService
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


async def test_every_call_is_counted_by_its_outcome_and_a_listing_is_one_call() -> None:
    async with chat(Plugin("silent"), bots={"other": [Plugin("other")]}) as room:
        counters = BotCounters()
        await room.user("Ann").joins()
        service = counted(room.user("Ann").service, counters)

        assert service.user == room.user("Ann").user
        await service.send_message(room.thread, "hello", metadata={"by": "test"})
        people = [person async for person in service.list_participants(room.thread)]
        with pytest.raises(NotFound):
            await service.get_thread(ThreadId("19:nowhere@thread.v2"))

        assert len(people) == 3
        assert counters.read().calls == {
            ("send_message", "ok"): 1,
            ("list_participants", "ok"): 1,
            ("get_thread", "not_found"): 1,
        }


async def test_no_method_of_the_service_goes_uncounted() -> None:
    async with chat(Plugin("silent")) as room:
        plain = room.user("Ann").service
        service = counted(plain, BotCounters())

        methods = [name for name, value in vars(ChatService).items() if inspect.isfunction(value) and name[0] != "_"]

        assert len(methods) >= 16
        assert [name for name in methods if getattr(service, name) == getattr(plain, name)] == []
