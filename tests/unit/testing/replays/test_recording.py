from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from chatbot.conversation import journal
from chatbot.conversation.journal import Entry, JournalStep
from chatbot.errors import StateError, UnknownName
from chatbot.model import REPLY_KEY, ChatMessage, MessageId, MessageType, Participant, ThreadId, UserId
from chatbot.testing.replays.recording import RecordedBot, Recording, StepKind, recording_of, runs_in, without_erased
from tests.support.recordings import ANN, BOT, RESOURCE, recorded, said

WHEN = datetime(2024, 1, 1, tzinfo=UTC)
BEN = UserId("8:orgid:ben")


def message(number: int, type: MessageType = MessageType.TEXT, **facts: Any) -> ChatMessage:
    return ChatMessage(id=MessageId(str(number)), version=number, type=type, created_on=WHEN, **facts)


def recording(*messages: ChatMessage, present: tuple[Participant, ...] = ()) -> Recording:
    bots = [RecordedBot("bo", BOT, "Bo")]
    return recording_of(ThreadId("19:x"), messages, resource=RESOURCE, bots=bots, present=present)


def test_lines_of_people_are_steps_and_those_of_bots_are_replies() -> None:
    done = recording(
        message(30, sender=BOT, content="hi", metadata={REPLY_KEY: "k1"}),
        message(10, MessageType.PARTICIPANT_ADDED, initiator=ANN, participants=(Participant(BOT), Participant(ANN))),
        message(20, MessageType.HTML, sender=ANN, sender_display_name="Ann", content="<b>a</b>", metadata={"x": "1"}),
        message(25, sender=ANN, content="gone", deleted_on=WHEN),
        message(40, MessageType.TOPIC_UPDATED, initiator=ANN, topic="New"),
    )

    assert [(step.kind, step.ms) for step in done.steps] == [
        (StepKind.ADDS, 10),
        (StepKind.SAYS, 20),
        (StepKind.RENAMES, 40),
    ]
    assert (done.steps[1].is_html, done.steps[1].metadata) == (True, {"x": "1"})
    assert [(reply.text, reply.key) for reply in done.replies] == [("hi", "k1")]
    assert (done.begin_ms, done.end_ms, done.members) == (10, 40, ())


def test_who_acts_without_having_been_added_was_there_from_the_beginning() -> None:
    done = recording(
        message(20, sender=BEN, sender_display_name="Ben", content="a"),
        message(30, sender=BOT, content="b"),
        message(40, MessageType.PARTICIPANT_ADDED, initiator=BEN, participants=(Participant(ANN),)),
        message(50, sender=ANN, content="c"),
        present=(Participant(BEN, "Ben"), Participant(UserId("8:quiet"), "Quiet")),
    )

    assert [member.user for member in done.members] == [BEN, BOT, "8:quiet"]


def test_a_thread_without_messages_of_people_cannot_be_replayed() -> None:
    with pytest.raises(StateError, match="there is nothing to replay"):
        recording(
            message(10, MessageType.TOPIC_UPDATED, initiator=ANN, topic="x"), message(20, sender=BOT, content="a")
        )


def test_only_messages_of_people_can_be_edited_and_only_to_what_the_service_takes() -> None:
    done = recorded(said("a"))
    id = str(done.steps[1].ms)

    assert done.edited({id: "b"}).steps[1].before == "a"
    assert done.edited({id: "a"}) == done
    with pytest.raises(UnknownName, match="no person has written the message '7'"):
        done.edited({"7": "x"})
    for text in (" ", "x" * 30_000):
        with pytest.raises(StateError, match="needs a text"):
            done.edited({id: text})


def test_journals_hold_the_results_of_talk_run_by_their_step() -> None:
    entries = [Entry(JournalStep.BEGAN), Entry(JournalStep.RAN, "charge", 4), Entry(JournalStep.SAID)]
    key = (BOT, "d1")

    assert runs_in({key: journal.dump(entries), (BOT, "d2"): "damaged"}) == {key: [(1, "charge", 4)]}


def test_results_that_were_erased_with_a_person_are_not_replayed() -> None:
    assert without_erased({(BOT, "a"): "erased", (BOT, "b"): "4"}) == {(BOT, "b"): "4"}
