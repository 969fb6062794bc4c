"""A view of the emulator's threads, kept up to date from its changes, and what the page is shown of it.

It is built when the first page connects and dropped with the last one, so that nobody pays for a page that is not open.
"""

from __future__ import annotations

import html
from bisect import insort
from collections.abc import Iterator
from typing import Any, Final

import nh3

Json = dict[str, Any]

SYSTEM_TYPES: Final = frozenset({"topicUpdated", "participantAdded", "participantRemoved"})
PREVIEW: Final = 120
PAGE: Final = 400
"""Messages in one frame."""

TIMELINE_MS: Final = 120_000
"""How far back the timeline of a bot goes."""

_TAGS: Final = {
    "a", "b", "blockquote", "br", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "ins",
    "li", "ol", "p", "pre", "s", "span", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "u", "ul",
}  # fmt: skip


def shown_html(content: str) -> str:
    """Return html of a message without anything that could act, load or look like a part of the page."""
    return nh3.clean(
        content,
        tags=_TAGS,
        attributes={"a": {"href"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


class ThreadView:
    """One thread."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.head: Json = {}
        self.members: dict[str, Json] = {}
        self.messages: dict[int, Json] = {}
        self.order: list[int] = []
        self.receipts: dict[str, Json] = {}

    def present(self) -> list[Json]:
        """Return the current participants, in the order in which they joined."""
        return [member for member in self.members.values() if member.get("removed") is None]

    def put_message(self, message: Json) -> None:
        """Add a message, or replace its earlier version."""
        number = int(message["id"])
        if number not in self.messages:
            insort(self.order, number)
        self.messages[number] = message

    def unread(self, user: str) -> int:
        """Return how many messages of others follow the last one that a person has read."""
        read = int(self.receipts.get(user, {}).get("message", 0))
        joined = int(self.members.get(user, {}).get("joined", 0))
        count = 0
        for number in reversed(self.order):
            message = self.messages[number]
            if number <= read or number < joined:
                break
            is_said = message["type"] not in SYSTEM_TYPES and message.get("deleted") is None
            count += is_said and message.get("sender") != user
        return count

    def summary(self, user: str) -> Json:
        """Return the entry of the list of threads, for a person."""
        last = next(
            (
                self.messages[number]
                for number in reversed(self.order)
                if self.messages[number]["type"] not in SYSTEM_TYPES
            ),
            None,
        )
        return {
            "id": self.id,
            "topic": self.head.get("topic", ""),
            "deleted": self.head.get("deleted") is not None,
            "participants": [
                {"user": member["user"], "name": member.get("display_name") or ""} for member in self.present()
            ],
            "receipts": {who: receipt["message"] for who, receipt in self.receipts.items()},
            "last": "" if last is None or last.get("deleted") is not None else _plain(last)[:PREVIEW],
            "last_name": "" if last is None else last.get("display_name", ""),
            "at": self.order[-1] if self.order else self.head.get("created", 0),
            "count": len(self.order),
            "unread": self.unread(user) if user in self.members else 0,
            "is_in": self.members.get(user, {}).get("removed", user not in self.members or None) is None,
        }


class ThreadViews:
    """All threads, and the names that people and bots have there."""

    def __init__(self) -> None:
        self.threads: dict[str, ThreadView] = {}
        self.names: dict[str, str] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.threads.clear()
        self.names.clear()

    def load(self, answer: Json) -> None:
        """Take a thread from an answer of the control API."""
        self.apply("thread", answer["thread"])
        for kind, key in (("member", "participants"), ("message", "messages"), ("receipt", "receipts")):
            for record in answer[key]:
                self.apply(kind, record)

    def apply(self, kind: str, record: Json) -> ThreadView | None:
        """Apply a change; return the thread that it is in."""
        if kind == "thread":
            known = self.threads.setdefault(record["id"], ThreadView(record["id"]))
            known.head = record
            return known
        thread = self.threads.get(record.get("thread", ""))
        if thread is None:
            return None
        match kind:
            case "member":
                thread.members[record["user"]] = record
                self._learn(record["user"], record.get("display_name"))
            case "message":
                thread.put_message(record)
                self._learn(record.get("sender"), record.get("display_name"))
                for listed in record.get("participants", ()):
                    self._learn(listed["user"], listed.get("display_name"))
            case "receipt":
                thread.receipts[record["user"]] = record
        return thread

    def pages(self, thread: ThreadView) -> Iterator[list[Json]]:
        """Yield the messages of a thread in pages, the newest page first; each page is in order."""
        numbers = list(thread.order)
        for end in range(len(numbers), 0, -PAGE):
            yield [shown(thread.messages[number]) for number in numbers[max(0, end - PAGE) : end]]

    def _learn(self, user: str | None, name: str | None) -> None:
        if user and name:
            self.names[user] = name


def shown(message: Json) -> Json:
    """Return a message as the page gets it: ids as text, since they exceed what JavaScript counts; html as is safe."""
    found = {key: value for key, value in message.items() if key not in ("thread", "activity", "visible")}
    found["id"], found["version"] = str(message["id"]), str(message["version"])
    if message["type"] == "html":
        found["html"] = shown_html(message.get("text", ""))
    return found


def with_images(content: str, type: str, attachments: list[Json]) -> Json:
    """Return content and type of a message with attachments: html in which each image has its place.

    This is how Microsoft's own front end sends images. A message without images stays as it is.
    """
    images = [attachment for attachment in attachments if attachment.get("attachmentType") == "image"]
    if not images:
        return {"content": content, "type": type}
    text = content if type == "html" else "".join(f"<p>{html.escape(line)}</p>" for line in content.splitlines())
    places = "".join(f'<p><img alt="image" src="" id="{html.escape(str(image["id"]))}"></p>' for image in images)
    return {"content": text + places, "type": "html"}


def _plain(message: Json) -> str:
    text: str = message.get("text", "")
    if message["type"] == "html":
        text = html.unescape(nh3.clean(text, tags=set()))
    return " ".join(text.split()) or ", ".join(one["name"] or one["type"] for one in message.get("attachments", ()))


def attempts_of(stories: list[Json], now: float) -> list[Json]:
    """Return the attempts of the last minutes, for the timeline; an attempt without `seconds` still runs."""
    runs: list[Json] = []
    for story in stories:
        run: Json = {}
        for step in story["steps"]:
            if step["kind"] == "attempt":
                run = {key: story.get(key) for key in ("id", "bot", "thread", "message", "event", "handler")}
                run |= {"text": story.get("text", "")[:80], "seconds": step.get("seconds"), "failed": False}
                run["ago_ms"] = round(now - story["began_ms"] - step["at"])
                if run["ago_ms"] < TIMELINE_MS:
                    runs.append(run)
            elif step["kind"] == "handler" and step.get("error"):
                run["failed"] = True
    return runs
