"""Turn messages that a poll has read into events. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from chatbot.events import (
    MessageDeleted,
    MessageEdited,
    MessageReceived,
    ParticipantsAdded,
    ParticipantsRemoved,
    ThreadEvent,
    TopicUpdated,
)
from chatbot.model import ChatMessage, MessageType, ThreadId, UserId
from chatbot.polling.cursor import Change


def time_of(milliseconds: int) -> datetime:
    """Return the UTC time of epoch milliseconds."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def names_user(message: ChatMessage, type: MessageType, user: UserId) -> bool:
    """Return whether this is a system message of that type about this user."""
    return message.type is type and any(person.user == user for person in message.participants)


def event_of(change: Change, message: ChatMessage, *, bot: UserId, thread: ThreadId) -> ThreadEvent | None:
    """Return the event of a change; None for the bot's own messages and for its own joining."""
    if change is Change.RECEIVED:
        return _received(message, bot, thread)
    if change not in (Change.EDITED, Change.DELETED) or message.sender == bot or not message.is_said:
        return None
    kind = MessageEdited if change is Change.EDITED else MessageDeleted
    return kind(bot=bot, thread=thread, occurred_on=time_of(message.version), message=message)


def _received(message: ChatMessage, bot: UserId, thread: ThreadId) -> ThreadEvent | None:
    occurred_on = time_of(message.number)
    if message.is_said:
        if message.sender == bot:
            return None
        return MessageReceived(bot=bot, thread=thread, occurred_on=occurred_on, message=message)
    if message.type is MessageType.TOPIC_UPDATED:
        return TopicUpdated(
            bot=bot,
            thread=thread,
            occurred_on=occurred_on,
            message=message,
            topic=message.topic or "",
            initiator=message.initiator,
        )
    return _participants_changed(message, bot, thread)


def _participants_changed(message: ChatMessage, bot: UserId, thread: ThreadId) -> ThreadEvent | None:
    if message.type is MessageType.PARTICIPANT_ADDED:
        kind: type[ParticipantsAdded | ParticipantsRemoved] = ParticipantsAdded
    elif message.type is MessageType.PARTICIPANT_REMOVED:
        kind = ParticipantsRemoved
    else:
        return None
    others = tuple(person for person in message.participants if person.user != bot)
    if not others:
        return None
    return kind(
        bot=bot,
        thread=thread,
        occurred_on=time_of(message.number),
        message=message,
        participants=others,
        initiator=message.initiator,
    )
