"""A separate program: every public method of the sync clients of the Python SDK, in whichever version is installed.

It knows an emulator's connection string, its certificate file and a token of a Teams user, and nothing else. The tests
of the installed version import it, others run it as a program: it prints which methods it did not use.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.communication.chat import ChatClient, ChatParticipant, ChatThreadClient, CommunicationTokenCredential
from azure.communication.identity import (
    CommunicationIdentityClient,
    CommunicationTokenScope,
    CommunicationUserIdentifier,
)
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

GUID = "8a5e3ae1-0c9b-4c4a-9b0e-6e5f6d1c2b3a"
STRANGER = CommunicationUserIdentifier(f"8:acs:{GUID}_0000001c-0000-0000-0000-000000000000")
CLASSES = (CommunicationIdentityClient, ChatClient, ChatThreadClient)

CHAT_VERSION = importlib.metadata.version("azure-communication-chat")
IS_FIRST = CHAT_VERSION.startswith("1.0.")  # without metadata of messages, and names of who types
HAS_ERRORS = not CHAT_VERSION.startswith(("1.0.", "1.1."))
HAS_TEAMS = hasattr(CommunicationIdentityClient, "get_token_for_teams_user")
HAS_LIFETIMES = "token_expires_in" in (CommunicationIdentityClient.create_user_and_token.__doc__ or "")


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


def refused(error: type[HttpResponseError], call: Callable[[], object]) -> HttpResponseError:
    """The error of a call that must be refused."""
    try:
        call()
    except error as refusal:
        return refusal
    raise AssertionError(call)


def unused(connection_string: str, ca_file: str, teams_token: str) -> set[str]:
    """Use everything that a chat has; which public methods were not used."""
    seen: set[str] = set()
    verify: dict[str, Any] = {"connection_verify": ca_file}
    endpoint = re.findall("endpoint=([^;]*)/;", connection_string)[0]
    identity = Used(CommunicationIdentityClient.from_connection_string(connection_string, **verify), seen)
    ann = identity.create_user()
    lifetime = {"token_expires_in": timedelta(hours=1)} if HAS_LIFETIMES else {}
    bob, bobs_token = identity.create_user_and_token([CommunicationTokenScope.CHAT], **lifetime)
    token = identity.get_token(ann, [CommunicationTokenScope.CHAT])
    if HAS_TEAMS:
        assert identity.get_token_for_teams_user(teams_token, GUID, GUID).token

    credential = CommunicationTokenCredential(token.token)
    chat = Used(ChatClient(endpoint, credential, **verify), seen)
    invited = [ChatParticipant(identifier=bob, display_name="Bob"), ChatParticipant(identifier=STRANGER)]
    created = chat.create_chat_thread("topic", thread_participants=invited, idempotency_token=GUID)
    again = chat.create_chat_thread("topic", thread_participants=invited, idempotency_token=GUID)
    assert created.chat_thread.id == again.chat_thread.id
    # Until 1.2.0 the SDK looks for the refused participants in a field that the service does not send.
    assert [error.code for _, error in created.errors or ()] == ["403"] * HAS_ERRORS
    assert [thread.id for thread in chat.list_chat_threads(results_per_page=1)] == [created.chat_thread.id]

    thread = Used(chat.get_chat_thread_client(created.chat_thread.id, **verify), seen)
    assert thread.thread_id == created.chat_thread.id
    _talk(thread, bob)
    bobs = ChatClient(endpoint, CommunicationTokenCredential(bobs_token.token), **verify)
    gone = bobs.get_chat_thread_client(created.chat_thread.id, **verify)
    assert refused(HttpResponseError, lambda: gone.send_message("I am gone")).status_code == 403

    chat.delete_chat_thread(created.chat_thread.id)
    refused(ResourceNotFoundError, thread.get_properties)
    identity.revoke_tokens(ann)
    refused(ClientAuthenticationError, lambda: list(chat.list_chat_threads()))
    identity.delete_user(ann)
    for client in (thread, chat, bobs):
        client.close()
    return public(*CLASSES) - seen - {"from_connection_string"}


def _talk(thread: Any, bob: CommunicationUserIdentifier) -> None:
    def metadata(**values: str) -> dict[str, Any]:
        return {} if IS_FIRST else {"metadata": values}

    sent = [
        thread.send_message(str(number), sender_display_name="Ann", **metadata(n=str(number))) for number in range(3)
    ]
    html = thread.send_message("<b>hi</b>", chat_message_type="html")
    thread.update_message(sent[0].id, content="edited", **metadata(more="yes"))
    thread.delete_message(sent[1].id)
    edited = thread.get_message(sent[0].id)
    assert edited.content.message == "edited"
    assert IS_FIRST or edited.metadata == {"n": "0", "more": "yes"}
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
    thread.send_typing_notification(**({} if IS_FIRST else {"sender_display_name": "Ann"}))
    assert thread.add_participants([ChatParticipant(identifier=bob)]) == []
    assert len(list(thread.list_participants(results_per_page=1))) == 2
    thread.remove_participant(bob)
    assert len(list(thread.list_participants())) == 1


if __name__ == "__main__":
    print(json.dumps(sorted(unused(*sys.argv[1:]))))
