"""What `ChatService` promises when all goes well, kept by the official SDK's clients against the emulator."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from chatbot.errors import (
    Forbidden,
    NotFound,
    ProtocolError,
)
from chatbot.model import MessageType, Participant, UserId
from chatbot.service.base import FailedParticipant
from tests.contracts.chat_room import answering, room

# Threads


async def test_a_created_thread_has_its_topic_its_creator_and_its_members() -> None:
    async with room() as it:
        created = await it.ann.create_thread("Kitchen", [Participant(it.bob.user, "Bob")])

        assert created.failed == ()
        assert (created.thread.topic, created.thread.created_by) == ("Kitchen", it.ann.user)
        assert await it.bob.get_thread(created.thread.id) == created.thread
        assert [person.user async for person in it.ann.list_participants(created.thread.id)] == [
            it.ann.user,
            it.bob.user,
        ]


async def test_a_creation_repeated_with_its_id_gives_the_same_thread() -> None:
    async with room() as it:
        key = str(uuid.uuid4())

        threads = [(await it.ann.create_thread("Kitchen", repeatability_id=key)).thread.id for _ in range(2)]

        assert threads[0] == threads[1] != it.thread


async def test_participants_that_cannot_be_added_are_listed_whatever_their_kind() -> None:
    """The SDK loses errors that name nobody it knows, and fails outright when anyone is no user of its own."""
    async with room() as it:
        people = [Participant(it.bob.user), Participant(UserId("8:orgid:teams-user"), "Tim")]

        created = await it.ann.create_thread("Kitchen", people)
        failed = await it.ann.add_participants(it.thread, people)

        assert [person.user for person in created.failed] == ["8:orgid:teams-user"]
        assert [(person.user, person.code) for person in failed] == [("8:orgid:teams-user", "403")]


async def test_an_error_about_nobody_in_particular_is_not_lost() -> None:
    async with room() as it:
        it.weather.faults = [answering(201, b'{"invalidParticipants": [{"code": "500", "message": "odd"}]}')]

        failed = await it.ann.add_participants(it.thread, [Participant(it.bob.user), Participant(it.ann.user)])

        assert failed == (FailedParticipant(UserId(""), "500", "odd"),)


async def test_threads_are_listed_with_their_last_activity_page_by_page() -> None:
    async with room() as it:
        for number in range(4):
            await it.ann.create_thread(f"Thread {number}")

        first = await it.ann.list_threads(page_size=3)
        second = await it.ann.list_threads(link=first.next_link)

        assert len({item.id for item in (*first.items, *second.items)}) == 5
        assert all(item.last_activity is not None for item in first.items)
        assert first.server_time is not None
        assert second.next_link is None


async def test_a_deleted_thread_stays_listed_with_its_deletion() -> None:
    async with room() as it:
        await it.ann.delete_thread(it.thread)

        (item,) = (await it.ann.list_threads()).items

        assert item.deleted_on is not None
        with pytest.raises(NotFound):
            await it.ann.get_thread(it.thread)


async def test_a_new_topic_is_everyone_s() -> None:
    async with room() as it:
        await it.ann.update_topic(it.thread, "Hall")

        assert (await it.bob.get_thread(it.thread)).topic == "Hall"
        (message,) = (await it.bob.list_messages(it.thread, page_size=1)).messages
        assert (message.type, message.topic) == (MessageType.TOPIC_UPDATED, "Hall")


# Messages


@pytest.mark.parametrize("kind", ["text", "html"])
async def test_what_one_sends_the_other_reads(kind: Any) -> None:
    async with room() as it:
        sent = await it.ann.send_message(
            it.thread, "<b>Grüße</b> 🎲", type=kind, display_name="Ann", metadata={"chatbot.key": "k1"}
        )

        message = await it.bob.get_message(it.thread, sent)

        assert message.content == "<b>Grüße</b> 🎲"
        assert (message.id, message.type, message.sender) == (sent, MessageType(kind), it.ann.user)
        assert (message.sender_display_name, message.reply_key) == ("Ann", "k1")


async def test_messages_are_listed_by_descending_change_page_by_page() -> None:
    async with room() as it:
        sent = [await it.ann.send_message(it.thread, f"m{number}") for number in range(5)]
        await it.ann.edit_message(it.thread, sent[0], content="m0, better")

        page = await it.bob.list_messages(it.thread, page_size=4)
        pages = [page]
        while page.next_link is not None:
            page = await it.bob.list_messages(it.thread, page_size=4, link=page.next_link)
            pages.append(page)

        messages = [message for page in pages for message in page.messages]
        assert [message.id for message in messages[:5]] == [sent[0], *reversed(sent[1:])]
        assert [message.version for message in messages] == sorted((m.version for m in messages), reverse=True)
        assert len(messages) == 7
        assert all(page.server_time is not None for page in pages)


async def test_one_page_is_one_request() -> None:
    async with room() as it:
        for number in range(3):
            await it.ann.send_message(it.thread, f"m{number}")
        it.weather.requests.clear()

        await it.ann.list_messages(it.thread, page_size=1)

        assert len(it.weather.requests) == 1


@pytest.mark.parametrize("zone", [UTC, None])
async def test_a_start_time_leaves_out_what_is_older(zone: Any) -> None:
    async with room() as it:
        await it.ann.send_message(it.thread, "old")

        page = await it.ann.list_messages(it.thread, start_time=datetime(2999, 1, 1, tzinfo=zone))

        assert page.messages == ()


async def test_an_edit_replaces_content_and_merges_metadata() -> None:
    async with room() as it:
        sent = await it.ann.send_message(it.thread, "hi", metadata={"a": "1", "b": "2"})

        await it.ann.edit_message(it.thread, sent, content="ho", metadata={"b": "", "c": "3"})

        message = await it.bob.get_message(it.thread, sent)
        assert (message.content, message.metadata) == ("ho", {"a": "1", "c": "3"})
        assert message.version > message.number
        assert message.edited_on is not None


async def test_an_edit_of_metadata_alone_keeps_the_content() -> None:
    async with room() as it:
        sent = await it.ann.send_message(it.thread, "hi")

        await it.ann.edit_message(it.thread, sent, metadata={"a": "1"})

        message = await it.bob.get_message(it.thread, sent)
        assert (message.content, message.metadata) == ("hi", {"a": "1"})


async def test_a_deleted_message_stays_as_a_tombstone() -> None:
    async with room() as it:
        sent = await it.ann.send_message(it.thread, "oops")

        await it.ann.delete_message(it.thread, sent)

        message = await it.bob.get_message(it.thread, sent)
        assert (message.id, message.content) == (sent, "")
        assert message.deleted_on is not None


# Participants, receipts, typing


async def test_people_come_and_go() -> None:
    async with room() as it:
        carol = await it.resource.create_user()

        failed = await it.ann.add_participants(it.thread, [Participant(carol, "Carol")])
        people = [person async for person in it.bob.list_participants(it.thread)]
        await it.ann.remove_participant(it.thread, it.bob.user)

        assert failed == ()
        assert [(person.user, person.display_name) for person in people] == [
            (it.ann.user, None),
            (it.bob.user, "Bob"),
            (carol, "Carol"),
        ]
        (message,) = (await it.ann.list_messages(it.thread, page_size=1)).messages
        assert message.type is MessageType.PARTICIPANT_REMOVED
        assert [person.user for person in message.participants] == [it.bob.user]
        with pytest.raises(Forbidden):
            [person async for person in it.bob.list_participants(it.thread)]


async def test_history_is_shared_from_the_time_that_is_named() -> None:
    async with room() as it:
        carol = await it.resource.create_user()
        moment = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)

        await it.ann.add_participants(it.thread, [Participant(carol, share_history_time=moment.replace(tzinfo=None))])

        people = {person.user: person async for person in it.ann.list_participants(it.thread)}
        assert people[carol].share_history_time == moment


async def test_nobody_to_add_is_no_request() -> None:
    async with room() as it:
        assert await it.ann.add_participants(it.thread, []) == ()
        assert it.weather.requests == []


async def test_a_listing_of_many_pages_is_read_to_its_end() -> None:
    async with room() as it:
        pages = [
            b'{"value": [{"communicationIdentifier": {"rawId": "8:acs:%d"}}], "nextLink": "%s%d"}' % (n, LINK, n)
            for n in range(2)
        ]
        it.weather.faults = [*(answering(200, page) for page in pages), answering(200, b'{"value": []}')]

        people = [person.user async for person in it.ann.list_participants(it.thread)]

        assert people == ["8:acs:0", "8:acs:1"]
        assert it.weather.requests[-1]["query_string"].startswith(b"skip=1")


LINK = b"https://acs.example/chat/threads/x/participants?skip="


async def test_cyclic_pages_are_left() -> None:
    async with room() as it:
        page = answering(200, b'{"value": [], "nextLink": "%s1"}' % LINK)
        it.weather.faults = [page] * 9

        with pytest.raises(ProtocolError, match="lead in a circle"):
            [person async for person in it.ann.list_participants(it.thread)]

        assert len(it.weather.requests) == 2


async def test_a_receipt_is_seen_by_the_others() -> None:
    async with room() as it:
        sent = await it.ann.send_message(it.thread, "hi")

        await it.bob.send_receipt(it.thread, sent)

        (receipt,) = [receipt async for receipt in it.ann.list_receipts(it.thread)]
        assert (receipt.reader, receipt.message) == (it.bob.user, sent)


async def test_typing_is_accepted() -> None:
    async with room() as it:
        await it.ann.send_typing(it.thread, display_name="Ann")

        (call,) = [call for call in it.weather.emulator.calls if "typing" in call.target]
        assert call.status == 200
