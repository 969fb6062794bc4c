"""Conversion of records to events of the real-time channel: recipients and contents.

Values are strings, and what has a structure of its own is JSON within a string. The events of threads are read with
JavaScript's `unescape`, so that their percent signs are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from chatbot.emulator.cursors import precise_time
from chatbot.emulator.participants import MAX_RECEIPT_PEOPLE
from chatbot.emulator.records import Listed, Message, ReceiptEntry, Record, ThreadEntry, Typing
from chatbot.emulator.serialization import attachment_model
from chatbot.emulator.state import ThreadContents, WorldState

RECEIVED, EDITED, DELETED = 200, 247, 248
TYPING, READ = 245, 246
THREAD_CREATED, THREAD_UPDATED, THREAD_DELETED = 257, 258, 259
ADDED, REMOVED = 260, 261

_TYPES = {"text": "Text", "html": "RichText/Html"}


@dataclass(frozen=True, slots=True)
class Notification:
    """One event for one user."""

    recipient: str
    kind: int
    fields: dict[str, Any]


class Notifier:
    """Converts records to notifications; remembers the previous state of each thread."""

    def __init__(self, state: WorldState) -> None:
        self._state = state
        self.reset()

    def reset(self) -> None:
        """Take every thread as it is now for what it was before."""
        self._heads = {room.head.id: room.head for room in self._state.rooms.values()}

    def note(self, record: Record) -> None:
        """Record a thread without notifying anyone."""
        if isinstance(record, ThreadEntry):
            self._heads[record.id] = record

    def of(self, record: Record) -> list[Notification]:
        """Return the notifications of a record that was just stored."""
        match record:
            case Message():
                return self._message(self._state.rooms[record.thread], record)
            case ThreadEntry():
                return self._thread(record)
            case ReceiptEntry():
                return self._receipt(self._state.rooms[record.thread], record)
        return []

    def typing(self, typing: Typing) -> list[Notification]:
        """Return the notifications of a typing participant."""
        room = self._state.rooms[typing.thread]
        fields = {
            "senderId": typing.user,
            "senderDisplayName": typing.display_name,
            "groupId": typing.thread,
            "version": str(typing.at),
            "originalArrivalTime": precise_time(typing.at),
        }
        return [
            Notification(user, TYPING, {**fields, "recipientMri": user})
            for user in _present(room)
            if len(room.present()) <= MAX_RECEIPT_PEOPLE
        ]

    def _message(self, room: ThreadContents, message: Message) -> list[Notification]:
        if not message.is_system:
            return self._message_sent(room, message)
        if message.type == "topicUpdated":
            return [] if message.sequence <= 2 else self._updated(room, message.sender, message.version)
        if message.type == "participantRemoved":
            gone = [person.user for person in message.participants]
            return self._participants_changed(
                room, message, REMOVED, "removedBy", "participantsRemoved", [*_present(room), *gone]
            )
        created = self._created(room, message)
        if message.sequence == 1:
            return created
        return created + self._participants_changed(
            room, message, ADDED, "addedBy", "participantsAdded", _present(room)
        )

    def _message_sent(self, room: ThreadContents, message: Message) -> list[Notification]:
        kind, extra = RECEIVED, {}
        body = {
            "messageBody": message.text,
            "acsChatMessageMetadata": json.dumps(dict(message.metadata)) if message.metadata else "",
            "attachments": json.dumps([attachment_model(attachment, "", "") for attachment in message.attachments]),
        }
        if message.deleted is not None:
            kind, extra, body = DELETED, {"deletetime": precise_time(message.deleted)}, {}
        elif message.edited is not None:
            kind, extra = EDITED, {"edittime": precise_time(message.edited)}
        fields = {
            "senderId": message.sender,
            "senderDisplayName": message.display_name,
            "groupId": room.head.id,
            "messageId": str(message.id),
            "clientMessageId": "",
            "messageType": _TYPES.get(message.type, message.type),
            "version": str(message.version),
            "originalArrivalTime": precise_time(message.id),
            **body,
            **extra,
        }
        return [Notification(user, kind, {**fields, "recipientMri": user}) for user in _present(room)]

    def _receipt(self, room: ThreadContents, receipt: ReceiptEntry) -> list[Notification]:
        """Return notifications for everyone except the reader, whom the service does not notify."""
        people = _present(room)
        if len(people) > MAX_RECEIPT_PEOPLE:
            return []
        horizon = f"{receipt.message};{receipt.read};{receipt.message}"
        body = {
            "user": receipt.user,
            "consumptionhorizon": horizon,
            "messageVisibilityTime": room.head.created,
            "version": str(receipt.read),
        }
        fields = {
            "senderId": receipt.user,
            "groupId": receipt.thread,
            "messageId": str(receipt.message),
            "clientMessageId": "",
            "messageBody": json.dumps(body),
        }
        return [Notification(user, READ, {**fields, "recipientMri": user}) for user in people if user != receipt.user]

    def _thread(self, head: ThreadEntry) -> list[Notification]:
        before = self._heads.get(head.id)
        self._heads[head.id] = head
        if before is None:
            return []
        room = self._state.rooms[head.id]
        if head.deleted is not None and before.deleted is None:
            return self._ended(room, head)
        is_changed = (head.metadata, head.retention_days) != (before.metadata, before.retention_days)
        if is_changed and head.topic == before.topic:
            return self._updated(room, head.changed_by, room.version)
        return []

    def _created(self, room: ThreadContents, message: Message) -> list[Notification]:
        """Return notifications of the thread for its new participants."""
        head = room.head
        fields = {
            "threadId": head.id,
            "version": str(message.version),
            "createTime": precise_time(head.created),
            "createdBy": self._person(room, head.creator),
            "members": self._people(
                room, (Listed(member.user, member.display_name, member.share_history) for member in room.present())
            ),
            "properties": self._properties(head),
        }
        return _to([person.user for person in message.participants], THREAD_CREATED, fields)

    def _updated(self, room: ThreadContents, editor: str, version: int) -> list[Notification]:
        fields = {
            "threadId": room.head.id,
            "version": str(version),
            "editTime": precise_time(version),
            "editedBy": self._person(room, editor),
            "properties": self._properties(room.head),
        }
        return _to(_present(room), THREAD_UPDATED, fields)

    def _ended(self, room: ThreadContents, head: ThreadEntry) -> list[Notification]:
        deleted = head.deleted or 0
        fields = {
            "threadId": head.id,
            "version": str(deleted),
            "deleteTime": precise_time(deleted),
            "deletedBy": self._person(room, head.changed_by or head.creator),
            "reason": "deletedByUser" if head.changed_by else "deletedByPolicy",
        }
        return _to(_present(room), THREAD_DELETED, fields)

    def _participants_changed(
        self, room: ThreadContents, message: Message, kind: int, by: str, people: str, recipients: Sequence[str]
    ) -> list[Notification]:
        fields = {
            "threadId": room.head.id,
            "version": str(message.version),
            "time": precise_time(message.version),
            by: self._person(room, message.sender),
            people: self._people(room, message.participants),
        }
        return _to(dict.fromkeys(recipients), kind, fields)

    def _person(self, room: ThreadContents, user: str) -> str:
        member = room.members.get(user)
        name = (member and member.display_name) or ""
        return _escaped({"participantId": user, "displayName": name, **_metadata(room, user)})

    @staticmethod
    def _people(room: ThreadContents, people: Iterable[Listed]) -> str:
        return _escaped(
            [
                {
                    "participantId": person.user,
                    "displayName": person.display_name or "",
                    "shareHistoryTime": precise_time(person.share_history),
                    **_metadata(room, person.user),
                }
                for person in people
            ]
        )

    @staticmethod
    def _properties(head: ThreadEntry) -> str:
        properties: dict[str, str] = {"topic": head.topic}
        if head.metadata:
            properties["acsChatThreadMetadata"] = json.dumps(dict(head.metadata), ensure_ascii=False)
        if head.retention_days:
            properties["retentionPolicy"] = json.dumps(
                {
                    "retentionPolicyType": "DeleteAfterCreationTime",
                    "executeAfter": f"{head.retention_days}.00:00:00",
                }
            )
        return _escaped(properties)


def _present(room: ThreadContents) -> list[str]:
    return [member.user for member in room.present()]


def _metadata(room: ThreadContents, user: str) -> dict[str, str]:
    """The metadata of a participant, which the service's messages leave out and the events have."""
    member = room.members.get(user)
    if member is None or not member.metadata:
        return {}
    return {"memberMetaData": json.dumps(dict(member.metadata), ensure_ascii=False)}


def _to(people: Iterable[str], kind: int, fields: dict[str, Any]) -> list[Notification]:
    return [Notification(user, kind, fields) for user in people]


def _escaped(value: object) -> str:
    """JSON that survives JavaScript's `unescape`, which would read other text than ASCII wrongly if it were escaped."""
    return json.dumps(value, ensure_ascii=False).replace("%", "%25")
