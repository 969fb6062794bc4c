import pytest

from chatbot.testing import EventStream, chat
from plugins import echo, help, welcome


async def test_help_lists_the_commands_of_all_plugins() -> None:
    stream = EventStream()
    stream += stream.user("Ann").said("/help")

    handled = await stream.into(help.plugin, echo.plugin)

    assert handled.replies == ["/help [NAME] — List the commands, or explain one.\n/echo TEXT… — Say TEXT."]


async def test_help_explains_one_command() -> None:
    stream = EventStream()
    ann = stream.user("Ann")
    stream += [ann.said("/help echo"), ann.said("/help /ECHO"), ann.said("/help dance")]

    handled = await stream.into(help.plugin, echo.plugin)

    explained = "/echo TEXT…\nSay TEXT."
    assert handled.replies == [explained, explained, "There is no command /dance. Type /help for all of them."]


@pytest.mark.virtual_time
async def test_two_bots_in_one_thread_answer_people_and_not_each_other() -> None:
    async with chat(bots={"echo": [echo.plugin], "host": [help.plugin, welcome.plugin]}) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("/help", "hi")
        await ann.adds(bob)

        assert [text for name, text in room.said if name == "echo"] == ["/help", "hi"]
        assert [text for name, text in room.said if name == "host"] == [
            "Welcome, Ann!",
            "/help [NAME] — List the commands, or explain one.",
            "Welcome, Bob!",
        ]
