from chatbot.testing import EventStream
from plugins import echo, help


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
