"""One event as one bot sees it: the event, the bot, and the message's plain text, read once for all handlers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from chatbot.dispatch.plaintext import plain_text
from chatbot.events import Event, MessageEvent, ThreadEvent
from chatbot.model import ChatMessage, MessageType, ThreadId, UserId

if TYPE_CHECKING:
    from chatbot.dispatch.payload import Payload

_NO_TIMERS: Final[Mapping[str, Payload]] = MappingProxyType({})


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


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A message that begins with a slash and a word: `/roll 2 6`.

    Args:
        name: the word, in lower case, known or not.
        arguments: everything behind it, as it was typed.
    """

    name: str
    arguments: str


class Occasion:
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
        "_text",
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
        timers: Mapping[str, Payload] = _NO_TIMERS,
    ) -> None:
        self.event = event
        self.bot = bot
        self.commands = commands
        self.timers = timers
        self.thread: ThreadId | None = event.thread if isinstance(event, ThreadEvent) else None
        self.message: ChatMessage | None = event.message if isinstance(event, MessageEvent) else None
        self._text: str | None = None
        self._folded_text: str | None = None
        self._is_mentioned: bool | None = None
        self._command_line: CommandLine | Literal[False] | None = False

    @property
    def text(self) -> str:
        """The message's plain text; empty where there is none."""
        if self._text is None:
            self._text = "" if self.message is None else _text_of(self.message)
        return self._text

    @property
    def has_text(self) -> bool:
        """Whether the message says something, rather than only carries attachments."""
        return bool(self.text) and not self.text.isspace()

    @property
    def folded_text(self) -> str:
        """The text without the white space around it, and without the difference between capitals and others."""
        if self._folded_text is None:
            self._folded_text = self.text.strip().casefold()
        return self._folded_text

    @property
    def is_mentioned(self) -> bool:
        """Whether the text holds the bot's display name as a whole word, with or without @."""
        if self._is_mentioned is None:
            name = self.bot.display_name.strip()
            self._is_mentioned = bool(name) and bool(_mention_of(name).search(self.text))
        return self._is_mentioned

    @property
    def command_line(self) -> CommandLine | None:
        """The text as a command; a mention of the bot may stand before it, as Teams puts it there."""
        if self._command_line is False:
            self._command_line = self._find_command() if "/" in self.text else None
        return self._command_line

    def _find_command(self) -> CommandLine | None:
        text = self.text.strip()
        if not text.startswith("/") and self.is_mentioned:
            mention = _mention_of(self.bot.display_name.strip()).match(text)
            text = text[mention.end() :].lstrip(" ,:\n") if mention else text
        if not text.startswith("/") or text[1:2].isspace():
            return None
        name, *arguments = text[1:].split(maxsplit=1) or [""]
        return CommandLine(name.lower(), "".join(arguments)) if name and "/" not in name else None


def _text_of(message: ChatMessage) -> str:
    return plain_text(message.content) if message.type is MessageType.HTML else message.content


@lru_cache(maxsize=256)
def _mention_of(display_name: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in display_name.split())
    return re.compile(rf"(?<!\w)@?{words}(?!\w)", re.IGNORECASE)
