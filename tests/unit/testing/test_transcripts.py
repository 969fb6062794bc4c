from __future__ import annotations

from chatbot.emulator.records import Listed, Message
from chatbot.testing.transcripts import transcript

NAMES = {"8:acs:ann": "Ann", "8:acs:bob": "Bob", "8:acs:bot": "bot"}
NOON = 1_704_110_400_000


def message(text: str = "", *, at: int = 0, type: str = "text", **facts: object) -> Message:
    """Something that Ann said, or caused, some seconds after noon."""
    id = NOON + at * 1000
    return Message("19:room", id, type, 1, id, text=text, sender="8:acs:ann", **facts)  # type: ignore[arg-type]


def listed(*names: str) -> tuple[Listed, ...]:
    return tuple(Listed(f"8:acs:{name}", None, 0) for name in names)


def lines(*messages: Message) -> list[str]:
    return transcript(messages, NAMES).splitlines()[1:]


def test_messages_are_lines_with_time_and_name() -> None:
    assert lines(message("hi"), message("ho", at=61)) == ["12:00:00 Ann: hi", "12:01:01 Ann: ho"]


def test_several_lines_of_text_stay_together() -> None:
    assert lines(message("one\ntwo")) == ["12:00:00 Ann: one", "         two"]


def test_edits_and_deletions_of_a_message_are_reported() -> None:
    assert lines(message("hi", edited=NOON + 1)) == ["12:00:00 Ann: hi (edited)"]
    assert lines(message("", deleted=NOON + 1)) == ["12:00:00 Ann: (deleted)"]
    assert lines(message("<b>hi</b>", type="html")) == ["12:00:00 Ann: (html) <b>hi</b>"]


def test_arrivals_and_departures_are_reported() -> None:
    added, removed = "participantAdded", "participantRemoved"

    assert lines(message(type=added, participants=listed("ann", "bot"))) == ["12:00:00 * Ann added bot"]
    assert lines(message(type=added, participants=listed("bob", "bot"))) == ["12:00:00 * Ann added Bob, bot"]
    assert lines(message(type=added, participants=listed("ann"))) == ["12:00:00 * Ann came"]
    assert lines(message(type=removed, participants=listed("bob"))) == ["12:00:00 * Ann removed Bob"]
    assert lines(message(type=removed, participants=listed("ann"))) == ["12:00:00 * Ann left"]
    assert lines(message(type="topicUpdated", topic="tea")) == ['12:00:00 * Ann set the topic to "tea"']


def test_who_has_no_name_appears_under_the_id() -> None:
    assert lines(message(type="participantAdded", participants=listed("eve"))) == ["12:00:00 * Ann added 8:acs:eve"]


def test_days_have_headings() -> None:
    assert transcript([message("hi"), message("ho", at=86_400), message("hey", at=86_401)], NAMES).splitlines() == [
        "── Monday 2024-01-01",
        "12:00:00 Ann: hi",
        "── Tuesday 2024-01-02",
        "12:00:00 Ann: ho",
        "12:00:01 Ann: hey",
    ]


def test_what_is_left_out_is_counted() -> None:
    messages = [message(str(number), at=number) for number in range(5)]

    assert transcript(messages, NAMES, last=2).splitlines() == [
        "… 3 earlier messages",
        "── Monday 2024-01-01",
        "12:00:03 Ann: 3",
        "12:00:04 Ann: 4",
    ]


def test_nothing_said_is_no_text() -> None:
    assert transcript([], NAMES) == ""
