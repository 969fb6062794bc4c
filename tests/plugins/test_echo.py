import pytest

from chatbot import SendMessage, SendReadReceipt
from chatbot.testing import EventStream, chat
from plugins.echo import plugin


async def test_any_text_comes_back_as_it_is() -> None:
    stream = EventStream()
    said = stream.user("Ann").said("hi  there\n<b>")
    stream += said

    handled = await stream.into(plugin)

    assert handled.actions == [SendMessage("hi  there\n<b>"), SendReadReceipt(said.message.id)]


async def test_the_echo_command_says_its_text() -> None:
    stream = EventStream()
    ann = stream.user("Ann")
    stream += [ann.said('/echo two "words"'), ann.said("/echo")]

    handled = await stream.into(plugin)

    assert handled.replies == ['two "words"', "TEXT is missing.\nUsage: /echo TEXT…"]


@pytest.mark.virtual_time
async def test_a_user_gets_an_echo_and_sees_that_it_was_read() -> None:
    async with chat(plugin, name="echo") as room:
        await room.user("Ann").says("hi", "/echo hello")

        assert room.replies == ["hi", "hello"]
        assert room.read["echo"] == "/echo hello"
