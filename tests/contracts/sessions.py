"""The recorded sessions of the real service, and the stories that sessions are cut out of."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings"
HIDDEN = {"sanitized", "REDACTED", "Sanitized", "redacted"}

ID = re.compile(r"8:acs:[0-9a-f\-]{36}_[0-9a-f\-]+|19:[\w\-]+@thread\.v2|\b\d{13}\b")


@dataclass
class Session:
    """A recorded session."""

    name: str
    exchanges: list[dict[str, Any]]

    @property
    def thread(self) -> str | None:
        """The thread a session is about, if the recording shows it."""
        for exchange in self.exchanges:
            for text in (exchange["uri"], json.dumps(exchange["response"])):
                match = re.search(r"19:[\w\-]+@thread\.v2", urllib.parse.unquote(text))
                if match:
                    return match[0]
        return None


def sessions() -> list[Session]:
    """All recorded sessions."""
    return [
        Session(document["session"], document["exchanges"])
        for path in sorted(RECORDINGS.glob("*.jsonl"))
        for document in map(json.loads, path.read_text().splitlines())
    ]


# The order of the JavaScript suite, whose sessions are cut out of one story each: later tests use the thread, message
# and participants of earlier ones.
STORY = (
    "initializes_chatthreadclient",
    "creates_a_thread",
    "gets_the_thread_properties",
    "updates_the_thread_topic",
    "updates_the_thread_metadata",
    "sends_a_message",
    "retrieves_a_message",
    "lists_messages",
    "sends_typing",
    "sends_read_receipt",
    "lists_read_receipts",
    "adds_participants",
    "lists_participants",
    "remove_a_participant",
    "deletes_a_message",
    "deletes_a_thread",
)


def stories() -> Iterator[list[Session]]:
    """Sessions that share a thread, in the order in which they happened; every other session alone."""
    shared: dict[str, list[Session]] = defaultdict(list)
    for session in sessions():
        thread = session.thread
        if session.name.startswith("js/") and thread:
            shared[thread].append(session)
        else:
            yield [session]
    for group in shared.values():
        yield sorted(group, key=lambda session: step(session.name))


def step(name: str) -> int:
    """A session's place in the story."""
    return next((number for number, part in enumerate(STORY) if part in name), 0)
