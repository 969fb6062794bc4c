"""What handlers want done: frozen wishes, carried out later by the outbox, each under its key.

A wish names its thread only when that is not the thread of the event that caused it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NewType

from chatbot.model import MessageId, Participant, ThreadId, UserId

ActionKey = NewType("ActionKey", str)
"""What makes a wish one and the same over retries and restarts: see `action_key`."""


def action_key(
    bot: UserId, thread: ThreadId | None, event_key: str, handler: str, ordinal: int, part: int = 0
) -> ActionKey:
    """The key of one wish: equal for every attempt of the same handler at the same event, and for nothing else.

    Args:
        bot: the bot's own user.
        thread: the event's thread; None for events of the bot itself.
        event_key: `Event.key`.
        handler: the handler's qualified name.
        ordinal: how many wishes this handler had before, for this event.
        part: which piece of an over-long message, from 0.
    """
    parts = (bot, thread or "", event_key, handler, str(ordinal), str(part))
    framed = b"".join(len(text.encode()).to_bytes(4, "big") + text.encode() for text in parts)
    # The letter in front tells a key from a message id, which is decimal.
    return ActionKey("k" + hashlib.blake2b(framed, digest_size=16).hexdigest())


APOLOGY: Final = "Sorry, something went wrong on my side, so I could not do that. Please try again in a while."
"""What a person is told when all tries to handle their message have failed, unless bots.yaml says otherwise."""

_HIGH_HALF: Final = ("\ud800", "\udbff")


def expect_text(value: object, what: str) -> str:
    """Return what a handler gives as a text, which has no methods of a plugin any more: it is used outside of the
    guarded step, too.

    Args:
        value: what it gives.
        what: what takes it, for the message: `reply()`.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(value, str):
        msg = f"{what} takes a text, not {type(value).__name__}"
        raise TypeError(msg)
    return value if type(value) is str else str.__str__(value)


def expect_identifier(value: object, what: str) -> str:
    """Return what a handler gives as a key, an id or metadata: it is compared, so nothing in it is replaced.

    Raises:
        TypeError: it is no text.
        ValueError: it has half of a surrogate pair.
    """
    text = expect_text(value, what)
    if not is_whole(text):
        msg = f"{what} got a text with half of a surrogate pair, which has no UTF-8 form; remove it"
        raise ValueError(msg)
    return text


def is_whole(text: str) -> bool:
    """Return whether a text has no half of a surrogate pair, so that it can be encoded."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(text: str, whose: str) -> str:
    """Return a text as people can read it: halves of an emoji that meet are joined, one that is alone becomes U+FFFD.

    A long answer is not lost for half an emoji. What was replaced is said in the log, without the text.

    Args:
        text: what a handler says.
        whose: the handler's name.
    """
    if is_whole(text):
        return text
    units = text.encode("utf-16-le", "surrogatepass")
    whole = units.decode("utf-16-le", "replace")
    if whole.encode("utf-16-le") != units:
        import structlog  # here, because only who logs shall pay for it

        structlog.get_logger("chatbot").warning("text.repaired", handler=whose, replaced="half of a surrogate pair")
    return whole


async def readable_pieces(source: AsyncIterable[str], whose: str) -> AsyncIterator[str]:
    """Yield the pieces of a text as people can read them: an emoji whose halves come in two pieces comes in one.

    Raises:
        TypeError: a piece is no text.
    """
    half = ""
    async for piece in source:
        text, half = half + expect_text(piece, "stream()"), ""
        if text and _HIGH_HALF[0] <= text[-1] <= _HIGH_HALF[1]:
            text, half = text[:-1], text[-1]
        if text:
            yield readable(text, whose)
    if half:
        yield readable(half, whose)


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do in a thread; the base of all wishes."""


@dataclass(frozen=True, slots=True)
class SendMessage(Action):
    """Say something.

    Args:
        content: text or html; at most about 28 KB, longer text is split.
        type: how `content` is to be read.
        thread: where; None is the thread of the event.
        display_name: the name to show; None is the bot's own.
        metadata: text by text; keys under `chatbot.` are refused.
    """

    content: str
    type: Literal["text", "html"] = "text"
    thread: ThreadId | None = None
    display_name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class EditMessage(Action):
    """Replace the content of an own message: one on the service, or one still to be sent under a key."""

    message: MessageId | ActionKey
    content: str
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True)
class DeleteMessage(Action):
    """Take an own message back: one on the service, or one still to be sent under a key."""

    message: MessageId | ActionKey
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True)
class SendReadReceipt(Action):
    """Tell the people in the thread that the bot has read up to this message."""

    message: MessageId
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True)
class AddParticipants(Action):
    """Bring people into the thread."""

    participants: tuple[Participant, ...]
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True)
class RemoveParticipant(Action):
    """Take someone out of the thread; the bot itself to leave it."""

    user: UserId
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True)
class UpdateTopic(Action):
    """Give the thread another topic."""

    topic: str
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True)
class KeyedAction:
    """An action together with the key under which it is done once.

    Args:
        key: what it is done under.
        action: what is to be done.
        pieces: of an edit or a deletion, in how many messages its target was sent.
    """

    key: ActionKey
    action: Action
    pieces: int = 1


def piece_key(key: ActionKey, number: int) -> ActionKey:
    """Return the key of a piece of a message that was sent in several, from 0."""
    return ActionKey(f"{key}.{number}") if number else key


def removal_key(key: ActionKey, number: int) -> ActionKey:
    """Return the key under which a piece is deleted: that there is such a row says that the piece is gone."""
    return ActionKey(f"{piece_key(key, number)}.gone")
