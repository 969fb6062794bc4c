"""What `ChatService` promises, kept by the official SDK's clients against the emulator, in-process and over sockets."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from azure.core.credentials import AccessToken

from chatbot.emulator import Emulator, Quirks, World, serve
from chatbot.errors import (
    ConfigError,
    Forbidden,
    NotFound,
    OutcomeUnknown,
    ProtocolError,
    Rejected,
    ServiceError,
    StateError,
    Throttled,
    Unauthorized,
    Unreachable,
)
from chatbot.model import MessageId, MessageType, Participant, ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService, FailedParticipant
from chatbot.service.chat import MAX_CLIENTS
from chatbot.service.credentials import RenewingTokens, StaticToken
from chatbot.service.policies import Timeouts
from chatbot.testing.transport import AsgiMessage, AsgiTransport

Fault = Callable[[AsgiMessage, Any, Any], Any]


class Weather:
    """The emulator behind a network on which things go wrong: each fault strikes one request, in order."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.faults: list[Fault] = []
        self.requests: list[AsgiMessage] = []

    async def __call__(self, scope: AsgiMessage, receive: Any, send: Any) -> None:
        self.requests.append(scope)
        app = self.faults.pop(0) if self.faults else self.emulator
        await app(scope, receive, send)

    @property
    def authorizations(self) -> list[bytes]:
        return [dict(request["headers"])[b"authorization"] for request in self.requests]


def raising(error: Exception) -> Fault:
    async def fault(scope: AsgiMessage, receive: Any, send: Any) -> None:
        raise error

    return fault


def answering(status: int, body: bytes = b"", **headers: str) -> Fault:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    async def fault(scope: AsgiMessage, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": named})
        await send({"type": "http.response.body", "body": body})

    return fault


@dataclass
class Room:
    """Ann and Bob, each with a view of the service, and a thread of theirs."""

    resource: AcsResource
    weather: Weather
    ann: ChatService
    bob: ChatService
    thread: ThreadId
    tokens: dict[UserId, RenewingTokens] = field(default_factory=dict)


@asynccontextmanager
async def opened(resource: AcsResource, weather: Weather) -> AsyncIterator[Room]:
    async with resource:
        tokens = {}
        for _ in range(2):
            user = await resource.create_user()
            tokens[user] = resource.minted_tokens(user)
        ann, bob = (resource.chat(user, source) for user, source in tokens.items())
        created = await ann.create_thread("Lobby", [Participant(bob.user, "Bob")])
        weather.requests.clear()
        yield Room(resource, weather, ann, bob, created.thread.id, tokens)


@asynccontextmanager
async def room(quirks: Quirks | None = None, **options: Any) -> AsyncIterator[Room]:
    emulator = Emulator(World(quirks=quirks) if quirks else None, endpoint="https://acs.example")
    weather = Weather(emulator)
    text = emulator.connection_string
    async with opened(
        AcsResource.from_connection_string(text, transport=AsgiTransport(weather), **options), weather
    ) as it:
        yield it


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


async def test_people_who_cannot_come_in_are_told_apart_whatever_kind_they_are() -> None:
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


async def test_pages_that_lead_in_a_circle_are_left() -> None:
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


# Identities and tokens


async def test_a_revoked_token_is_renewed_and_the_call_repeated_once() -> None:
    async with room() as it:
        await it.resource.revoke_tokens(it.ann.user)
        it.weather.requests.clear()

        await it.ann.send_message(it.thread, "still here")

        first, _, second = it.weather.authorizations
        assert first != second
        messages = (await it.ann.list_messages(it.thread)).messages
        assert [message.content for message in messages if message.is_said] == ["still here"]


async def test_a_token_that_stays_refused_is_refused_after_one_repetition() -> None:
    async with room() as it:
        it.weather.faults = [answering(401), it.weather.emulator, answering(401)]

        with pytest.raises(Unauthorized):
            await it.ann.list_threads()

        assert len(it.weather.requests) == 3


async def test_a_refused_token_that_cannot_be_replaced_is_said_so() -> None:
    async with room() as it:
        stranger = it.resource.chat(it.ann.user, StaticToken("no-token"))

        with pytest.raises(Unauthorized, match="cannot be renewed: configure a new one"):
            await stranger.list_threads()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (raising(ConnectionResetError("reset")), Unreachable),
        (answering(503), Unreachable),
        (answering(429, retry_after="3"), Throttled),
        (answering(400), Unauthorized),
    ],
)
async def test_a_message_is_certainly_not_sent_when_its_token_could_not_be_had(
    fault: Fault, kind: type[ServiceError]
) -> None:
    async with room() as it:
        it.weather.faults = [fault]

        with pytest.raises(kind):
            await it.bob.send_message(it.thread, "hi")

        assert len(it.weather.requests) == 1


