from __future__ import annotations

import pytest

from chatbot.actions import ActionKey
from chatbot.cluster.notes import (
    ActionsAdded,
    ListAgain,
    ListedThread,
    Note,
    ThreadNotified,
    ThreadsListed,
    TimersDropped,
    decode,
    encode,
    merged,
)
from chatbot.model import ThreadId, UserId
from chatbot.stores.base import NOTE_BYTES

BOT = UserId("8:acs:bot")


def listed(*names: str, at: int | None = 1) -> ThreadsListed:
    return ThreadsListed(BOT, at, tuple(ListedThread(ThreadId(name), 1000, None) for name in names))


@pytest.mark.parametrize(
    "note",
    [
        listed("19:a", "19:ü\n\U0001f600"),
        ThreadsListed(BOT, None, (ListedThread(ThreadId("19:a"), None, 7),)),
        ActionsAdded(BOT, ((ThreadId("19:a"), ActionKey("k1")), (ThreadId("19:b"), ActionKey("k2")))),
        TimersDropped(BOT, ("t1", "t2")),
        ListAgain(BOT),
        ThreadNotified(BOT, ThreadId("19:a")),
    ],
    ids=lambda note: note.kind,
)
def test_a_note_arrives_as_it_was_sent(note: Note) -> None:
    (text,) = encode(note)

    assert decode(text) == note
    assert text.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "[]",
        "null",
        "{}",
        '{"kind":"of a newer version","bot":"b"}',
        '{"kind":"listed","bot":"b"}',
        '{"kind":"listed","bot":"b","listed_ms":"1","threads":[]}',
        '{"kind":"actions","bot":"b","actions":[1]}',
    ],
)
def test_a_note_that_this_version_cannot_read_is_ignored(text: str) -> None:
    assert decode(text) is None


def test_a_long_note_is_sent_in_parts_and_nothing_of_it_is_lost() -> None:
    names = [f"19:{'ä' * (number % 90)}{number}" for number in range(2_000)]
    texts = encode(listed(*names))
    parts = [note for text in texts if isinstance(note := decode(text), ThreadsListed)]

    assert len(parts) == len(texts) > 1
    assert max(len(text.encode()) for text in texts) <= NOTE_BYTES
    assert [one.thread for part in parts for one in part.threads] == names
    assert {(part.bot, part.listed_ms) for part in parts} == {(BOT, 1)}


def test_an_id_that_no_note_can_hold_is_left_out() -> None:
    (text,) = encode(listed("19:a", "x" * 5_000, "19:b"))

    assert decode(text) == listed("19:a", "19:b")
    assert encode(listed("x" * 5_000)) == []


def test_notes_are_joined_without_repetitions_and_with_a_time_that_is_true_of_all() -> None:
    other = ListAgain(BOT)
    notes = [listed("19:a", "19:b", at=5), other, listed("19:b", "19:c", at=3), other, ListAgain(UserId("8:acs:other"))]

    assert merged(notes) == [listed("19:a", "19:b", "19:c", at=3), other, ListAgain(UserId("8:acs:other"))]
    assert merged([listed("19:a", at=None), listed("19:b", at=3)]) == [listed("19:a", "19:b", at=None)]
