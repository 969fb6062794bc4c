"""Messages of a thread: send, read, list, edit, delete; and the sanitizer of html.

Ids and versions come from one rising counter per thread, `max(now, last + 1)`. Every change moves the message to the
front of the list, which descends by version. A deleted message stays as a tombstone. Sources: the recorded sessions of
the SDKs' live tests.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import nh3

from chatbot.emulator.errors import (
    ErrorResponse,
    bad_request,
    forbidden,
    message_not_found,
    refused,
    thread_not_found,
)
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.records import Listed, Message, MessageAttachment
from chatbot.emulator.state import ThreadContents, WorldState

_TEXT = {"a", "b", "br", "code", "del", "em", "i", "img", "s", "span", "strike", "strong", "sub", "sup", "u"}
_BLOCKS = {"blockquote", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "ul"}
_TABLES = {"table", "tbody", "td", "th", "thead", "tr"}
_SOCIAL = {"at", "emoji", "msft-at-mention", "msft-mention", "readonly"}
_ITEM = {"itemid", "itemprop", "itemscope", "itemtype"}
_ATTRIBUTES = {
    "a": {"href", "title"},
    "at": {"id"},
    "blockquote": _ITEM,
    "emoji": {"alt", "id", "title"},
    "img": {"alt", "height", "width", "id"} | _ITEM,
    "msft-at-mention": {"displayname", "userid"},
    "msft-mention": {"displaytext", "id"},
    "p": _ITEM,
    "readonly": _ITEM,
    "span": _ITEM,
    "strong": _ITEM,
    "td": {"colspan", "rowspan"},
}


def sanitize(html: str) -> str:
    """Return the HTML as the service would store it."""
    return nh3.clean(
        html,
        tags=_TEXT | _BLOCKS | _TABLES | _SOCIAL,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel=None,
    )


MAX_BYTES = 28 * 1024


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to send."""

    content: str
    type: str = "text"
    display_name: str = ""
    metadata: Mapping[str, str] | None = None
    attachments: Sequence[MessageAttachment] = ()


@dataclass(frozen=True, slots=True)
class MessageListPage:
    """A page of messages, newest version first, and the cursor values of the next one."""

    messages: list[Message]
    next: tuple[int, int] | None


