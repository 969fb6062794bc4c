"""Every public method of the official Python SDK, sync and aio, over https against a served emulator.

The sync clients run in a thread of their own, as a stranger's program would.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.communication.chat import ChatClient, ChatParticipant, ChatThreadClient, CommunicationTokenCredential
from azure.communication.chat import aio as chat_aio
from azure.communication.identity import (
    CommunicationIdentityClient,
    CommunicationTokenScope,
    CommunicationUserIdentifier,
)
from azure.communication.identity import aio as identity_aio
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import AioHttpTransport

from chatbot.emulator import Emulator, Running, serve
from tests.contracts.clients import ran_as_installed

GUID = "8a5e3ae1-0c9b-4c4a-9b0e-6e5f6d1c2b3a"
STRANGER = CommunicationUserIdentifier(f"8:acs:{GUID}_0000001c-0000-0000-0000-000000000000")


class Used:
    """A client that notes which of its methods were called."""

    def __init__(self, client: Any, seen: set[str]) -> None:
        self._client = client
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        self._seen.add(name)
        return getattr(self._client, name)


def public(*classes: type) -> set[str]:
    """The public methods and properties of the classes."""
    return {
        name
        for one in classes
        for name, member in inspect.getmembers(one)
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
    }


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[tuple[Running, ssl.SSLContext]]:
    emulator = Emulator(quotas=False, entra=True)
    async with serve(emulator, certificates=tmp_path) as running:
        yield running, ssl.create_default_context(cafile=running.ca_file)


async def test_every_public_method_of_the_sync_clients_works(tmp_path: Path) -> None:
    async with served(tmp_path) as (running, _):
        seen = await asyncio.to_thread(as_a_stranger, running)

    assert public(CommunicationIdentityClient, ChatClient, ChatThreadClient) - seen == {"from_connection_string"}
    _noted("every public method")


def _noted(what: str) -> None:
    for name in ("azure-communication-chat", "azure-communication-identity"):
        ran_as_installed(f"`{name}`", importlib.metadata.version(name), what)


def as_a_stranger(running: Running) -> set[str]:
    """A program that knows the connection string and the certificate file, and nothing else."""
    seen: set[str] = set()
    verify = {"connection_verify": str(running.ca_file)}
    identity = Used(CommunicationIdentityClient.from_connection_string(running.connection_string, **verify), seen)
    ann = identity.create_user()
    bob, bobs_token = identity.create_user_and_token(
        [CommunicationTokenScope.CHAT], token_expires_in=timedelta(hours=1)
    )
    token = identity.get_token(ann, [CommunicationTokenScope.CHAT])
    teams = identity.get_token_for_teams_user(running.emulator.entra_token(), GUID, GUID)
    assert teams.token

    credential = CommunicationTokenCredential(token.token)
    chat = Used(ChatClient(running.endpoint, credential, **verify), seen)
    invited = [ChatParticipant(identifier=bob, display_name="Bob"), ChatParticipant(identifier=STRANGER)]
    created = chat.create_chat_thread("topic", thread_participants=invited, idempotency_token=GUID)
    again = chat.create_chat_thread("topic", thread_participants=invited, idempotency_token=GUID)
    assert created.chat_thread.id == again.chat_thread.id
    assert [error.code for _, error in created.errors] == ["403"]
    assert [thread.id for thread in chat.list_chat_threads(results_per_page=1)] == [created.chat_thread.id]

    thread = Used(chat.get_chat_thread_client(created.chat_thread.id, **verify), seen)
    assert thread.thread_id == created.chat_thread.id
    _talk(thread, bob)
    bobs = ChatClient(running.endpoint, CommunicationTokenCredential(bobs_token.token), **verify)
    with pytest.raises(HttpResponseError, match="Forbidden"):
        bobs.get_chat_thread_client(created.chat_thread.id, **verify).send_message("I am gone")

    chat.delete_chat_thread(created.chat_thread.id)
    with pytest.raises(ResourceNotFoundError):
        thread.get_properties()
    identity.revoke_tokens(ann)
    with pytest.raises(ClientAuthenticationError):
        list(chat.list_chat_threads())
    identity.delete_user(ann)
    for client in (thread, chat, bobs):
        client.close()
    return seen


def _talk(thread: Any, bob: CommunicationUserIdentifier) -> None:
    sent = [
        thread.send_message(str(number), sender_display_name="Ann", metadata={"n": str(number)}) for number in range(3)
    ]
    html = thread.send_message("<b>hi</b>", chat_message_type="html")
    thread.update_message(sent[0].id, content="edited", metadata={"more": "yes"})
    thread.delete_message(sent[1].id)
    edited = thread.get_message(sent[0].id)
    assert (edited.content.message, edited.metadata) == ("edited", {"n": "0", "more": "yes"})
    assert edited.edited_on is not None
    listed = list(thread.list_messages(results_per_page=2))
    assert [one.id for one in listed][:4] == [sent[1].id, sent[0].id, html.id, sent[2].id]
    assert listed[0].deleted_on is not None
    since = datetime.now(UTC) - timedelta(hours=1)
    assert len(list(thread.list_messages(start_time=since))) == len(listed) == 6
    thread.update_topic("new topic")
    assert thread.get_properties().topic == "new topic"
    thread.send_read_receipt(html.id)
    assert [one.chat_message_id for one in thread.list_read_receipts()] == [html.id]
    thread.send_typing_notification(sender_display_name="Ann")
    assert thread.add_participants([ChatParticipant(identifier=bob)]) == []
    assert len(list(thread.list_participants(results_per_page=1))) == 2
    thread.remove_participant(bob)
    assert len(list(thread.list_participants())) == 1


async def test_every_public_method_of_the_aio_clients_works(tmp_path: Path) -> None:
    seen: set[str] = set()
    async with served(tmp_path) as (running, trust):

        def transport() -> AioHttpTransport:
            session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust))
            return AioHttpTransport(session=session, session_owner=True)

        string = running.connection_string
        connect: Callable[..., Any] = identity_aio.CommunicationIdentityClient.from_connection_string
        identity = Used(connect(string, transport=transport()), seen)
        ann = await identity.create_user()
        bob, _ = await identity.create_user_and_token([CommunicationTokenScope.CHAT])
        token = await identity.get_token(ann, [CommunicationTokenScope.CHAT])
        assert (await identity.get_token_for_teams_user(running.emulator.entra_token(), GUID, GUID)).token

        credential = chat_aio.CommunicationTokenCredential(token.token)
        chat = Used(chat_aio.ChatClient(running.endpoint, credential, transport=transport()), seen)
        created = await chat.create_chat_thread("topic", thread_participants=[ChatParticipant(identifier=bob)])
        assert [one.id async for one in chat.list_chat_threads()] == [created.chat_thread.id]
        thread = Used(chat.get_chat_thread_client(created.chat_thread.id, transport=transport()), seen)
        await _talk_aio(thread, bob)
        await chat.delete_chat_thread(created.chat_thread.id)
        with pytest.raises(ResourceNotFoundError):
            await thread.get_properties()
        await identity.revoke_tokens(ann)
        with pytest.raises(ClientAuthenticationError):
            await thread.send_message("revoked")
        await identity.delete_user(ann)
        assert thread.thread_id
        for client in (thread, chat, identity):
            await client.close()

    classes = (identity_aio.CommunicationIdentityClient, chat_aio.ChatClient, chat_aio.ChatThreadClient)
    assert public(*classes) - seen == {"from_connection_string"}
    _noted("every public method of the aio clients")


async def _talk_aio(thread: Any, bob: CommunicationUserIdentifier) -> None:
    sent = [await thread.send_message(str(number)) for number in range(3)]
    await thread.update_message(sent[0].id, content="edited")
    await thread.delete_message(sent[1].id)
    assert (await thread.get_message(sent[0].id)).content.message == "edited"
    pages = [[one.id async for one in page] async for page in thread.list_messages(results_per_page=2).by_page()]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert pages[0] == [sent[1].id, sent[0].id]
    await thread.update_topic("new topic")
    assert (await thread.get_properties()).topic == "new topic"
    await thread.send_read_receipt(sent[2].id)
    assert [one.chat_message_id async for one in thread.list_read_receipts()] == [sent[2].id]
    await thread.send_typing_notification()
    assert await thread.add_participants([ChatParticipant(identifier=bob)]) == []
    assert len([one async for one in thread.list_participants()]) == 2
    await thread.remove_participant(bob)


async def test_identity_takes_entra_bearer_tokens_and_its_refusals_are_the_sdks_errors(tmp_path: Path) -> None:
    class Credential:
        """An Entra credential."""

        def __init__(self, text: str, expires: int) -> None:
            self._token = AccessToken(text, expires)

        def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            assert scopes == ("https://communication.azure.com//.default",)
            return self._token

    def use(running: Running, text: str, expires: int) -> None:
        credential = Credential(text, expires)
        client = CommunicationIdentityClient(running.endpoint, credential, connection_verify=str(running.ca_file))
        user = client.create_user()
        with pytest.raises(HttpResponseError) as refused:
            client.get_token(user, [])
        assert refused.value.status_code == 400

    async with served(tmp_path) as (running, _):
        expires = int(datetime.now(UTC).timestamp()) + 3600
        await asyncio.to_thread(use, running, running.emulator.entra_token(), expires)
        with pytest.raises(ClientAuthenticationError):
            await asyncio.to_thread(use, running, "not.a.token", expires)
