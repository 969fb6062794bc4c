"""One event as one bot sees it: the event, the bot, and the message's plain text, read once for all handlers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

from chatbot.dispatch.plaintext import plain_text
from chatbot.events import Event, MessageEvent, ThreadEvent
from chatbot.model import ChatMessage, MessageType, ThreadId, UserId

if TYPE_CHECKING:
    from chatbot.dispatch.payload import Payload

_COMMAND: Final = re.compile(r"/([^\s/]+)(?:\s+|$)(.*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class BotInfo:
    """Who a bot is.

    Args:
        name: its name in bots.yaml.
        user: its user on the service.
        display_name: what people see, and mention.
        siblings: the daemon's other bots, which must not set each other off.
        admins: who may do what only admins may.
    """

    name: str
    user: UserId
    display_name: str
    siblings: frozenset[UserId] = frozenset()
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


@dataclass(frozen=True)
class Occasion:
    """An event, and whom it happened to.

    Args:
        event: what happened.
        bot: to which bot.
        commands: all commands of the bot, in their order.
        timers: what the bot's timers take, by the qualified names of their functions.
    """

    event: Event
    bot: BotInfo
    commands: tuple[CommandInfo, ...] = ()
    timers: Mapping[str, Payload] = field(default_factory=dict)

    @property
    def thread(self) -> ThreadId | None:
        """Where it happened; None for events of the bot itself."""
        return self.event.thread if isinstance(self.event, ThreadEvent) else None

    @property
    def message(self) -> ChatMessage | None:
        """The message it is about, if it is about one."""
        return self.event.message if isinstance(self.event, MessageEvent) else None

    @cached_property
    def text(self) -> str:
        """The message's plain text; empty where there is none."""
        message = self.message
        if message is None:
            return ""
        return plain_text(message.content) if message.type is MessageType.HTML else message.content

    @cached_property
    def is_mentioned(self) -> bool:
        """Whether the text holds the bot's display name as a whole word, with or without @."""
        name = self.bot.display_name.strip()
        return bool(name) and bool(_mention_of(name).search(self.text))

    @cached_property
    def command_line(self) -> CommandLine | None:
        """The text as a command; a mention of the bot may stand before it, as Teams puts it there."""
        text = self.text.strip()
        if not text.startswith("/") and self.is_mentioned:
            mention = _mention_of(self.bot.display_name.strip()).match(text)
            text = text[mention.end() :].lstrip(" ,:\n") if mention else text
        found = _COMMAND.match(text)
        return CommandLine(found[1].lower(), found[2]) if found else None


@lru_cache(maxsize=256)
def _mention_of(display_name: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in display_name.split())
    return re.compile(rf"(?<!\w)@?{words}(?!\w)", re.IGNORECASE)
