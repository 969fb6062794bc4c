"""Names that are typed where people are wanted."""

from __future__ import annotations

import pytest

from chatbot import Context, Participant, Plugin, PluginError, UserId, regex
from chatbot.dispatch.arguments import BadArguments, ParticipantResolver
from chatbot.testing import EventStream, chat

ANN = Participant(UserId("8:acs:ann"), "Ann")
ANN_LEE = Participant(UserId("8:acs:lee"), "Ann  Lee")
BOB_MAY = Participant(UserId("8:acs:may"), "Bob May")
BOB_RAY = Participant(UserId("8:acs:ray"), "Bob Ray")
NAMELESS = Participant(UserId("8:acs:nameless"))
EVERYONE = ParticipantResolver([ANN, ANN_LEE, BOB_MAY, BOB_RAY, NAMELESS])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Ann", ANN),
        ("@ann", ANN),
        ("ANN LEE", ANN_LEE),
        ("bob may", BOB_MAY),
        ("8:acs:ray", BOB_RAY),
        ("8:acs:nameless", NAMELESS),
        ("8:acs:elsewhere", Participant(UserId("8:acs:elsewhere"))),
    ],
)
def test_people_are_found_by_name_or_id(typed: str, meant: Participant) -> None:
    assert EVERYONE.called(typed) == meant


def test_the_first_words_are_enough_if_only_one_name_begins_so() -> None:
    assert ParticipantResolver([ANN_LEE, BOB_MAY]).called("ann") == ANN_LEE


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("bob", 'Several are called "bob": Bob May, Bob Ray. Type the whole name in quotes.'),
        ("Bo", 'Nobody here is called "Bo". There are: Ann, Ann  Lee, Bob May, Bob Ray.'),
        ("", 'Nobody here is called "". There are: Ann, Ann  Lee, Bob May, Bob Ray.'),
    ],
)
def test_a_name_that_nobody_or_more_than_one_has_is_said_back(typed: str, complaint: str) -> None:
    with pytest.raises(BadArguments) as refused:
        EVERYONE.called(typed)

    assert str(refused.value) == complaint


def kicker() -> Plugin:
    plugin = Plugin("kicker")

    @plugin.command("kick")
    async def kick(ctx: Context, *who: Participant, by: Participant | None = None) -> str:
        names = [str(one.display_name) for one in who]
        return f"{', '.join(names)}{f' by {by.display_name}' if by else ''}"

    return plugin


async def test_a_command_gets_participants_for_the_names_that_are_typed_behind_it() -> None:
    stream = EventStream()
    ann, _bob = stream.user("Ann"), stream.user("Bob May")
    stream += [ann.said('/kick Ann "bob may" --by @bot'), ann.said("/kick Cem"), ann.said('/kick "@"')]

    handled = await stream.into(kicker())

    assert handled.replies == [
        "Ann, Bob May by Bot",
        'Nobody here is called "Cem". There are: Ann, Bob May, Bot.\nUsage: /kick [WHO…] [--by BY]',
        'WHO: "@" is not the name of somebody here.\nUsage: /kick [WHO…] [--by BY]',
    ]


@pytest.mark.virtual_time
async def test_arrivals_and_departures_are_known_without_asking_the_service_for_each_command() -> None:
    async with chat(kicker()) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.joins()
        room.emulator.calls.clear()
        await ann.says("/kick Bob", "/kick Ann", "/kick ann", "/kick ANN")
        await bob.joins()
        await ann.says("/kick Bob")
        await bob.leaves()
        await ann.says("/kick Bob")

        nobody = 'Nobody here is called "Bob". There are: Ann, bot.\nUsage: /kick [WHO…] [--by BY]'
        assert room.replies == [nobody, "Ann", "Ann", "Ann", "Bob", nobody]
        asked = [call for call in room.emulator.calls if call.user == room.bot.user]
        assert [call.operation for call in asked].count("list_participants") == 3


def test_a_text_that_a_filter_found_cannot_be_somebody() -> None:
    plugin = Plugin("greeter")

    @plugin.message(regex(r"^hi (?P<who>\w+)"))
    async def hi(ctx: Context, who: Participant) -> str:
        return ""

    with pytest.raises(PluginError, match="'who' of hi is Participant, which nothing can fill; a text that a filter"):
        plugin.handlers()