async def test_a_token_is_renewed_when_asked() -> None:
    async with room() as it:
        await it.ann.renew_token()

        (request,) = it.weather.requests
        assert request["path"] == f"/identities/{it.ann.user}/:issueAccessToken"


async def test_tokens_expire_by_the_resource_s_own_clock() -> None:
    now = [datetime(2030, 1, 1, tzinfo=UTC).timestamp()]
    emulator = Emulator(endpoint="https://acs.example", clock=lambda: now[0])
    text = emulator.connection_string
    async with opened(
        AcsResource.from_connection_string(text, transport=AsgiTransport(emulator), clock=lambda: now[0]),
        Weather(emulator),
    ) as it:
        first = await it.tokens[it.ann.user].get_token()
        now[0] += 24 * 3600

        await it.ann.list_threads()

        assert (await it.tokens[it.ann.user].get_token()).expires_on == first.expires_on + 24 * 3600
        assert all(call.status < 400 for call in emulator.calls)


async def test_a_deleted_user_has_no_tokens_any_more() -> None:
    async with room() as it:
        await it.resource.delete_user(it.bob.user)

        with pytest.raises(Unauthorized, match="IdentityNotOwned"):
            await it.resource.issue_token(it.bob.user)


async def test_an_issued_token_tells_when_it_expires() -> None:
    async with room() as it:
        token = await it.resource.issue_token(it.ann.user)

        assert isinstance(token, AccessToken)
        assert isinstance(token.expires_on, int)


async def test_a_wrong_access_key_is_refused_without_being_shown() -> None:
    emulator = Emulator(endpoint="https://acs.example")
    async with AcsResource("https://acs.example", access_key="d3Jvbmc=", transport=AsgiTransport(emulator)) as resource:
        with pytest.raises(Unauthorized) as caught:
            await resource.create_user()

    assert "d3Jvbmc" not in f"{caught.value}{resource!r}"


@pytest.mark.parametrize("body", [b"{}", b'{"identity": {}}', b"[]", b"<html>"])
async def test_an_identity_that_is_none_is_refused(body: bytes) -> None:
    async with room() as it:
        it.weather.faults = [answering(201, body, content_type="application/json")]

        with pytest.raises((ProtocolError, OutcomeUnknown), match="create a user"):
            await it.resource.create_user()


async def test_without_an_access_key_there_are_no_identities() -> None:
    async with AcsResource("https://acs.example", transport=AsgiTransport(Emulator())) as resource:
        with pytest.raises(ConfigError, match="needs the resource's access key"):
            await resource.create_user()


async def test_a_resource_that_is_not_open_says_so() -> None:
    resource = AcsResource("https://acs.example")

    with pytest.raises(StateError, match="async with"):
        resource.chat(UserId("8:acs:x"), StaticToken("t"))


# Failures


@pytest.mark.parametrize("envelope", ["CommunicationError", "error"])
async def test_a_refusal_says_why_in_either_envelope(envelope: Any) -> None:
    async with room(Quirks(error_envelope=envelope)) as it:
        with pytest.raises(NotFound, match="The specified thread id was not found") as caught:
            await it.ann.get_thread(ThreadId("19:" + "x" * 43 + "1@thread.v2"))

        assert (caught.value.status, caught.value.code) == (404, "NotFound")


