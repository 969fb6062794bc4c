"""The SDK's synchronous clients in this process against a running daemon and its emulator, over https."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from azure.communication.chat import (
    ChatClient,
    ChatParticipant,
    ChatThreadClient,
    CommunicationTokenCredential,
    CommunicationUserIdentifier,
)
from azure.communication.identity import CommunicationIdentityClient
from azure.core.pipeline.transport import RequestsTransport

from tests.cli.conftest import PATIENCE, Demo

T = TypeVar("T")


@dataclass(frozen=True)
class Person:
    """A person with a thread of their own, in which the echo bot is."""

    thread: ChatThreadClient
    bot: str

    def replies(self) -> list[str]:
        """What the bot has said, oldest first."""
        messages = [one for one in self.thread.list_messages() if one.sender and one.sender.raw_id == self.bot]
        return [one.content.message for one in sorted(messages, key=lambda one: int(one.id))]


@pytest.fixture
def ann(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    """Someone who knows nothing of chatbot but the connection string and the certificate."""
    started = demo.bots.event("emulator.started")
    published = json.loads((demo.directory / ".chatbot" / "run.json").read_text())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", started["ca_file"])
    bot = demo.bots.event("bot.started", bot="echo")["user_id"]
    with RequestsTransport() as transport:  # the identity client cannot be closed; its transport can
        identities = CommunicationIdentityClient.from_connection_string(
            published["connection_string"], transport=transport
        )
        user = identities.create_user()
        token = identities.get_token(user, ["chat"]).token
    with ChatClient(started["endpoint"], CommunicationTokenCredential(token)) as client:
        me = ChatParticipant(identifier=user, display_name="Ann", share_history_time=datetime.now(UTC))
        created = client.create_chat_thread("Hello", thread_participants=[me])
        assert created.chat_thread is not None
        with client.get_chat_thread_client(created.chat_thread.id) as thread:
            yield Person(thread, bot)


def eventually(look: Callable[[], T], is_right: Callable[[T], bool]) -> T:
    """Look until it is right."""
    deadline = time.monotonic() + PATIENCE
    while not is_right(seen := look()):
        assert time.monotonic() < deadline, f"it does not become right; seen last: {seen!r}"
        time.sleep(0.2)
    return seen


def test_another_user_adds_the_bot_and_gets_replies(ann: Person) -> None:
    failed = ann.thread.add_participants(
        [ChatParticipant(identifier=CommunicationUserIdentifier(ann.bot), display_name="Echo")]
    )
    assert failed == []

    text = ann.thread.send_message("hello").id
    eventually(ann.replies, lambda replies: replies == ["hello"])
    html = ann.thread.send_message("<b>bold</b> &amp; more", chat_message_type="html").id
    eventually(ann.replies, lambda replies: replies == ["hello", "bold & more"])
    ann.thread.update_message(text, content="changed")
    ann.thread.delete_message(html)
    last = ann.thread.send_message("last").id

    eventually(ann.replies, lambda replies: replies == ["hello", "bold & more", "last"])
    read = eventually(
        lambda: {one.sender.raw_id: one.chat_message_id for one in ann.thread.list_read_receipts()},
        lambda receipts: receipts.get(ann.bot) == last,
    )
    assert set(read) == {ann.bot}


def test_a_bot_that_is_taken_out_is_silent_and_answers_again_when_it_is_back(ann: Person) -> None:
    echo = ChatParticipant(identifier=CommunicationUserIdentifier(ann.bot), display_name="Echo")
    ann.thread.add_participants([echo])
    ann.thread.send_message("one")
    eventually(ann.replies, lambda replies: replies == ["one"])

    ann.thread.remove_participant(CommunicationUserIdentifier(ann.bot))
    ann.thread.send_message("to nobody")
    ann.thread.add_participants([echo])
    ann.thread.send_message("two")

    eventually(ann.replies, lambda replies: "two" in replies)
    assert ann.replies() == ["one", "two"]
