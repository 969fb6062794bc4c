"""Somebody in a fake event stream: what they do are events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from chatbot.errors import StateError
from chatbot.events import (
    MessageDeleted,
    MessageEdited,
    MessageReceived,
    ParticipantsAdded,
    ParticipantsRemoved,
    ReadReceiptReceived,
    TopicUpdated,
)
from chatbot.model import Attachment, ChatMessage, MessageId, MessageType, Participant, Receipt, UserId, milliseconds

if TYPE_CHECKING:
    from chatbot.testing.event_stream import EventStream


class Author:
    """A person or a bot in the stream's thread; made by `EventStream.user`, `sibling` and `itself`."""

    def __init__(self, stream: EventStream, participant: Participant) -> None:
        self.participant = participant
        self._stream = stream
        self._last: ChatMessage | None = None

    @property
    def user(self) -> UserId:
        """Who it is."""
        return self.participant.user

    def said(
        self,
        text: str = "",
        *,
        html: str | None = None,
        attachments: tuple[Attachment, ...] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> MessageReceived:
        """They say something, as plain text or as html."""
        now = self._stream.tick()
        self._last = ChatMessage(
            id=MessageId(str(milliseconds(now))),
            version=milliseconds(now),
            type=MessageType.TEXT if html is None else MessageType.HTML,
            content=text if html is None else html,
            created_on=now,
            sender=self.user,
            sender_display_name=self.participant.display_name,
            attachments=attachments,
            metadata=metadata or {},
        )
        return MessageReceived(message=self._last, **self._stream.place(now))

    def edited(self, content: str) -> MessageEdited:
        """They replace the content of what they said last."""
        now = self._stream.tick()
        self._last = replace(self._latest("edit"), content=content, version=milliseconds(now), edited_on=now)
        return MessageEdited(message=self._last, **self._stream.place(now))

    def deleted(self) -> MessageDeleted:
        """They take back what they said last."""
        now = self._stream.tick()
        gone = replace(self._latest("delete"), content="", version=milliseconds(now), edited_on=None, deleted_on=now)
        self._last = None
        return MessageDeleted(message=gone, **self._stream.place(now))

    def joined(self, *others: Author) -> ParticipantsAdded:
        """They come into the thread, alone or together with others."""
        now, people = self._stream.tick(), tuple(one.participant for one in (self, *others))
        message = replace(self._system_message(now, MessageType.PARTICIPANT_ADDED), participants=people)
        return ParticipantsAdded(message=message, participants=people, initiator=self.user, **self._stream.place(now))

    def left(self, *others: Author) -> ParticipantsRemoved:
        """They leave the thread, alone or together with others."""
        now, people = self._stream.tick(), tuple(one.participant for one in (self, *others))
        message = replace(self._system_message(now, MessageType.PARTICIPANT_REMOVED), participants=people)
        return ParticipantsRemoved(message=message, participants=people, initiator=self.user, **self._stream.place(now))

    def renamed(self, topic: str) -> TopicUpdated:
        """They give the thread another topic."""
        now = self._stream.tick()
        message = replace(self._system_message(now, MessageType.TOPIC_UPDATED), topic=topic)
        return TopicUpdated(message=message, topic=topic, initiator=self.user, **self._stream.place(now))

    def read(self, message: MessageId) -> ReadReceiptReceived:
        """They have read up to this message."""
        now = self._stream.tick()
        return ReadReceiptReceived(receipt=Receipt(self.user, message, now), **self._stream.place(now))

    def _latest(self, verb: str) -> ChatMessage:
        if self._last is None:
            msg = f"{self.participant.display_name} has said nothing to {verb}; put a said(…) before it"
            raise StateError(msg)
        return self._last

    def _system_message(self, now: datetime, type: MessageType) -> ChatMessage:
        return ChatMessage(
            id=MessageId(str(milliseconds(now))),
            version=milliseconds(now),
            type=type,
            created_on=now,
            initiator=self.user,
        )
