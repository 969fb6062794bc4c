"""An event as one bot sees it: its origin and its text, parsed once for all handlers. Performs no I/O.

Loop protection. These rules prevent bots from answering themselves and each other:
    1. Events caused by the bot itself are never dispatched.
    2. Events caused by another chatbot (its message has a reply key, or its sender is a bot of the same daemon) are
       dispatched only to handlers with `from_bots=True`.
    3. For other handlers, bots that join or leave a thread are removed from the event's participants. An event without
       remaining participants is not dispatched to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from chatbot.dispatch.arguments import TimerPayload
from chatbot.dispatch.plaintext import Mention, Quotation, Reading, read_html, read_text
from chatbot.events import (
    Event,
    MessageEvent,
    MessageReceived,
    ParticipantsAdded,
    ParticipantsRemoved,
    ReadReceiptReceived,
    ScheduleFired,
    SystemEvent,
    ThreadEvent,
    TimerFired,
    TopicUpdated,
)
from chatbot.model import ChatMessage, MessageType, ThreadId, UserId, Value
from chatbot.normalization import (
    Normalized,
    fold,
    fold_name,
    is_blank,
    is_boundary,
    is_plain,
    is_unspaced,
    normalize,
    spell,
)

_NO_TIMERS: Final[Mapping[str, TimerPayload]] = MappingProxyType({})
_NOTHING_SAID: Final = Reading("")
_COMMAND: Final = re.compile(r"/([^\s/]+)(?!\S)")
_BLANK: Final = re.compile(r"\s*")
_BETWEEN: Final = re.compile(r"[\s,:;.!?…·~،؛。、-]*")
_MASK: Final = "\ufffe"
"""Replaces a mention that was compared by its id. It is a noncharacter: not a letter, and it cannot be typed."""

_MAX_PARTS: Final = 5
"""The maximum number of adjacent mentions without an id into which Teams splits one name."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BotInfo(Value):
    """The identity of a bot.

    Args:
        name: its name in bots.yaml.
        user: its user id.
        display_name: the name that people see and mention.
        siblings: the users of the daemon's other bots, for loop protection; they change when bots are added or removed.
        admins: the users who may run commands for admins.
    """

    name: str
    user: UserId
    display_name: str
    siblings: Set[UserId] = frozenset()
    admins: frozenset[UserId] = frozenset()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CommandInfo(Value):
    """A command in the list that users see.

    Args:
        name: without the slash.
        usage: the usage text, derived from the handler's signature: `/roll COUNT [SIDES]`.
        summary: the first line of the handler's docstring; empty without one.
    """

    name: str
    usage: str
    summary: str


class CommandLine(NamedTuple):
    """A message that begins with a slash and a word: `/roll 2 6`.

    Args:
        name: the word, normalized for comparison; the command may be unknown.
        arguments: the text after it, verbatim.
    """

    name: str
    arguments: str

    def __repr__(self) -> str:
        return "<CommandLine>"  # message text must not reach logs or tracebacks


_NO_LINES: Final[Mapping[str, CommandLine]] = MappingProxyType({})


