from chatbot import BotInfo, Event, MessageReceived, ParticipantsAdded, ReadReceiptReceived, TopicUpdated, UserId
from chatbot.dispatch.origin import among_people, is_own
from chatbot.model import REPLY_KEY, MessageId, Receipt
from chatbot.testing import EventStream

BOT = BotInfo("desk", UserId("8:acs:desk"), "Help desk")


def topic_by(initiator: UserId, stream: EventStream) -> TopicUpdated:
    message = stream.user("Ann").joined().message
    return TopicUpdated(message=message, topic="Lunch", initiator=initiator, **stream.place(stream.tick()))


def receipt_by(reader: UserId, stream: EventStream) -> ReadReceiptReceived:
    now = stream.tick()
    return ReadReceiptReceived(receipt=Receipt(reader, MessageId("17"), now), **stream.place(now))


def test_what_the_bot_did_itself_is_its_own() -> None:
    stream = EventStream(bot=BOT)
    ann, itself = stream.user("Ann"), stream.itself()
    own: list[Event] = [itself.said("hi"), itself.edited("hello"), itself.deleted()]
    own += [topic_by(BOT.user, stream), receipt_by(BOT.user, stream)]

    assert all(is_own(event, BOT) for event in own)
    assert not any(is_own(event, BOT) for event in [ann.said("hi"), ann.joined(), topic_by(ann.user, stream)])


def test_what_other_bots_did_does_not_concern_people() -> None:
    stream = EventStream(bot=BOT)
    helper, stranger = stream.sibling("Helper"), stream.user("Stranger")
    theirs: list[Event] = [helper.said("hi"), helper.edited("hello"), helper.joined(), helper.left()]
    theirs += [stranger.said("hi", metadata={REPLY_KEY: "k"}), topic_by(helper.user, stream)]
    theirs += [receipt_by(helper.user, stream)]

    assert [among_people(event, stream.bot) for event in theirs] == [None] * len(theirs)


def test_what_people_did_is_left_as_it_is() -> None:
    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    events: list[Event] = [ann.said("hi", metadata={"a": "b"}), ann.joined(), topic_by(ann.user, stream)]

    assert all(among_people(event, stream.bot) is event for event in events)


def test_bots_are_taken_out_of_the_people_who_came_in() -> None:
    stream = EventStream(bot=BOT)
    ann, helper = stream.user("Ann"), stream.sibling("Helper")

    event = among_people(ann.joined(helper), stream.bot)

    assert isinstance(event, ParticipantsAdded)
    assert event.participants == (ann.participant,)


def test_an_unknown_sender_is_nobody_in_particular() -> None:
    stream = EventStream(bot=BOT)
    event = stream.user("Ann").said("hi")

    assert isinstance(among_people(event, stream.bot), MessageReceived)
