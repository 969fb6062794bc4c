import pytest

from chatbot import Plugin, UserId
from chatbot.emulator import Emulator, World
from chatbot.testing import EventStream, chat
from plugins import echo, handoff

pytestmark = pytest.mark.virtual_time


def with_agents(**users: UserId) -> Plugin:
    agents = [handoff.Agent(user=user, display_name=name) for name, user in users.items()]
    return handoff.plugin(handoff.Settings(agents=agents))


async def test_the_bot_is_silent_while_a_human_agent_is_in_the_thread() -> None:
    world = World(seed=0)
    bea = UserId(Emulator(world).create_user())
    async with chat(with_agents(Bea=bea), echo.plugin, world=world) as room:
        ann = room.user("Ann")
        await ann.says("hi", "/human where is my parcel?")
        assert [member.user for member in room.emulator.participants(room.thread)][-1] == bea
        await ann.says("hello?", "/human")
        assert room.replies == [
            "hi",
            "Ann asks for a human about: where is my parcel?\nI have called Bea.",
            "A human is here already.",
        ]

        await room.restart()
        await ann.says("still there?", "/bot", "hello")

        assert room.replies[3:] == ["I am back.", "hello"]


async def test_the_bot_returns_when_the_last_human_agent_has_left() -> None:
    stream = EventStream()
    ann, bea, cem = stream.user("Ann"), stream.user("Bea"), stream.user("Cem")
    stream += [ann.left(), bea.left()]

    handled = await stream.into(with_agents(Bea=bea.user, Cem=cem.user))

    assert handled.replies == []


async def test_ending_a_handover_without_an_agent_says_that_the_bot_is_active() -> None:
    stream = EventStream()
    stream += stream.user("Ann").said("/bot")

    assert (await stream.into(with_agents(Bea=UserId("8:acs:bea")))).replies == ["I am here."]
