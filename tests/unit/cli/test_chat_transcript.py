from datetime import UTC, datetime
from typing import Any

from chatbot.cli.chat import LineStyle, Transcript, TranscriptLine
from chatbot.model import ChatMessage, MessageId, MessageType, Participant, Receipt, UserId

ME, ECHO, DESK = UserId("8:acs:me"), UserId("8:acs:echo"), UserId("8:acs:desk")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def said(number: int, content: str, sender: UserId = ECHO, **more: Any) -> ChatMessage:
    fields: dict[str, Any] = {"version": number, "type": MessageType.TEXT, "created_on": NOW, "sender": sender} | more
    return ChatMessage(id=MessageId(str(number)), content=content, **fields)


def happened(number: int, type: MessageType, **more: Any) -> ChatMessage:
    return ChatMessage(id=MessageId(str(number)), version=number, type=type, created_on=NOW, **more)


def transcript() -> Transcript:
    return Transcript(ME, {ECHO: "Echo", ME: "Ann"})


def shown(lines: list[TranscriptLine]) -> list[str]:
    return [str(line) for line in lines]


def test_new_messages_are_shown_oldest_first_and_once() -> None:
    seen = transcript()
    messages = [said(3, "c"), said(1, "a"), said(2, "mine", ME)]

    assert shown(seen.new_lines(messages)) == ["Echo: a", "Echo: c"]
    assert shown(seen.new_lines(messages)) == []
    assert seen.top == 3


def test_what_was_said_before_shows_own_words_too() -> None:
    assert shown(transcript().new_lines([said(1, "mine", ME)], has_own=True)) == ["Ann: mine"]


def test_edits_and_deletions_are_shown() -> None:
    seen = transcript()
    seen.new_lines([said(1, "a"), said(2, "b")])

    lines = seen.new_lines([said(1, "A", version=5, edited_on=NOW), said(2, "", version=6, deleted_on=NOW)])

    assert shown(lines) == ["Echo changed it to: A", "Echo deleted a message"]


def test_what_was_deleted_before_it_was_seen_is_not_mentioned() -> None:
    assert transcript().new_lines([said(1, "", version=6, deleted_on=NOW)]) == []


def test_html_is_shown_as_text() -> None:
    assert shown(transcript().new_lines([said(1, "<b>x</b> &amp; y", type=MessageType.HTML)])) == ["Echo: x & y"]


def test_hostile_text_and_names_cannot_reach_the_terminal_nor_forge_lines() -> None:
    hostile = "\x1b]0;t\x07[bold]\u202e\nEcho: forged"
    message = said(1, hostile, sender_display_name="E\x1b[31m\nBoss")

    for has_colors in (False, True):
        text = transcript().new_lines([message])[0].formatted(has_colors=has_colors)
        bare = text.replace("\x1b[1m", "").replace("\x1b[0m", "")
        first, second = bare.split("\n")
        assert first == "E\\x1b[31m\\nBoss: \\x1b]0;t\\x07[bold]\\u202e"
        assert second == "  Echo: forged"


def test_participants_and_topics_are_shown_by_name() -> None:
    desk = Participant(DESK, "Help desk")
    lines = transcript().new_lines(
        [
            happened(1, MessageType.PARTICIPANT_ADDED, participants=(desk, Participant(ME))),
            happened(2, MessageType.TOPIC_UPDATED, topic="News"),
            happened(3, MessageType.PARTICIPANT_REMOVED, participants=(Participant(DESK),)),
            happened(4, MessageType.PARTICIPANT_ADDED, participants=(Participant(ME, "Ann"),)),
        ]
    )

    assert shown(lines) == ["Help desk joined", "The topic is now: News", "Help desk left"]


def test_a_receipt_is_shown_once_per_reader_and_never_to_its_author() -> None:
    seen = transcript()
    receipts = [
        Receipt(ECHO, MessageId("5"), NOW),
        Receipt(ME, MessageId("5"), NOW),
        Receipt(DESK, MessageId("4"), NOW),
    ]

    assert shown(seen.read_lines(receipts, MessageId("5"))) == ["✓ read by Echo"]
    assert seen.read_lines(receipts, MessageId("5")) == []
    assert seen.count_readers(MessageId("5")) == 1
    assert shown(seen.read_lines([Receipt(DESK, MessageId("5"), NOW)], MessageId("5"))) == ["✓ read by acs:desk"]


def test_colors_mark_the_sender() -> None:
    assert TranscriptLine("Echo", "a", LineStyle.SAID).formatted(has_colors=True) == "\x1b[1mEcho: \x1b[0ma"
