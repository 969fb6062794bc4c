"""What a resource shares among its users: identities, tokens, and the way to the service."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from azure.core.credentials import AccessToken

from chatbot.emulator import Emulator, serve
from chatbot.errors import (
    ConfigError,
    OutcomeUnknown,
    ProtocolError,
    Rejected,
    ServiceError,
    StateError,
    Throttled,
    Unauthorized,
    Unreachable,
)
from chatbot.model import ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.service.credentials import StaticToken
from chatbot.service.policies import Timeouts
from chatbot.testing.transport import AsgiTransport
from tests.contracts.chat_room import Fault, Room, Weather, answering, opened, raising, room


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


async def test_an_issued_token_has_its_expiry() -> None:
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


@pytest.mark.parametrize("user", ["", ".", ".."])
async def test_a_user_id_that_is_none_addresses_nothing(user: str) -> None:
    async with room() as it:
        for call in (it.resource.delete_user, it.resource.revoke_tokens, it.resource.issue_token):
            with pytest.raises(Rejected, match="is not a user id"):
                await call(UserId(user))

        assert it.weather.requests == []


@pytest.mark.parametrize("body", [b"{}", b'{"identity": {}}', b"[]", b"<html>"])
async def test_an_identity_that_is_none_is_refused(body: bytes) -> None:
    async with room() as it:
        it.weather.faults = [answering(201, body, content_type="application/json")]

        with pytest.raises((ProtocolError, OutcomeUnknown), match="create a user"):
            await it.resource.create_user()


async def test_without_an_access_key_there_are_no_identities() -> None:
    async with AcsResource("https://acs.example", transport=AsgiTransport(Emulator())) as resource:
        with pytest.raises(ConfigError, match="needs the access key of"):
            await resource.create_user()


async def test_a_resource_that_is_not_open_says_so() -> None:
    resource = AcsResource("https://acs.example")

    with pytest.raises(StateError, match="async with"):
        resource.chat(UserId("8:acs:x"), StaticToken("t"))


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


class Recorder(AsgiTransport):
    """Keeps the options that requests are sent with."""

    options: dict[str, Any]

    async def send(self, request: Any, **options: Any) -> Any:
        self.options = options
        return await super().send(request, **options)


@pytest.mark.parametrize(
    ("endpoint", "proxy"), [("https://acs.example", "http://proxy:3128"), ("https://localhost", None)]
)
async def test_the_environment_s_proxy_is_taken_once_and_never_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, proxy: str | None
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    emulator = Emulator(endpoint=endpoint)
    transport = Recorder(emulator)
    resource = AcsResource.from_connection_string(emulator.connection_string, transport=transport)
    monkeypatch.delenv("HTTPS_PROXY")

    async with opened(resource, Weather(emulator)) as it:
        assert transport.options.get("proxy") == proxy

        await it.resource.create_user()

        assert transport.options.get("proxy") == proxy


async def test_every_call_has_its_timeouts() -> None:
    emulator = Emulator(endpoint="https://acs.example")
    transport = Recorder(emulator)
    resource = AcsResource.from_connection_string(
        emulator.connection_string, transport=transport, timeouts=Timeouts(connect=1, read=2)
    )

    async with opened(resource, Weather(emulator)) as it:
        for call in (it.resource.create_user, it.ann.list_threads):
            await call()

            assert transport.options["connection_timeout"] == 1
            assert transport.options["read_timeout"] == 2
