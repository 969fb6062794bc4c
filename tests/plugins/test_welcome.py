from chatbot import SendMessage
from chatbot.testing import EventStream
from plugins.welcome import plugin


async def test_people_who_come_in_are_greeted_by_name_in_one_message() -> None:
    stream = EventStream()
    ann, nameless = stream.user("<b>Ann</b>"), stream.user(None)
    stream += [ann.joined(), nameless.joined(), ann.joined(nameless)]

    handled = await stream.into(plugin)

    assert handled.actions == [
        SendMessage("Welcome, <b>Ann</b>!"),
        SendMessage("Welcome, there!"),
        SendMessage("Welcome, <b>Ann</b> and there!"),
    ]


async def test_bots_and_people_who_leave_are_not_greeted() -> None:
    stream = EventStream()
    stream += [stream.sibling("Helper").joined(), stream.user("Ann").left()]

    assert (await stream.into(plugin)).actions == []
