"""Commands: found before anything else, explained, suggested, and each known once."""

import pytest

from chatbot import PASS, Context, Pass, Plugin, PluginError, text
from chatbot.dispatch import Dispatcher
from chatbot.testing import EventStream
from tests.unit.dispatch.talk import BOT, replies, talk


async def test_a_command_comes_before_every_message_handler() -> None:
    first, second = Plugin("a"), Plugin("b")

    @first.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    @second.command("roll")
    async def roll(ctx: Context, count: int, sides: int = 6) -> str:
        return f"{count}d{sides}"

    assert await replies(talk("/roll 2", "/ROLL 2 8", "/rolls", "roll 2"), first, second) == [
        "2d6",
        "2d8",
        "/rolls",
        "roll 2",
    ]


async def test_a_command_is_found_in_html_and_behind_a_mention() -> None:
    plugin = Plugin("a")

    @plugin.command("roll")
    async def roll(ctx: Context, count: int) -> str:
        return f"{count} dice"

    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    stream += [
        ann.said(html="<p>/roll&nbsp;2</p>"),
        ann.said(html='<p><at id="0">Help desk</at>&nbsp;/roll 3</p>'),
        ann.said("@Help desk, /roll 4"),
        ann.said("I told Help desk /roll 5"),
    ]

    assert await replies(stream, plugin) == ["2 dice", "3 dice", "4 dice"]


async def test_arguments_that_do_not_fit_are_answered_with_the_usage() -> None:
    plugin = Plugin("a")

    @plugin.command("roll")
    async def roll(ctx: Context, count: int) -> str:
        raise AssertionError

    assert await replies(talk("/roll six"), plugin) == [
        'COUNT: "six" is not a whole number.\nUsage: /roll COUNT',
    ]


async def test_a_command_that_passes_becomes_a_message() -> None:
    plugin = Plugin("a")

    @plugin.command("x")
    async def never(ctx: Context) -> Pass:
        return PASS

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    assert await replies(talk("/x"), plugin) == ["/x"]


async def test_a_near_command_is_suggested_only_when_nobody_answers() -> None:
    quiet, loud = Plugin("quiet"), Plugin("loud")

    @quiet.command("help")
    async def show_help(ctx: Context) -> str:
        return "help"

    @loud.message()
    async def echo(ctx: Context) -> str:
        return ctx.text

    assert await replies(talk("/hepl", "/hello", "/etc/passwd"), quiet) == [
        "There is no /hepl. Did you mean /help?",
    ]
    assert await replies(talk("/hepl"), quiet, loud) == ["/hepl"]


async def test_a_filter_may_restrict_a_command() -> None:
    plugin = Plugin("a")

    @plugin.command("ban", text(endswith="please"))
    async def ban(ctx: Context, who: str, *politely: str) -> str:
        return who

    assert await replies(talk("/ban Bob", "/ban Bob please"), plugin) == ["Bob"]


async def test_the_commands_of_all_plugins_are_known_to_every_handler() -> None:
    first, second = Plugin("a"), Plugin("b")

    @first.message()
    async def show(ctx: Context) -> str:
        return "; ".join(f"{one.name}: {one.usage}: {one.summary}" for one in ctx.commands)

    @second.command("roll")
    async def roll(ctx: Context, count: int) -> None:
        """Roll dice.

        Not shown.
        """

    @second.command("bare")
    async def bare(ctx: Context) -> None: ...

    assert await replies(talk("?"), first, second) == ["roll: /roll COUNT: Roll dice.; bare: /bare: "]


def test_two_plugins_cannot_have_the_same_command() -> None:
    first, second = Plugin("a"), Plugin("b")

    @first.command("roll")
    async def roll(ctx: Context) -> None: ...

    @second.command("ROLL")
    async def roll_too(ctx: Context) -> None: ...

    with pytest.raises(
        PluginError,
        match=r"^tests/unit/dispatch/test_handler_commands\.py:\d+: command /roll is taken already,"
        r" by tests/.*:\d+; rename",
    ):
        Dispatcher([first, second], bot=BOT)
