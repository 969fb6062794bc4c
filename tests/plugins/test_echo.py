from chatbot import SendMessage, SendReadReceipt
from chatbot.testing import EventStream
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
