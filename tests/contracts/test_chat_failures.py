"""What `ChatService` promises when something fails: the right class, no repetition, no token to other hosts."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import parse_qs, quote, unquote

import anyio
import pytest
from azure.communication.chat.aio import ChatClient

from chatbot.emulator import Quirks
from chatbot.errors import (
    Forbidden,
    NotFound,
    OutcomeUnknown,
    ProtocolError,
    Rejected,
    ServiceError,
    Throttled,
    Unreachable,
)
from chatbot.model import MessageId, ThreadId
from chatbot.service.policies import ANY_THREAD, Timeouts
from chatbot.testing.transport import AsgiMessage, AsgiTransport
from tests.contracts.chat_room import Fault, answering, raising, room


@pytest.mark.parametrize("envelope", ["CommunicationError", "error"])
async def test_a_refusal_says_why_in_either_envelope(envelope: Any) -> None:
    async with room(Quirks(error_envelope=envelope)) as it:
        with pytest.raises(NotFound, match="The specified thread id was not found") as caught:
            await it.ann.get_thread(ThreadId("19:" + "x" * 43 + "1@thread.v2"))

        assert (caught.value.status, caught.value.code) == (404, "NotFound")


async def test_a_user_outside_of_the_thread_may_not_write() -> None:
    async with room() as it:
        user = await it.resource.create_user()

        with pytest.raises(Forbidden):
            await it.resource.chat(user, it.resource.issued_tokens(user)).send_message(it.thread, "hi")


@pytest.mark.parametrize(
    ("fault", "kind", "wait"),
    [
        (raising(ConnectionRefusedError("down")), Unreachable, None),
        (raising(ConnectionResetError("reset")), OutcomeUnknown, None),
        (raising(TimeoutError()), OutcomeUnknown, None),
        (answering(500, retry_after="2"), OutcomeUnknown, 2.0),
        (answering(503), OutcomeUnknown, None),
        (answering(408), OutcomeUnknown, None),
        (answering(429, retry_after="7"), Throttled, 7.0),
        (answering(429, x_ms_retry_after_ms="500"), Throttled, 0.5),
        (answering(413), Rejected, None),
        (answering(302, location="https://evil.example/"), OutcomeUnknown, None),
        (answering(200, b'{"id": "1"}'), OutcomeUnknown, None),
        (answering(201, b"<html>"), OutcomeUnknown, None),
        (answering(201, b'{"id": "new"}'), OutcomeUnknown, None),
    ],
)
async def test_a_send_that_fails_is_sorted_and_never_repeated(
    fault: Fault, kind: type[ServiceError], wait: float | None
) -> None:
    async with room() as it:
        it.weather.faults = [fault]

        with pytest.raises(ServiceError) as caught:
            await it.ann.send_message(it.thread, "hi")

        assert type(caught.value) is kind
        assert getattr(caught.value, "retry_after", None) == wait
        assert len(it.weather.requests) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b'{"value": {}}', b'{"value": [5]}', b'{"value": [], "nextLink": 5}'])
async def test_a_page_that_is_none_breaks_the_protocol(body: bytes) -> None:
    async with room() as it:
        it.weather.faults = [answering(200, body)]

        with pytest.raises(ProtocolError, match="cannot list the messages of thread 19:"):
            await it.ann.list_messages(it.thread)


@pytest.mark.parametrize("timeouts", [Timeouts(read=0.01), Timeouts(total=0.01)])
async def test_an_answer_that_does_not_come_is_given_up(timeouts: Timeouts) -> None:
    async def silence(scope: AsgiMessage, receive: Any, send: Any) -> None:
        await anyio.sleep_forever()

    async with room(timeouts=timeouts) as it:
        it.weather.faults = [silence]

        with pytest.raises(OutcomeUnknown, match="no answer came"):
            await it.ann.send_message(it.thread, "hi")


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/chat/threads/x/messages",
        "http://acs.example/chat/threads/x/messages",
        "https://acs.example:444/chat/threads/x/messages",
        "https://acs.example@evil.example/chat",
        "https://acs.example.evil.example/chat",
        "https://me@acs.example/chat",
        "https://[/chat",
    ],
)
async def test_a_link_to_another_place_is_never_followed_with_our_token(link: str) -> None:
    async with room() as it:
        with pytest.raises(ProtocolError):
            await it.ann.list_messages(it.thread, link=link)

        assert it.weather.requests == []


@pytest.mark.parametrize("place", ["https://ACS.example", "https://acs.example:443"])
async def test_a_link_to_the_endpoint_in_another_spelling_is_followed(place: str) -> None:
    async with room() as it:
        page = await it.ann.list_messages(it.thread, link=f"{place}/chat/threads/{it.thread}/messages?maxPageSize=1")

        assert len(page.messages) == 1


@pytest.mark.parametrize("message", ["", "..", ".", "1/..", "12a", "１"])
async def test_a_message_id_that_is_none_addresses_nothing(message: str) -> None:
    """`DELETE …/messages/..` is `DELETE` of the thread."""
    async with room() as it:
        for call in (it.ann.delete_message, it.ann.get_message, it.ann.send_receipt, it.ann.edit_message):
            with pytest.raises(Rejected, match="is not a message id"):
                await call(it.thread, MessageId(message))

        assert it.weather.requests == []


@pytest.mark.parametrize("thread", ["", ".", ".."])
async def test_a_thread_id_that_is_none_addresses_nothing(thread: str) -> None:
    async with room() as it:
        for call in (it.ann.delete_thread, it.ann.get_thread, it.ann.list_messages):
            with pytest.raises(Rejected, match="is not a thread id"):
                await call(ThreadId(thread))

        assert it.weather.requests == []


async def test_empty_texts_are_refused_before_they_are_sent() -> None:
    async with room() as it:
        with pytest.raises(Rejected, match="a text is needed"):
            await it.ann.send_message(it.thread, "")
        with pytest.raises(Rejected, match="a topic is needed"):
            await it.ann.create_thread("")

        assert it.weather.requests == []


async def test_requests_name_the_sdk_and_chatbot() -> None:
    async with room() as it:
        await it.bob.list_threads()

        agents = [dict(request["headers"])[b"user-agent"].decode() for request in it.weather.requests]
        assert len(agents) == 2
        assert all(agent.startswith("chatbot/") and "azsdk-python-communication-" in agent for agent in agents)
        assert all(b"x-ms-client-request-id" in dict(request["headers"]) for request in it.weather.requests)


async def test_each_thread_is_addressed_by_its_own_id() -> None:
    """One client of the SDK serves all threads: its address is that of no thread until our policy fills it in."""
    async with room() as it:
        it.weather.faults = [answering(204), answering(204), answering(404), answering(200, b'{"value": []}')]

        await it.ann.update_topic(ThreadId("19:a/b?c#d%2f@thread.v2"), "t")
        await it.ann.delete_thread(ThreadId("19:ä@thread.v2"))
        with pytest.raises(NotFound):
            await it.ann.list_messages(ThreadId(ANY_THREAD))
        await it.ann.list_messages(it.thread)

        assert [request["raw_path"].decode() for request in it.weather.requests] == [
            "/chat/threads/19:a%2Fb%3Fc%23d%252f@thread.v2",
            "/chat/threads/19:%C3%A4@thread.v2",
            "/chat/threads/ANY-THREAD/messages",
            f"/chat/threads/{quote(it.thread, safe=':@')}/messages",
        ]


async def test_a_first_page_is_asked_for_as_the_sdk_itself_asks() -> None:
    async with room() as it:
        options: Any = {"transport": AsgiTransport(it.weather)}
        async with ChatClient(it.resource.endpoint, cast(Any, it.tokens[it.ann.user]), **options) as client:
            listing = client.get_chat_thread_client(it.thread, **options).list_messages(results_per_page=50)
            await anext(listing.by_page())
        await it.ann.list_messages(it.thread, page_size=50)

        theirs, ours = (_what_is_asked(request) for request in it.weather.requests)
        assert ours == theirs


def _what_is_asked(request: Any) -> tuple[Any, ...]:
    query = parse_qs(request["query_string"].decode())
    return request["method"], unquote(request["raw_path"].decode()), query, dict(request["headers"])[b"accept"]


async def test_a_link_cannot_pass_for_the_address_of_the_endpoint() -> None:
    async with room() as it:
        with pytest.raises(ProtocolError):
            await it.ann.list_messages(it.thread, link=f"https://evil.example/chat/threads/{ANY_THREAD}/messages")

        assert it.weather.requests == []
