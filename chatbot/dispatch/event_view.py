"""One event as one bot sees it: who caused it, and the message's text, parsed once for all handlers.

Rules for events that bots cause; they prevent bots from talking to themselves and to each other:
    1. What the bot itself wrote or changed is never dispatched.
    2. What another chatbot caused (its message has a reply key, or its sender is a bot of the same daemon) reaches only
       handlers with `from_bots=True`.
    3. Bots that join or leave a thread are removed from the event's participants; an event without any is not
       dispatched to other handlers.

Everything here is pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from chatbot.dispatch.plaintext import Mention, Quotation, Reading, read_html, read_text
from chatbot.dispatch.timer_payload import TimerPayload
from chatbot.events import (
    Event,
    MessageEvent,
    MessageReceived,
    ParticipantsAdded,
    ParticipantsRemoved,
    ReadReceiptReceived,
    SystemEvent,
    ThreadEvent,
    TopicUpdated,
)
from chatbot.model import ChatMessage, MessageType, ThreadId, UserId
from chatbot.normalization import Normalized, fold, fold_name, is_blank, is_boundary, is_unspaced, normalize, spell

_NO_TIMERS: Final[Mapping[str, TimerPayload]] = MappingProxyType({})
_NOTHING_SAID: Final = Reading("")
_COMMAND: Final = re.compile(r"/([^\s/]+)(?!\S)")
_BLANK: Final = re.compile(r"\s*")
_BETWEEN: Final = re.compile(r"[\s,:;.!?…·~،؛。、-]*")
_MASK: Final = "\ufffe"
"""Stands for a mention that was judged by its id; no letter, and no character that anybody may type."""

_MOST_PARTS: Final = 5
"""In how many neighboring mentions without an id Teams may write one name."""


@dataclass(frozen=True, slots=True)
class BotInfo:
    """Who a bot is.

    Args:
        name: its name in bots.yaml.
        user: its user on the service.
        display_name: what people see, and mention.
        siblings: the daemon's other bots, which must not set each other off; some may come and go.
        admins: who may do what only admins may.
    """

    name: str
    user: UserId
    display_name: str
    siblings: Set[UserId] = frozenset()
    admins: frozenset[UserId] = frozenset()


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """What people are told of a command.

    Args:
        name: without the slash.
        usage: how to type it, made from the handler's signature: `/roll COUNT [SIDES]`.
        summary: the first line of the handler's docstring; empty without one.
    """

    name: str
    usage: str
    summary: str


class CommandLine(NamedTuple):
    """A message that begins with a slash and a word: `/roll 2 6`.

    Args:
        name: the word, known or not, as names are compared.
        arguments: everything behind it, as it was typed.
    """

    name: str
    arguments: str

    def __repr__(self) -> str:
        return "<CommandLine>"  # without people's words


class EventView:
    """An event, and whom it happened to.

    Args:
        event: what happened.
        bot: to which bot.
        commands: all commands of the bot, in their order.
        timers: what the bot's timers take, by the qualified names of their functions.

    Attributes:
        thread: where it happened; None for events of the bot itself.
        message: the message it is about, if it is about one.
    """

    __slots__ = (
        "_command_line",
        "_folded_text",
        "_is_mentioned",
        "_normalized",
        "_reading",
        "_spelled_text",
        "_text",
        "_typed",
        "bot",
        "commands",
        "event",
        "message",
        "thread",
        "timers",
    )

    def __init__(
        self,
        event: Event,
        bot: BotInfo,
        commands: tuple[CommandInfo, ...] = (),
        timers: Mapping[str, TimerPayload] = _NO_TIMERS,
    ) -> None:
        self.event = event
        self.bot = bot
        self.commands = commands
        self.timers = timers
        self.thread: ThreadId | None = event.thread if isinstance(event, ThreadEvent) else None
        self.message: ChatMessage | None = event.message if isinstance(event, MessageEvent) else None
        self._reading: Reading | None = None
        self._text: str | None = None
        self._typed: Normalized | Literal[False] | None = False
        self._normalized: Normalized | None = None
        self._spelled_text: str | None = None
        self._folded_text: str | None = None
        self._is_mentioned: bool | None = None
        self._command_line: CommandLine | Literal[False] | None = False

    @property
    def reading(self) -> Reading:
        """What the message says, whom it mentions and what it quotes."""
        if self._reading is None:
            self._reading = _NOTHING_SAID if self.message is None else _reading_of(self.message)
        return self._reading

    @property
    def text(self) -> str:
        """The message's plain text; empty where there is none."""
        if self._text is None:  # asked for by every filter
            self._text = self.reading.text
        return self._text

    @property
    def quoted(self) -> Quotation | None:
        """The earlier message that the message answers, where it quotes one."""
        return self.reading.quoted

    @property
    def normalized(self) -> Normalized:
        """The text as it is parsed, with the places of its characters in the text."""
        if self._normalized is None:
            self._normalized = Normalized(self.text)
        return self._normalized

    @property
    def typed_otherwise(self) -> Normalized | None:
        """The normalized text; None if it is the text itself, as nearly always."""
        if self._typed is False:
            self._typed = None if normalize(self.text) == self.text else self.normalized
        return self._typed

    @property
    def has_text(self) -> bool:
        """Whether the message says something, rather than only carries attachments."""
        return not is_blank(self.text)

    @property
    def folded_text(self) -> str:
        """The text as it is compared: without the space around it, and without case."""
        if self._folded_text is None:
            self._folded_text = fold(self.text).strip()
        return self._folded_text

    @property
    def spelled_text(self) -> str:
        """The text as it is compared where case counts."""
        if self._spelled_text is None:
            self._spelled_text = spell(self.text).strip()
        return self._spelled_text

    @property
    def is_mentioned(self) -> bool:
        """Whether the message mentions the bot: by its id; by its display name, a whole word, where there is no id."""
        if self._is_mentioned is None:
            self._is_mentioned = self._names_bot(self.reading.mentions) or self._has_name()
        return self._is_mentioned

    def _names_bot(self, mentions: Sequence[Mention]) -> bool:
        """Whether one of these mentions is of the bot."""
        if any(mention.user == self.bot.user for mention in mentions):
            return True
        name, text = fold_name(self.bot.display_name), self.text
        for first, mention in enumerate(mentions):
            parts = ""
            for part in mentions[first : first + _MOST_PARTS] if name else ():
                if part.user is not None or (parts and text[mention.end : part.start].strip()):
                    break
                parts, mention = f"{parts} {text[part.start : part.end]}", part
                if fold_name(parts).removeprefix("@") == name:
                    return True
        return False

    def _has_name(self) -> bool:
        """Whether the bot's display name stands in what is no mention."""
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
        """The text as a command; a mention of the bot may stand before it, as Teams puts it there."""
        if self._command_line is False:
            text = self.text
            has_slash = "/" in text or "／" in text
            self._command_line = self._find_command() if has_slash else None
        return self._command_line

    def _find_command(self) -> CommandLine | None:
        text = self.text
        if text[0] == "/" and self.typed_otherwise is None:  # nearly every command: nothing to look for
            found = _COMMAND.match(text)
            return None if found is None else CommandLine(fold_name(found[1]), text[found.end() :].strip())
        typed = self.normalized
        at = _end_of(_BLANK, typed.text, 0)
        if typed.text[at : at + 1] != "/":
            at = self._end_of_mentions(at)
        found = _COMMAND.match(typed.text, at)
        if found is None:
            return None
        return CommandLine(fold_name(found[1]), self.text[typed.original_at(found.end()) :].strip())

    def _end_of_mentions(self, at: int) -> int:
        """Where the text begins behind the mentions in front, if one of them is the bot's; else `at` itself."""
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


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _is_whole(found: re.Match[str]) -> bool:
    """Whether what was found is no part of a longer word, or of an address (`info@bot.example`)."""
    text, start, end = found.string, found.start(), found.end()
    has_sign = text[start] == "@"
    if has_sign:
        begins = start == 0 or is_unspaced(text[start - 1]) or is_boundary(f"{text[start - 1]}_", 1)
    else:
        begins = is_boundary(text, start)
    # Behind "@Name" in a script without spaces, the sentence goes on at once.
    goes_on = has_sign and end < len(text) and is_unspaced(text[end - 1]) and is_unspaced(text[end])
    return begins and (goes_on or is_boundary(text, end))


@lru_cache(maxsize=256)
def _mention_of(name: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in name.split())
    return re.compile(rf"@?{words}", re.IGNORECASE)


def is_own(event: Event, bot: BotInfo) -> bool:
    """Whether the bot caused it itself."""
    return _author(event) == bot.user


def among_people(event: Event, bot: BotInfo) -> Event | None:
    """The event as it concerns people: without the daemon's other bots; None if nothing is left of it."""
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
    if isinstance(event, MessageReceived):  # nearly always
        return event.message.sender
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