async def test_a_stranger_may_not_write() -> None:
    async with room() as it:
        user = await it.resource.create_user()

        with pytest.raises(Forbidden):
            await it.resource.chat(user, it.resource.minted_tokens(user)).send_message(it.thread, "hi")


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
            with pytest.raises(Rejected, match="is no message id"):
                await call(it.thread, MessageId(message))

        assert it.weather.requests == []


@pytest.mark.parametrize("thread", ["", ".", ".."])
async def test_a_thread_id_that_is_none_addresses_nothing(thread: str) -> None:
    async with room() as it:
        for call in (it.ann.delete_thread, it.ann.get_thread, it.ann.list_messages):
            with pytest.raises(Rejected, match="is no thread id"):
                await call(ThreadId(thread))

        assert it.weather.requests == []


async def test_empty_texts_are_refused_before_they_are_sent() -> None:
    async with room() as it:
        with pytest.raises(Rejected, match="a text is needed"):
            await it.ann.send_message(it.thread, "")
        with pytest.raises(Rejected, match="a topic is needed"):
            await it.ann.create_thread("")

        assert it.weather.requests == []


# Cost and manners


async def test_requests_name_the_sdk_and_us() -> None:
    async with room() as it:
        await it.bob.list_threads()

        agents = [dict(request["headers"])[b"user-agent"].decode() for request in it.weather.requests]
        assert len(agents) == 2
        assert all(agent.startswith("chatbot/") and "azsdk-python-communication-" in agent for agent in agents)
        assert all(b"x-ms-client-request-id" in dict(request["headers"]) for request in it.weather.requests)


async def test_thread_clients_do_not_grow_without_bound() -> None:
    async with room() as it:
        for number in range(MAX_CLIENTS + 10):
            it.weather.faults = [it.weather.emulator] if number == 0 else [answering(204)]
            await it.ann.update_topic(ThreadId(f"19:{number}@thread.v2") if number else it.thread, "t")

        assert len(it.ann._threads) == MAX_CLIENTS  # type: ignore[attr-defined]  # nothing else shows it


# Over sockets


async def conversation(it: Room) -> list[str]:
    for number in range(3):
        await it.ann.send_message(it.thread, f"m{number} 🎲")
    page = await it.bob.list_messages(it.thread, page_size=2)
    rest = await it.bob.list_messages(it.thread, page_size=2, link=page.next_link)
    return [message.content for message in (*page.messages, *rest.messages) if message.is_said]


async def test_a_conversation_over_https_with_the_emulator_s_authority(tmp_path: Path) -> None:
    emulator = Emulator()
    async with serve(emulator, certificates=tmp_path) as running:
        resource = AcsResource.from_connection_string(running.connection_string, ca_file=running.ca_file)
        async with opened(resource, Weather(emulator)) as it:
            assert await conversation(it) == ["m2 🎲", "m1 🎲", "m0 🎲"]


async def test_a_conversation_over_plain_http_with_this_machine() -> None:
    emulator = Emulator()
    async with serve(emulator, tls=False) as running:
        resource = AcsResource.from_connection_string(running.connection_string)
        async with opened(resource, Weather(emulator)) as it:
            assert await conversation(it) == ["m2 🎲", "m1 🎲", "m0 🎲"]


async def test_a_port_where_nobody_listens_is_unreachable(unused_tcp_port: int) -> None:
    async with AcsResource(f"http://127.0.0.1:{unused_tcp_port}", access_key="a2V5") as resource:
        tokens = StaticToken("t")

        with pytest.raises(Unreachable, match="cannot be reached"):
            await resource.create_user()
        with pytest.raises(Unreachable, match="cannot be reached"):
            await resource.chat(UserId("8:acs:x"), tokens).list_threads()


async def test_a_server_that_hangs_up_leaves_the_outcome_unknown() -> None:
    async def hang_up(stream: Any) -> None:
        async with stream:
            await stream.receive()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, hang_up)
        async with AcsResource(f"http://127.0.0.1:{port}") as resource:
            with pytest.raises(OutcomeUnknown):
                await resource.chat(UserId("8:acs:x"), StaticToken("t")).send_message(ThreadId("19:x"), "hi")
        group.cancel_scope.cancel()
