"""Every public method of the official Python SDK, sync and aio, over https against a served emulator.

The sync clients run in a thread of their own, as another program would.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import ssl
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from azure.communication.chat import ChatParticipant
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
from tests.contracts import python_sdk
from tests.contracts.clients import ran, ran_as_installed
from tests.contracts.python_sdk import GUID, Used, public, unused


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[tuple[Running, ssl.SSLContext]]:
    emulator = Emulator(quotas=False, entra=True)
    async with serve(emulator, certificates=tmp_path) as running:
        yield running, ssl.create_default_context(cafile=running.ca_file)


async def test_every_public_method_of_the_sync_clients_works(tmp_path: Path) -> None:
    async with served(tmp_path) as (running, _):
        entra = running.emulator.entra_token()
        left = await asyncio.to_thread(unused, running.connection_string, str(running.ca_file), entra)

    assert left == set()
    _noted("every public method")


OTHERS = [("1.0.0", "1.0.1"), ("1.1.0", "1.2.0"), ("1.2.0", "1.3.1"), ("1.2.0", "1.4.0")]


@pytest.mark.sdk
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("chat", "identity"), OTHERS, ids=lambda version: version)
async def test_every_public_method_of_other_versions_of_the_sync_clients_works(
    chat: str, identity: str, tmp_path: Path
) -> None:
    python = await asyncio.to_thread(_environment, tmp_path / "environment", chat, identity)
    async with served(tmp_path) as (running, _):
        told = [running.connection_string, str(running.ca_file), running.emulator.entra_token()]
        result = await anyio.run_process([python, python_sdk.__file__, *told], check=False)

    assert (result.returncode, result.stdout.decode().strip()) == (0, "[]"), result.stderr.decode()
    for name, version in (("azure-communication-chat", chat), ("azure-communication-identity", identity)):
        ran(f"`{name}`", version, "Python", "every public method")


def _environment(directory: Path, chat: str, identity: str) -> str:
    """The Python of an environment with these versions."""
    venv.create(directory, with_pip=True)
    python = str(directory / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    packages = [f"azure-communication-chat=={chat}", f"azure-communication-identity=={identity}"]
    packages.append("six")  # some versions import it without saying so
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, timeout=240)
    return python


def _noted(what: str) -> None:
    for name in ("azure-communication-chat", "azure-communication-identity"):
        ran_as_installed(f"`{name}`", importlib.metadata.version(name), what)


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