class EventView:
    """An event and the bot that received it.

    Args:
        event: the event.
        bot: the bot that received it.
        commands: all commands of the bot, in order.
        timers: the parameters of the bot's timers, by the qualified names of their functions.
        lines: commands as they are usually typed, from `lines_of`; other spellings are parsed.

    Attributes:
        thread: the thread of the event; None for events of the bot itself.
        message: the message of the event, if it has one.
        text: the message's plain text; empty if there is none.
        is_plain: normalization does not change the text.
    """

    # What is computed when it is first asked for. Of the class, so that an event does not pay for what nobody asks.
    _reading: Reading | None = None
    _typed: Normalized | Literal[False] | None = False
    _normalized: Normalized | None = None
    _spelled_text: str | None = None
    _folded_text: str | None = None
    _is_mentioned: bool | None = None
    _command_line: CommandLine | Literal[False] | None = False

    def __init__(
        self,
        event: Event,
        bot: BotInfo,
        commands: tuple[CommandInfo, ...] = (),
        timers: Mapping[str, TimerPayload] = _NO_TIMERS,
        lines: Mapping[str, CommandLine] = _NO_LINES,
    ) -> None:
        self.event = event
        self.bot = bot
        self.commands = commands
        self.timers = timers
        self._lines = lines
        self.thread: ThreadId | None = event.thread if isinstance(event, ThreadEvent) else None
        self.message: ChatMessage | None = event.message if isinstance(event, MessageEvent) else None
        # Plain attributes, because each filter reads them.
        message = self.message
        if message is None or message.type is MessageType.HTML or "<" in message.content:
            self.text = self.reading.text
        else:
            self.text = message.content
        self.is_plain = is_plain(self.text)

    @property
    def reading(self) -> Reading:
        """Return the text, mentions and quotation of the message."""
        if self._reading is None:
            self._reading = _NOTHING_SAID if self.message is None else _reading_of(self.message)
        return self._reading

    @property
    def quoted(self) -> Quotation | None:
        """Return the quoted message that the message replies to, if any."""
        return self.reading.quoted

    @property
    def normalized(self) -> Normalized:
        """Return the normalized text for parsing, which maps its positions to the original."""
        if self._normalized is None:
            self._normalized = Normalized(self.text)
        return self._normalized

    @property
    def normalized_if_different(self) -> Normalized | None:
        """Return the normalized text, or None if it equals the text, which is the usual case."""
        if self._typed is False:
            self._typed = None if self.is_plain or normalize(self.text) == self.text else self.normalized
        return self._typed

    @property
    def has_text(self) -> bool:
        """Return whether the message has text, rather than only attachments."""
        return not is_blank(self.text)

    @property
    def folded_text(self) -> str:
        """Return the text for comparison: stripped and case-folded."""
        if self._folded_text is None:
            self._folded_text = fold(self.text).strip()
        return self._folded_text

    @property
    def spelled_text(self) -> str:
        """Return the text for case-sensitive comparison."""
        if self._spelled_text is None:
            self._spelled_text = spell(self.text).strip()
        return self._spelled_text

    @property
    def is_mentioned(self) -> bool:
        """Return whether the message mentions the bot: by its id, or without an id by its display name as a word."""
        if self._is_mentioned is None:
            self._is_mentioned = self._names_bot(self.reading.mentions) or self._has_name()
        return self._is_mentioned

    def _names_bot(self, mentions: Sequence[Mention]) -> bool:
        """Return whether one of these mentions refers to the bot."""
        if any(mention.user == self.bot.user for mention in mentions):
            return True
        name, text = fold_name(self.bot.display_name), self.text
        for first, mention in enumerate(mentions):
            parts = ""
            for part in mentions[first : first + _MAX_PARTS] if name else ():
                if part.user is not None or (parts and text[mention.end : part.start].strip()):
                    break
                parts, mention = f"{parts} {text[part.start : part.end]}", part
                if fold_name(parts).removeprefix("@") == name:
                    return True
        return False

    def _has_name(self) -> bool:
        """Return whether the bot's display name occurs outside of mentions."""
        name = normalize(self.bot.display_name).strip()
        if not name:
            return False
        text = self.text
        if self.reading.mentions:
            for mention in reversed(self.reading.mentions):
                text = f"{text[: mention.start]}{_MASK}{text[mention.end :]}"
            text = normalize(text)
        else:
            text = self.normalized.text
        return any(_is_whole(found) for found in _mention_of(name).finditer(text))

    @property
    def command_line(self) -> CommandLine | None:
        """Return the text as a command. A mention of the bot may precede it, because Teams inserts one."""
        if self._command_line is False:
            text = self.text
            has_slash = "/" in text or (not self.is_plain and "／" in text)
            self._command_line = self._find_command() if has_slash else None
        return self._command_line

    def _find_command(self) -> CommandLine | None:
        text = self.text
        if self.is_plain and text[0] == "/":  # fast path: nearly every command
            word, _, rest = text.partition(" ")
            line = self._lines.get(word)
            if line is None:
                return _plain_line(text)
            return CommandLine(line.name, rest.strip()) if rest else line
        typed = self.normalized
        at = _end_of(_BLANK, typed.text, 0)
        if typed.text[at : at + 1] != "/":
            at = self._end_of_mentions(at)
        found = _COMMAND.match(typed.text, at)
        if found is None:
            return None
        return CommandLine(fold_name(found[1]), self.text[typed.original_at(found.end()) :].strip())

    def _end_of_mentions(self, at: int) -> int:
        """Return the position after leading mentions if one of them is the bot's, else `at`."""
        typed, start, by_name = self.normalized, at, False
        mentions = {typed.normalized_at(mention.start): mention for mention in reversed(self.reading.mentions)}
        name, passed = normalize(self.bot.display_name).strip(), []
        while True:
            mention = mentions.pop(at, None)
            if mention is None and typed.text[at : at + 1] == "@":
                mention = mentions.pop(at + 1, None)
            found = _mention_of(name).match(typed.text, at) if name else None
            if mention is not None:
                passed.append(mention)
                at = max(at, typed.normalized_at(mention.end))
            elif found is not None and _is_whole(found):
                by_name, at = True, found.end()
            else:
                return at if by_name or self._names_bot(passed) else start
            at = _end_of(_BETWEEN, typed.text, at)


