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

from chatbot.emulator import Quirks

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


def sessions(*, since_2024: bool = False) -> list[Session]:
    """All recorded sessions of 2021 to 2023, or all later ones."""
    return [
        Session(document["session"], document["exchanges"])
        for path in sorted(RECORDINGS.glob("*.jsonl"))
        if (path.stem == "recent") is since_2024
        for document in map(json.loads, path.read_text().splitlines())
    ]


_EARLY = {"hsts": "month", "thread_ids": "short"}
_SHORT = {"thread_ids": "short"}
_PPE = {"location_host": "global", "edge_headers": True}
_INT = {"hsts": "year-spaced", "edge_headers": True}

_OLD = {**_EARLY, "edited_sequence": "next", "removal_activity": "moved", "removed_removal": "forbidden"}

DATES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("java/history", _OLD),
    ("js/history", _OLD),
    ("js/chat_2022-10", _OLD),
    ("python/history", _OLD),
    ("python/chat_api-2021", _OLD),
    ("java/2023-11/", _EARLY),
    ("cli/2023-12", {**_EARLY, "removed_removal": "forbidden", "identity_vector": "2.0"}),
    ("net/2024-01/", {**_EARLY, "edge_headers": True}),
    ("js/2024-02", _EARLY),
    ("python/2024-02", _EARLY),
    ("js/2024-03-01", {**_SHORT, "retention_none": "omitted", "edge_headers": True}),
    ("js/2024-03-19", _SHORT),
    ("net/2024-03/Thread", {**_SHORT, **_INT}),
    ("net/2024-03/ReadReceipt", {**_SHORT, **_INT, "edge_headers": False}),
    ("cli/2024-04-01", {**_SHORT, "identity_vector": "2.0"}),
    ("js/2024-04-02/node_recording_successfully_deletes", {**_SHORT, **_INT}),
    ("js/2024-04-02", {**_SHORT, **_INT, "edge_headers": False}),
    ("js/2024-04-04", _SHORT),
    ("cli/2024-04-22", _SHORT),
    ("js/2024-06", {**_SHORT, "mise_correlation": True}),
    ("net-identity/2025-04", {"edge_headers": True}),
    ("js-identity/2025-04", {"edge_headers": True}),
    ("java/2025-06", {**_INT, "stampless_seconds": 3}),
    ("net/2025-06", _PPE),
    ("js/2025-06", _PPE),
)
"""The quirks under which the sessions of a date are replayed; the rest are the defaults."""


def quirks_of(session: Session) -> Quirks:
    """The quirk set of a session's date."""
    for prefix, values in DATES:
        if session.name.startswith(prefix):
            return Quirks(**values)
    msg = f"no quirk set for {session.name}"
    raise LookupError(msg)


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
