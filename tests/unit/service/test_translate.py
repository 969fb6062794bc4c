"""Answers of the service become our words, or a `ProtocolError` that names the place; nothing else ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.errors import ProtocolError
from chatbot.model import Attachment, ChatMessage, MessageType, Participant, UserId
from chatbot.service import translate

ANN = {"rawId": "8:acs:ann", "communicationUser": {"id": "8:acs:ann"}}
TEXT: dict[str, Any] = {
    "id": "1700528984299",
    "type": "text",
    "sequenceId": "4",
    "version": "1700528984300",
    "content": {"message": "hi", "attachments": []},
    "senderDisplayName": "",
    "createdOn": "2023-11-21T01:09:44Z",
    "senderCommunicationIdentifier": ANN,
    "metadata": {"tags": "sometag"},
}
ADDED: dict[str, Any] = {
    "id": "1700528983252",
    "type": "participantAdded",
    "sequenceId": "1",
    "version": "1700528983252",
    "content": {
        "participants": [
            {"communicationIdentifier": ANN, "displayName": "Ann", "shareHistoryTime": "1970-01-01T00:00:00Z"}
        ],
        "initiatorCommunicationIdentifier": ANN,
    },
    "createdOn": "2023-11-21T01:09:43Z",
}

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1", "8:acs:a", "text"])
)
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
NAMES = sorted({*TEXT, *ADDED, *ADDED["content"], *TEXT["content"], "editedOn", "deletedOn", "topic", "chatMessageId"})
shapes = st.dictionaries(st.sampled_from(NAMES), anything | st.dictionaries(st.sampled_from(NAMES), anything))


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def read(message: dict[str, Any]) -> ChatMessage:
    return translate.message(body(message))


def test_a_text_message_as_recorded_is_read() -> None:
    message = read(TEXT)

    assert (message.id, message.version, message.type) == ("1700528984299", 1700528984300, MessageType.TEXT)
    assert (message.content, message.sender, message.sender_display_name) == ("hi", "8:acs:ann", None)
    assert message.created_on == datetime(2023, 11, 21, 1, 9, 44, tzinfo=UTC)
    assert message.metadata == {"tags": "sometag"}
    assert message.sequence_id == 4


def test_a_system_message_as_recorded_has_no_sender_but_an_initiator_and_people() -> None:
    message = read(ADDED)

    assert (message.sender, message.initiator) == (None, "8:acs:ann")
    assert message.participants == (Participant(UserId("8:acs:ann"), "Ann", datetime(1970, 1, 1, tzinfo=UTC)),)


def test_a_tombstone_has_its_deletion_and_no_content() -> None:
    message = read({**TEXT, "content": {"message": ""}, "deletedOn": "2021-06-15T23:04:15Z"})

    assert message.content == ""
    assert message.deleted_on == datetime(2021, 6, 15, 23, 4, 15, tzinfo=UTC)


def test_an_attachment_keeps_names_and_links() -> None:
    file = {"id": "f", "attachmentType": "image", "name": "a.png", "url": "https://x/a", "previewUrl": "https://x/p"}

    message = read({**TEXT, "type": "html", "content": {"message": "<p>", "attachments": [file]}})

    assert message.attachments == (Attachment("f", "image", "a.png", "https://x/a", "https://x/p"),)


@pytest.mark.parametrize("kind", ["sticker", "TEXT", "other"])
def test_a_type_nobody_knows_is_other(kind: str) -> None:
    assert read({**TEXT, "type": kind}).type is MessageType.OTHER


def test_a_message_without_content_or_sequence_is_still_a_message() -> None:
    bare = {name: TEXT[name] for name in ("id", "type", "version", "createdOn")}

    message = read(bare)

    assert (message.content, message.sequence_id, message.participants) == ("", 0, ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-10-20T10:46:52.3436127+00:00", datetime(2023, 10, 20, 10, 46, 52, 343612, tzinfo=UTC)),
        ("2023-10-20T12:46:52+02:00", datetime(2023, 10, 20, 10, 46, 52, tzinfo=UTC)),
        ("2023-10-20T10:46:52", datetime(2023, 10, 20, 10, 46, 52, tzinfo=UTC)),
    ],
)
def test_times_of_every_spelling_become_aware_and_utc(text: str, expected: datetime) -> None:
    moment = read({**TEXT, "createdOn": text}).created_on

    assert moment == expected
    assert moment.utcoffset() == expected.utcoffset()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"id": "abc"}, "value[1].id: expected a decimal number of at most 18 digits, as text, found 'abc'"),
        ({"id": "1" * 19}, "value[1].id"),
        ({"id": "-5"}, "value[1].id"),
        ({"id": "１２"}, "value[1].id"),
        ({"version": 1700528984300}, "value[1].version: expected text, found a number"),
        ({"type": None}, "value[1].type: expected text, found nothing"),
        ({"createdOn": "yesterday"}, "value[1].createdOn: expected an ISO 8601 time, found 'yesterday'"),
        ({"createdOn": "0001-01-01T00:00:00+14:00"}, "value[1].createdOn"),
        ({"content": "hi"}, "value[1].content: expected an object, found text"),
        ({"content": {"message": 5}}, "value[1].content.message: expected text, found a number"),
        (
            {"content": {"participants": [{}]}},
            "value[1].content.participants[0].communicationIdentifier: expected something",
        ),
        (
            {"senderCommunicationIdentifier": {"rawId": 7}},
            "value[1].senderCommunicationIdentifier.rawId: expected text",
        ),
        ({"senderCommunicationIdentifier": {}}, "value[1].senderCommunicationIdentifier.rawId: expected text"),
        ({"content": {"participants": [{"communicationIdentifier": {}}]}}, ".communicationIdentifier.rawId: expected"),
        ({"metadata": {"a": {}}}, "value[1].metadata[...]: expected text, found an object"),
    ],
)
def test_a_wrong_shape_is_refused_with_its_place(change: dict[str, Any], place: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        translate.messages(body({"value": [TEXT, {**TEXT, **change}]}))

    assert place in str(caught.value)


def test_a_refusal_never_quotes_what_people_wrote() -> None:
    with pytest.raises(ProtocolError) as caught:
        read({**TEXT, "content": {"message": ["my secret"]}})

    assert "secret" not in str(caught.value)


def test_half_a_surrogate_pair_becomes_a_replacement_that_can_be_stored() -> None:
    (message,), _ = translate.messages(body({"value": [{**TEXT, "content": {"message": "a\ud800b"}}]}))

    assert message.content == "a\ufffdb"


def test_a_page_has_its_elements_in_order_and_its_link() -> None:
    messages, link = translate.messages(body({"value": [TEXT, ADDED], "nextLink": "https://x/2"}))

    assert [message.number for message in messages] == [1700528984299, 1700528983252]
    assert link == "https://x/2"


@pytest.mark.parametrize("link", [None, ""])
def test_a_page_without_a_link_is_the_last(link: str | None) -> None:
    assert translate.messages(body({"value": [], "nextLink": link})) == ((), None)


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ({}, "value: expected something, found nothing"),
        ({"value": "x"}, "value: expected a list, found text"),
        ({"value": 0}, "value: expected a list, found a number"),
        ({"value": [None]}, "value[0]: expected an object, found nothing"),
        ({"value": [], "nextLink": 5}, "nextLink: expected text, found a number"),
    ],
)
def test_a_page_of_another_shape_is_refused(page: dict[str, Any], problem: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        translate.messages(body(page))

    assert str(caught.value).endswith(f"breaks its protocol: {problem}")


@pytest.mark.parametrize(
    "text",
    [
        b"", b"<html>", b"[]", b"null", b'{"a":', b"\xff\xfe\x00", b"[" * 100_000,
        b'{"value": [], "x": ' + b"[" * 100_000, b'{"value": [], "nextLink": "\xff"}',
        b'{"value": [], "nextLink": NaN}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_page_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        translate.messages(text)


def test_a_page_behind_a_byte_order_mark_is_read() -> None:
    assert translate.messages(b'\xef\xbb\xbf{"value": []}') == ((), None)


def test_a_failed_participant_has_user_code_and_reason() -> None:
    answer = body({"invalidParticipants": [{"code": "403", "message": "no", "target": "8:orgid:x"}]})

    (failed,) = translate.failed(answer, [Participant(UserId("8:acs:a")), Participant(UserId("8:orgid:x"))])

    assert (failed.user, failed.code, failed.message) == ("8:orgid:x", "403", "no")


def test_an_error_without_a_target_is_not_lost() -> None:
    answer = body({"invalidParticipants": [{"Code": "500"}]})

    one = translate.failed(answer, [Participant(UserId("8:acs:a"))])
    many = translate.failed(answer, [Participant(UserId("8:acs:a")), Participant(UserId("8:acs:b"))])

    assert [(failed.user, failed.code) for failed in (*one, *many)] == [("8:acs:a", "500"), ("", "500")]


@given(st.sampled_from([TEXT, ADDED, {}]), shapes)
def test_whatever_comes_is_read_or_refused(known: dict[str, Any], changes: dict[str, Any]) -> None:
    """No shape ends in anything but a value or a `ProtocolError`, and every value can be stored."""
    one = {**known, **changes}
    page = body({"value": [one], "nextLink": changes.get("topic")})
    reads: list[Callable[[], Any]] = [
        *(partial(read, page) for read in (translate.messages, translate.participants, translate.receipts)),
        *(partial(read, page) for read in (translate.threads,)),
        *(partial(read, body(one)) for read in (translate.message, translate.thread, translate.sent)),
        partial(translate.created, body({"chatThread": one, "invalidParticipants": [one]}), []),
    ]
    for read_it in reads:
        try:
            value = read_it()
        except ProtocolError:
            continue
        repr(value).encode()
