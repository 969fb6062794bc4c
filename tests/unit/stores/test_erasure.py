from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chatbot.actions import (
    ActionKey,
    AddParticipants,
    DeleteMessage,
    EditMessage,
    RemoveParticipant,
    SendMessage,
    SendReadReceipt,
    UpdateTopic,
)
from chatbot.events import MessageReceived, ParticipantsAdded
from chatbot.model import ChatMessage, MessageId, MessageType, Participant, ThreadId, UserId
from chatbot.stores.erasure import REASON, erase, holds
from chatbot.stores.records import DeadLetter, OutboxRow, RowStatus

ANN, BOB, BOT = UserId("8:acs:ann"), UserId("8:acs:bob"), UserId("8:acs:bot")
HALL = ThreadId("19:hall")
EIGHT = MessageId("8")
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def row(action, **fields) -> OutboxRow:
    return OutboxRow(**{"key": ActionKey("a"), "thread": HALL, "action": action, "after": 7, "created_ms": 1} | fields)


@pytest.mark.parametrize(
    ("action", "rest"),
    [
        (SendMessage(f"<at id='{ANN}'>Ann</at>", "html", HALL), SendMessage("", "html", HALL)),
        (SendMessage("hi", display_name=f"for {ANN}"), SendMessage("")),
        (SendMessage("hi", metadata={"asked by": ANN}), SendMessage("")),
        (SendMessage("hi", metadata={ANN: "asked"}), SendMessage("")),
        (EditMessage(EIGHT, f"({ANN})"), EditMessage(EIGHT, "")),
        (UpdateTopic(f"{ANN}, {BOB}"), UpdateTopic("")),
        (AddParticipants((Participant(ANN, "Ann"), Participant(BOB))), AddParticipants((Participant(BOB),))),
        (RemoveParticipant(ANN, HALL), RemoveParticipant(UserId(""), HALL)),
    ],
)
def test_a_action_that_names_a_person_loses_what_it_says_and_is_not_carried_out(action, rest):
    assert erase(row(action), ANN) == row(rest, status=RowStatus.FAILED, reason=REASON)
    assert erase(row(action, status=RowStatus.DONE, message=EIGHT), ANN) == row(
        rest, status=RowStatus.DONE, message=EIGHT
    )


@pytest.mark.parametrize(
    "action",
    [
        SendMessage("hi Ann", metadata={"n": "1"}),
        SendMessage(f"{ANN}abel or x{ANN} or {ANN}-2"),
        EditMessage(EIGHT, "hi"),
        UpdateTopic("Plans"),
        AddParticipants((Participant(BOB),)),
        RemoveParticipant(BOB),
        DeleteMessage(EIGHT),
        SendReadReceipt(EIGHT),
    ],
)
def test_a_action_that_has_nothing_of_a_person_stays_the_very_same(action):
    queued = row(action, caused_by=BOB, reason=f"{BOB} was refused")

    assert erase(queued, ANN) is queued


def test_a_action_that_a_person_caused_loses_its_words_although_it_does_not_name_them():
    assert erase(row(SendMessage("You said: I am ill"), caused_by=ANN), ANN).action == SendMessage("")
    assert erase(row(UpdateTopic("Ann's rash"), caused_by=ANN), ANN).action == UpdateTopic("")


def test_a_action_without_words_is_carried_out_all_the_same():
    queued = row(AddParticipants((Participant(BOB),)), caused_by=ANN)

    assert erase(queued, ANN) == replace(queued, caused_by=None)


def test_a_reason_that_names_a_user_is_the_only_thing_lost():
    queued = row(SendMessage("hi"), status=RowStatus.FAILED, reason=f"{ANN} may not (403)")

    assert erase(queued, ANN) == replace(queued, reason=REASON)


@pytest.mark.parametrize(
    ("fields", "error", "is_theirs"),
    [
        ({"sender": ANN, "content": "hi"}, "ValueError: no", True),
        ({"sender": BOB, "content": f"hi {ANN}"}, "ValueError: no", True),
        ({"sender": BOB, "participants": (Participant(ANN),)}, "ValueError: no", True),
        ({"sender": BOB, "metadata": {ANN: "x"}}, "ValueError: no", True),
        ({"sender": BOB, "content": "hi"}, f"ValueError: {ANN}", True),
        ({"sender": BOB, "content": f"hi {ANN}e"}, "ValueError: no", False),
    ],
)
def test_a_dead_letter_belongs_to_a_user_when_it_names_them_anywhere(fields, error, is_theirs):
    said = ChatMessage(id=EIGHT, version=8, type=MessageType.TEXT, created_on=NOON, **fields)
    event = MessageReceived(bot=BOT, thread=HALL, occurred_on=NOON, message=said)

    assert holds(DeadLetter("x", event, "echo", error, 3, 5), ANN) is is_theirs


def test_a_dead_letter_about_the_arrival_of_a_user_belongs_to_them():
    listed = ChatMessage(id=EIGHT, version=8, type=MessageType.PARTICIPANT_ADDED, created_on=NOON)
    event = ParticipantsAdded(
        bot=BOT, thread=HALL, occurred_on=NOON, message=listed, participants=(Participant(ANN, "Ann"),)
    )

    assert holds(DeadLetter("x", event, "welcome", "ValueError: no", 3, 5), ANN)