def _reading_of(message: ChatMessage) -> Reading:
    return read_html(message.content) if message.type is MessageType.HTML else read_text(message.content)


def lines_of(names: Iterable[str]) -> dict[str, CommandLine]:
    """Return commands without arguments, by the texts that people type for them; see `EventView`."""
    texts = [f"/{name}" for name in names]
    lines = {text: _plain_line(text) for text in texts if is_plain(text)}
    return {text: line for text, line in lines.items() if line is not None and not line.arguments}


def _plain_line(text: str) -> CommandLine | None:
    """Return plain text that begins with a slash as a command."""
    found = _COMMAND.match(text)
    return None if found is None else CommandLine(fold_name(found[1]), text[found.end() :].strip())


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _is_whole(found: re.Match[str]) -> bool:
    """Return whether a match is a whole word, not part of a longer word or an address (`info@bot.example`)."""
    text, start, end = found.string, found.start(), found.end()
    has_sign = text[start] == "@"
    if has_sign:
        begins = start == 0 or is_unspaced(text[start - 1]) or is_boundary(f"{text[start - 1]}_", 1)
    else:
        begins = is_boundary(text, start)
    # In a script without spaces, the sentence continues directly after "@Name".
    goes_on = has_sign and end < len(text) and is_unspaced(text[end - 1]) and is_unspaced(text[end])
    return begins and (goes_on or is_boundary(text, end))


@lru_cache(maxsize=256)
def _mention_of(name: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in name.split())
    return re.compile(rf"@?{words}", re.IGNORECASE)


def is_own(event: Event, bot: BotInfo) -> bool:
    """Return whether the bot caused the event itself."""
    if isinstance(event, MessageReceived):  # nearly always
        return event.message.sender == bot.user
    return _author(event) == bot.user


def without_bots(event: Event, bot: BotInfo) -> Event | None:
    """Remove the daemon's other bots from an event; return None if nobody else is left."""
    if isinstance(event, MessageReceived):  # nearly always
        message = event.message
        return None if message.sender in bot.siblings or message.reply_key is not None else event
    if isinstance(event, SystemEvent) and isinstance(event, ParticipantsAdded | ParticipantsRemoved):
        people = tuple(person for person in event.participants if person.user not in bot.siblings)
        if len(people) == len(event.participants):
            return event
        return replace(event, participants=people) if people else None
    if _author(event) in bot.siblings:
        return None
    if isinstance(event, MessageEvent) and event.message.reply_key is not None:
        return None
    return event


def _author(event: Event) -> UserId | None:
    match event:
        case ParticipantsAdded() | ParticipantsRemoved():
            return None
        case TopicUpdated():
            return event.initiator
        case ReadReceiptReceived():
            return event.receipt.reader
        case MessageEvent():
            return event.message.sender
        case _:
            return None


def function_called_by(event: Event) -> str | None:
    """Return the name of the function that an event calls; None if the event goes to the handlers that match."""
    if isinstance(event, MessageReceived):  # nearly always
        return None
    match event:
        case TimerFired():
            return event.timer
        case ScheduleFired():
            return event.schedule
        case _:
            return None
