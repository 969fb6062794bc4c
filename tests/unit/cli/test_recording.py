from __future__ import annotations

from asyncio import get_running_loop
from datetime import UTC, datetime
from typing import Any

import pytest

from chatbot.cli.record import pages_of
from chatbot.cli.recording import as_pytest, record_steps, without_controls
from chatbot.emulator import Emulator
from chatbot.model import ChatMessage, MessageId, MessageType, Participant, ThreadId, UserId
from chatbot.testing.chat_files.script import Role, Script, ScriptStep, Verb
from chatbot.testing.transport import Stage
from chatbot.testing.virtual_time import VirtualClock

ECHO, HELP = UserId("8:acs:echo"), UserId("8:acs:help")
MARIA, TIM = UserId("8:acs:maria"), UserId("8:acs:tim")
BOTS = {ECHO: "Echo", HELP: "Help"}


def message(seconds: int, content: str = "", *, type: MessageType = MessageType.TEXT, **rest: Any) -> ChatMessage:
    number = 1_700_000_000_000 + seconds * 1000
    created = datetime.fromtimestamp(number / 1000, UTC)
    return ChatMessage(
        id=MessageId(str(number)), version=number, type=type, created_on=created, content=content, **rest
    )


def said(seconds: int, who: UserId, text: str, **rest: Any) -> ChatMessage:
    return message(seconds, text, sender=who, **rest)


def moved(seconds: int, type: MessageType, by: UserId | None, *who: UserId) -> ChatMessage:
    return message(seconds, type=type, initiator=by, participants=tuple(Participant(one) for one in who))


def written(*messages: ChatMessage) -> list[str]:
    return [str(step) for step in record_steps(messages, BOTS)]


def test_what_was_said_is_written_in_its_order_with_people_masked() -> None:
    assert written(
        said(1, ECHO, "hi Maria"), said(0, MARIA, "I am Maria\nLopez", sender_display_name="Maria Lopez")
    ) == ["Ann: I am Ann\n  Ann", "Echo: hi Ann"]


def test_html_is_written_as_people_read_it_and_what_was_taken_back_or_is_empty_is_left_out() -> None:
    gone = datetime(2026, 1, 1, tzinfo=UTC)

    assert written(
        said(0, MARIA, "<b>a</b> &amp; b", type=MessageType.HTML),
        said(1, MARIA, "", deleted_on=gone),
        said(2, MARIA, " \n"),
    ) == ["Ann: a & b"]


def test_pauses_of_a_minute_and_more_are_written_in_whole_minutes() -> None:
    assert written(said(0, MARIA, "a"), said(59, MARIA, "b"), said(3719, ECHO, "c")) == [
        "Ann: a",
        "Ann: b",
        "(1 hour, 1 minute later)",
        "Echo: c",
    ]


def test_people_come_and_go_and_bots_are_there_until_they_are_removed() -> None:
    added, removed = MessageType.PARTICIPANT_ADDED, MessageType.PARTICIPANT_REMOVED

    assert written(
        moved(0, added, MARIA, MARIA, ECHO, HELP),
        moved(1, added, MARIA, TIM),
        moved(2, removed, TIM, TIM),
        moved(3, added, ECHO, TIM),
        moved(4, removed, MARIA, ECHO),
        moved(5, added, MARIA, ECHO),
        moved(6, removed, HELP, HELP),
        message(7, type=MessageType.TOPIC_UPDATED, initiator=MARIA, topic="call\n0151 2345678"),
    ) == [
        "* Ann joins",
        "* Ann adds Ben",
        "* Ben leaves",
        "* Ben joins",
        "* Ann removes Echo",
        "* Ann adds Echo",
        "* Help leaves",
        "* Ann sets the topic: call +1 555 0101",
    ]


def test_no_control_character_and_no_half_pair_is_in_a_recording() -> None:
    hostile = "".join(map(chr, range(160))) + "\u2028x\u2029y\u202ez\ud800\u200f\ufeff\u2066"

    text = without_controls(hostile)

    assert {character for character in text if not character.isprintable()} == {"\t", "\n"}
    assert "\nx\nyz\ufffd" in text
    assert text.encode()


def test_a_long_series_of_one_person_gets_pauses_in_a_pytest_test() -> None:
    lines = [ScriptStep(Verb.SAYS, "Ann", f"line {number}") for number in range(500)]
    answers = [ScriptStep(Verb.SAYS, "Bo", "ok") for _ in lines]
    steps = tuple(step for pair in zip(lines, answers, strict=True) for step in pair)

    text = as_pytest(Script("", (Role("Bo", ("plugins.bo",)),), steps, has_loose_order=True))

    series = [part.count("await ann.says(") for part in text.split("await room.advance(minutes=1)")]
    assert sum(series) == 500
    assert max(series) < 200


@pytest.mark.virtual_time
async def test_a_long_thread_is_read_within_the_quota_of_the_bot() -> None:
    stage = Stage(Emulator(clock=VirtualClock(), quotas=True))
    ann = stage.person("Ann")
    thread = ThreadId(stage.emulator.create_thread(ann))
    for number in range(1_500):
        stage.emulator.send(thread, ann, f"line {number}")

    async with stage.resource:
        read = [one async for page in pages_of(stage.service_of(ann), thread) for one in page.messages if one.is_said]

    assert len(read) == 1_500
    assert get_running_loop().time() == 0, "the service throttles nothing"