class Messages:
    """The operations on messages; `stale_ms` delays when lists show a change (a fault)."""

    def __init__(self, state: WorldState, quirks: Quirks) -> None:
        self._state = state
        self.quirks = quirks
        self.stale_ms = 0

    def send(self, room: ThreadContents, sender: str, draft: Draft, now: int) -> Message:
        """Store a message of a participant."""
        self._writable(room, sender)
        if self.quirks.blank_content == "reject" and not draft.content.strip():
            raise bad_request()
        self._fits(draft.content, draft.metadata or {})
        text = sanitize(draft.content) if draft.type == "html" else draft.content
        return self.post(
            room,
            now,
            Message(
                thread=room.head.id,
                id=0,
                type=draft.type,
                sequence=0,
                version=0,
                text=text,
                sender=sender,
                display_name=draft.display_name,
                metadata=dict(draft.metadata or {}),
                attachments=_resolved(room, draft.attachments),
            ),
        )

    def announce(
        self,
        room: ThreadContents,
        kind: str,
        initiator: str,
        now: int,
        *,
        topic: str = "",
        people: tuple[Listed, ...] = (),
    ) -> Message:
        """Store a message of the service itself."""
        blank = Message(thread=room.head.id, id=0, type=kind, sequence=0, version=0, sender=initiator)
        return self.post(room, now, replace(blank, topic=topic, participants=people))

    def post(self, room: ThreadContents, now: int, message: Message) -> Message:
        """Assign id, version, sequence and activity to a new message, and store it."""
        number = self._next_version(room, now)
        while number in room.messages:
            number += 1
        posted = replace(
            message,
            id=number,
            version=number,
            sequence=room.sequence + 1,
            activity=self._activity(message, now),
            visible=now + self.stale_ms if self.stale_ms else 0,
        )
        self._state.put(posted)
        return posted

    def get(self, room: ThreadContents, reader: str, number: int) -> Message:
        """Return a message, which may be a tombstone or a system message."""
        low, high = self._window(room, reader)
        message = room.messages.get(number)
        if message is None or message.id < low or message.version > high:
            raise message_not_found()
        return message

    def edit(
        self,
        room: ThreadContents,
        editor: str,
        number: int,
        content: str | None,
        metadata: Mapping[str, str] | None,
        now: int,
        attachments: Sequence[MessageAttachment] | None = None,
    ) -> Message:
        """Replace the content and the attachments, merge the metadata; an empty value removes its key."""
        self._writable(room, editor)
        message = self._own(room, editor, number, self.quirks.edit_of_others)
        if message.deleted is not None:
            raise message_not_found() if self.quirks.edit_of_deleted == "not-found" else bad_request()
        merged = {**message.metadata, **(metadata or {})}
        merged = {key: value for key, value in merged.items() if value != "" or key not in (metadata or {})}
        text = message.text if content is None else content
        self._fits(text, merged)
        if content is not None and message.type == "html":
            text = sanitize(content)
        version = self._next_version(room, now)
        shown = message.attachments if attachments is None else _resolved(room, attachments)
        edited = replace(message, text=text, metadata=merged, edited=version, attachments=shown)
        return self._change(room, edited, version, now)

    def delete(self, room: ThreadContents, deleter: str, number: int, now: int) -> Message:
        """Replace a message with a tombstone: no content, `deletedOn`, no `editedOn`, a new version."""
        self._writable(room, deleter)
        message = self._own(room, deleter, number, self.quirks.delete_of_others)
        if message.deleted is not None:
            if self.quirks.delete_again == "not-found":
                raise message_not_found()
            return message
        version = self._next_version(room, now)
        metadata = message.metadata if self.quirks.tombstone_metadata == "keep" else {}
        tombstone = replace(message, text="", edited=None, deleted=version, metadata=metadata, attachments=())
        return self._change(room, tombstone, version, now)

    def page(
        self,
        room: ThreadContents,
        reader: str,
        size: int,
        now: int,
        *,
        start: int | None = None,
        cursor: tuple[int, int] | None = None,
    ) -> MessageListPage:
        """Return a page by descending version; it also contains changes made after the cursor was created."""
        low, high = self._window(room, reader)
        timeline = room.timeline if room.late <= now else self._visible_timeline(room, now)
        if start is None and cursor is None and not low and high >= room.version:
            rest = len(timeline) > size
            chosen = timeline[-1 : -size - 1 : -1]
        else:
            found = self._select(timeline, low, high, start, cursor)
            rest = len(found) > size
            chosen = found[:size]
        if not chosen:
            return MessageListPage([], None)
        if rest and self.quirks.equal_versions:
            chosen = self._with_equal_versions(chosen, timeline)
        newest = max(chosen[0].version, cursor[1] if cursor else 0)
        more = rest or (self.quirks.link_after_last and len(chosen) == size)
        last = chosen[-1].version
        if cursor is not None:
            last = min(last, cursor[0])
        return MessageListPage(chosen, (last, newest) if more else None)

    def _select(
        self, timeline: list[Message], low: int, high: int, start: int | None, cursor: tuple[int, int] | None
    ) -> list[Message]:
        first = 0
        by_version = self.quirks.start_time_field == "version"
        if start is not None and by_version:
            side = bisect_left if self.quirks.start_time == "inclusive" else bisect_right
            first = side(timeline, start, key=_version)
        found = timeline[first:]
        if start is not None and not by_version:
            least = start if self.quirks.start_time == "inclusive" else start + 1
            found = [message for message in found if message.id >= least]
        if low:
            found = [message for message in found if message.id >= low]
        if high < (timeline[-1].version if timeline else 0):
            found = [message for message in found if message.version <= high]
        if cursor is not None:
            last, newest = cursor
            found = [message for message in found if message.version < last or message.version > newest]
        found.reverse()
        return found

    @staticmethod
    def _with_equal_versions(chosen: list[Message], timeline: list[Message]) -> list[Message]:
        """Extend a page so that it does not end between equal versions, which a cursor cannot distinguish."""
        last = chosen[-1].version
        if sum(message.version == last for message in chosen) == sum(message.version == last for message in timeline):
            return chosen
        shorter = [message for message in chosen if message.version != last]
        return shorter or [message for message in reversed(timeline) if message.version == last]

    @staticmethod
    def _visible_timeline(room: ThreadContents, now: int) -> list[Message]:
        """Return the timeline of a stale read: without late messages and late changes."""
        room.pending_visibility = [(until, message) for until, message in room.pending_visibility if until > now]
        seen = [message for message in room.timeline if message.visible <= now]
        known = {message.id for message in seen}
        for _, message in room.pending_visibility:
            if message.id not in known and message.visible <= now:
                known.add(message.id)
                seen.append(message)
        return sorted(seen, key=lambda message: (message.version, message.id))

    def _window(self, room: ThreadContents, reader: str) -> tuple[int, int]:
        """Return the range of ids and versions that a reader may see: from the shared history to the removal."""
        member = room.members.get(reader)
        if member is None:
            raise forbidden()
        if room.head.deleted is not None and self.quirks.deleted_thread_messages == "not-found":
            raise thread_not_found()
        if member.removed is not None and self.quirks.removed_reads != "history":
            raise refused(self.quirks.removed_reads)
        low = member.share_history if member.share_history > room.head.created else 0
        return low, member.removed if member.removed is not None else room.version

    def _writable(self, room: ThreadContents, user: str) -> None:
        if room.member(user) is None:
            raise refused(self.quirks.removed_writes if user in room.members else "forbidden")
        if room.head.deleted is not None:
            raise refused(self.quirks.deleted_thread_writes)

    def _own(self, room: ThreadContents, user: str, number: int, others: str) -> Message:
        message = self.get(room, user, number)
        if message.is_system or (message.sender != user and others == "forbidden"):
            raise forbidden()
        return message

    def _next_version(self, room: ThreadContents, now: int) -> int:
        return max(now, room.version + (0 if self.quirks.equal_versions else 1))

    def _change(self, room: ThreadContents, message: Message, version: int, now: int) -> Message:
        changed = replace(
            message,
            version=version,
            sequence=room.sequence + 1 if self.quirks.edited_sequence == "next" else message.sequence,
            activity=self._state.next_activity(now) if self.quirks.activity != "messages" else message.activity,
            visible=now + self.stale_ms if self.stale_ms else 0,
        )
        self._state.put(changed)
        return changed

    def _activity(self, message: Message, now: int) -> int:
        """Return the activity by which a message moves its thread in lists; 0 if it does not."""
        if message.type == "participantRemoved" and self.quirks.removal_activity == "unmoved":
            return 0
        return self._state.next_activity(now)

    def _fits(self, content: str, metadata: Mapping[str, str]) -> None:
        extra = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
        cap = self.quirks.metadata_limit_bytes
        if (cap and extra > cap) or len(content.encode()) + extra > MAX_BYTES:
            code = "BadRequest" if self.quirks.too_large_status == 400 else "RequestEntityTooLarge"
            raise ErrorResponse(self.quirks.too_large_status, code, None)


def _version(message: Message) -> int:
    return message.version


def _resolved(room: ThreadContents, attachments: Sequence[MessageAttachment]) -> tuple[MessageAttachment, ...]:
    """The attachments as they are stored: images of the thread get their name, and paths to read them by."""
    stored: list[MessageAttachment] = []
    for attachment in attachments:
        image = room.images.get(attachment.id) if attachment.type == "image" else None
        if image is not None and not image.is_deleted:
            path = f"/chat/threads/{room.head.id}/images/{image.id}/views"
            name = attachment.name or image.name
            stored.append(replace(attachment, name=name, url=f"{path}/original", preview_url=f"{path}/small"))
        else:
            stored.append(attachment)
    return tuple(stored)
