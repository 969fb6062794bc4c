from hypothesis import given
from hypothesis import strategies as st

from chatbot import Event, MessageReceived, ParticipantsAdded
from chatbot.dispatch.event_view import EventView, is_own, lines_of, without_bots
from chatbot.model import REPLY_KEY, MessageId
from chatbot.testing import EventStream
from tests.unit.dispatch.talk import BOT


def test_what_the_bot_did_itself_is_its_own() -> None:
    stream = EventStream(bot=BOT)
    ann, itself = stream.user("Ann"), stream.itself()
    own: list[Event] = [itself.said("hi"), itself.edited("hello"), itself.deleted()]
    own += [itself.renamed("Lunch"), itself.read(MessageId("17"))]

    assert all(is_own(event, BOT) for event in own)
    assert not any(is_own(event, BOT) for event in [ann.said("hi"), ann.joined(), ann.renamed("Lunch")])


def test_what_other_bots_did_does_not_concern_people() -> None:
    stream = EventStream(bot=BOT)
    helper, stranger = stream.sibling("Helper"), stream.user("Stranger")
    theirs: list[Event] = [helper.said("hi"), helper.edited("hello"), helper.joined(), helper.left()]
    theirs += [stranger.said("hi", metadata={REPLY_KEY: "k"}), helper.renamed("Lunch")]
    theirs += [helper.read(MessageId("17"))]

    assert [without_bots(event, stream.bot) for event in theirs] == [None] * len(theirs)


def test_what_people_did_is_left_as_it_is() -> None:
    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    events: list[Event] = [ann.said("hi", metadata={"a": "b"}), ann.joined(), ann.renamed("Lunch"), stream.bot_joined()]

    assert all(without_bots(event, stream.bot) is event for event in events)


def test_bots_are_taken_out_of_the_people_who_came_in() -> None:
    stream = EventStream(bot=BOT)
    ann, helper = stream.user("Ann"), stream.sibling("Helper")

    event = without_bots(ann.joined(helper), stream.bot)

    assert isinstance(event, ParticipantsAdded)
    assert event.participants == (ann.participant,)


def test_an_unknown_sender_is_nobody_in_particular() -> None:
    stream = EventStream(bot=BOT)
    event = stream.user("Ann").said("hi")

    assert isinstance(without_bots(event, stream.bot), MessageReceived)


NAMES = ["roll", "größe", "two-words", "a/b"]
PARTS = [
    "/roll",
    "/ROLL",
    "/größe",
    "/two-words",
    "/a/b",
    "/roll/",
    "roll",
    "/",
    " ",
    "  ",
    "\n",
    "\t",
    "2",
    "\u00a0",
    "＿",
    "@bot",
]


@given(st.lists(st.sampled_from(PARTS), max_size=5).map("".join))
def test_a_command_that_is_found_without_parsing_is_the_one_that_parsing_finds(text: str) -> None:
    event = EventStream(bot=BOT).user("Ann").said(text)

    assert EventView(event, BOT, lines=lines_of(NAMES)).command_line == EventView(event, BOT).command_line


def test_commands_in_plain_letters_are_found_without_parsing() -> None:
    assert lines_of(NAMES) == {"/roll": ("roll", ""), "/two-words": ("two-words", "")}
