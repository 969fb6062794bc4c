"""Actions of handlers: frozen values, carried out later by the outbox, each under its key.

An action names its thread only if that is not the thread of the event that caused it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NewType, TypeVar

from chatbot.message_size import MAX_TEXT_BYTES
from chatbot.model import MessageId, Participant, ThreadId, UserId, Value

T = TypeVar("T")

ActionKey = NewType("ActionKey", str)
"""The idempotency key of an action, equal in all retries and after restarts; see `action_key`."""


def action_key(
    bot: UserId, thread: ThreadId | None, event_key: str, handler: str, ordinal: int, part: int = 0
) -> ActionKey:
    """Return the key of an action: equal for every attempt of the same handler at the same event, and otherwise unique.

    Args:
        bot: the bot's own user.
        thread: the event's thread; None for events of the bot itself.
        event_key: `Event.key`.
        handler: the handler's qualified name.
        ordinal: the number of this handler's earlier actions for this event.
        part: the index of the piece of a message that is sent in several.
    """
    parts = map(str.encode, (bot, thread or "", event_key, handler, str(ordinal), str(part)))
    framed = b"".join([len(text).to_bytes(4, "big") + text for text in parts])
    # The letter in front distinguishes a key from a message id, which is decimal.
    import hashlib  # here: it loads OpenSSL, which would be a tenth of the time in which a plugin is imported

    return ActionKey("k" + hashlib.blake2b(framed, digest_size=16).hexdigest())


APOLOGY: Final = "Sorry, something went wrong on my side, so I could not do that. Please try again in a while."
"""Sent to a person when all attempts to handle their message have failed, unless bots.yaml sets another text."""

_HIGH_SURROGATE: Final = ("\ud800", "\udbff")


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
    """Return a value that must be a key, an id or metadata. It will be compared, so nothing in it is replaced.

    Raises:
        TypeError: the value is not a `str`.
        ValueError: it has half of a surrogate pair.
    """
    text = expect_text(value, what)
    if not is_encodable(text):
        msg = f"{what} got a text with half of a surrogate pair, which has no UTF-8 form; remove it"
        raise ValueError(msg)
    return text


def expect_result(value: T, what: str) -> T:
    """Return what a plain function of a plugin returned, if it is a result: a coroutine or a generator has not begun.

    Both are always true, so a filter that returns one would match every event, and nothing of its code would run.

    Args:
        value: what the function returned.
        what: the function, for the message: `bot.py:7: the filter is_open`.

    Raises:
        TypeError: it is no result.
    """
    if isinstance(value, Awaitable | Generator | AsyncGenerator):
        if isinstance(value, Coroutine):
            value.close()  # Python would warn that it was never awaited, far from here
        kind = type(value).__name__
        msg = f"{what} returned a {kind}, which is no result; write a plain function, without `async` and `yield`"
        raise TypeError(msg)
    return value


def is_encodable(text: str) -> bool:
    """Return whether a text has no half of a surrogate pair, so that it can be encoded."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_encodable(text: str, handler: str) -> str:
    """Return a text that can be encoded: adjacent halves of surrogate pairs are joined, single ones become U+FFFD.

    A long answer must not be lost because of half an emoji. The log reports replacements, without the text.

    Args:
        text: the text of a handler.
        handler: the handler's name.
    """
    if is_encodable(text):
        return text
    units = text.encode("utf-16-le", "surrogatepass")
    whole = units.decode("utf-16-le", "replace")
    if whole.encode("utf-16-le") != units:
        import structlog  # here, because importing it is slow and most runs do not log

        structlog.get_logger("chatbot").warning("text.repaired", handler=handler, replaced="half of a surrogate pair")
    return whole


async def make_pieces_encodable(source: AsyncIterable[str], handler: str) -> AsyncIterator[str]:
    """Yield the pieces of a text so that each can be encoded; an emoji that is split over two pieces is joined.

    Raises:
        TypeError: a piece is not a `str`.
        ValueError: the text is too long.
    """
    half, length = "", 0
    async for piece in source:
        text, half = half + expect_text(piece, "stream()"), ""
        length += len(text)
        if length > MAX_TEXT_BYTES:
            msg = f"stream() got a text of more than {MAX_TEXT_BYTES:,} bytes; does its source not end?"
            raise ValueError(msg)
        if text and _HIGH_SURROGATE[0] <= text[-1] <= _HIGH_SURROGATE[1]:
            text, half = text[:-1], text[-1]
        if text:
            yield make_encodable(text, handler)
    if half:
        yield make_encodable(half, handler)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Action(Value):
    """The base of all actions; each is done in a thread."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SendMessage(Action):
    """Send a message.

    Args:
        content: text or HTML; at most about 28 KB, longer text is split.
        type: the type of `content`.
        thread: None is the thread of the event.
        display_name: the sender's name to show; None is the bot's own.
        metadata: stored with the message; keys under `chatbot.` are refused.
    """

    content: str
    type: Literal["text", "html"] = "text"
    thread: ThreadId | None = None
    display_name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EditMessage(Action):
    """Replace the content of a message of the bot, given by its id, or by its key if it may not be sent yet."""

    message: MessageId | ActionKey
    content: str
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DeleteMessage(Action):
    """Delete a message of the bot, given by its id, or by its key if it may not be sent yet."""

    message: MessageId | ActionKey
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SendReadReceipt(Action):
    """Send a read receipt: the bot has read the thread up to this message."""

    message: MessageId
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AddParticipants(Action):
    """Add people to the thread."""

    participants: tuple[Participant, ...]
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RemoveParticipant(Action):
    """Remove a person from the thread, or the bot itself, which leaves it."""

    user: UserId
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class UpdateTopic(Action):
    """Change the topic of the thread."""

    topic: str
    thread: ThreadId | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KeyedAction(Value):
    """An action with its idempotency key.

    Args:
        key: the key under which it is done once.
        action: the action.
        pieces: for an edit or a deletion, the number of messages in which its target was sent.
    """

    key: ActionKey
    action: Action
    pieces: int = 1


def piece_key(key: ActionKey, number: int) -> ActionKey:
    """Return the key of a piece of a message that is sent in several; `number` counts from 0."""
    return ActionKey(f"{key}.{number}") if number else key


def removal_key(key: ActionKey, number: int) -> ActionKey:
    """Return the key under which a piece is deleted. A row with this key means that the piece is gone."""
    return ActionKey(f"{piece_key(key, number)}.gone")
