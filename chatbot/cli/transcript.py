"""What a person is shown of a thread: messages as they come, and how they change. Pure; nobody's text can do harm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from chatbot.dispatch.plaintext import plain_text
from chatbot.model import ChatMessage, MessageId, MessageType, Receipt, UserId


class Tone(StrEnum):
    """How a line is shown, as the codes of terminals (ECMA-48) have it."""

    SAID = "1"
    CHANGED = "33"
    NOTICE = "2"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing to show.

    Args:
        who: who did it.
        what: said, or what happened.
    """

    who: str
    what: str
    tone: Tone

    def __str__(self) -> str:
        return self.shown()

    def shown(self, *, has_colors: bool = False) -> str:
        """The line as text; further lines of a message are indented, control characters are escaped."""
        first, *more = [_printable(line) for line in self.what.split("\n")] or [""]
        between = ": " if self.tone is Tone.SAID else " "
        head = _printable(self.who) + between
        text = "\n".join([head + first, *("  " + line for line in more)])
        if not has_colors:
            return text
        if self.tone is Tone.SAID:
            return f"\x1b[{self.tone}m{head}\x1b[0m{text[len(head) :]}"
        return f"\x1b[{self.tone}m{text}\x1b[0m"


class Transcript:
    """Tells what is new in a thread since it was last looked at.

    Args:
        me: whose own messages are not shown to them again.
        names: how people are called; more are learned from what they say.
    """

    def __init__(self, me: UserId, names: dict[UserId, str]) -> None:
        self._me = me
        self._names = dict(names)
        self._seen: dict[MessageId, int] = {}
        self._read: dict[UserId, int] = {}
        self.top = 0

    def news(self, messages: Iterable[ChatMessage], *, has_own: bool = False) -> list[Line]:
        """What has happened, oldest first; what was told already is left out.

        Args:
            has_own: show the person's own messages, too.
        """
        lines = []
        for message in sorted(messages, key=lambda one: one.version):
            known = self._seen.get(message.id)
            if known is not None and message.version <= known:
                continue
            self._seen[message.id] = message.version
            self.top = max(self.top, message.version)
            self._learn(message)
            if has_own or message.sender != self._me:
                lines += self._lines(message, is_known=known is not None)
        return lines

    def reads(self, receipts: Iterable[Receipt], message: MessageId) -> list[Line]:
        """Who has read up to this message since the last time this was asked."""
        lines = []
        for receipt in receipts:
            before, now = self._read.get(receipt.reader, 0), int(receipt.message)
            self._read[receipt.reader] = max(before, now)
            if receipt.reader != self._me and before < int(message) <= now:
                lines.append(Line("✓ read by", self.name(receipt.reader), Tone.NOTICE))
        return lines

    def readers(self, message: MessageId) -> int:
        """How many others are known to have read up to this message."""
        return sum(read >= int(message) for reader, read in self._read.items() if reader != self._me)

    def name(self, user: UserId | None) -> str:
        """What to call someone."""
        return self._names.get(user, "") or user[-8:] if user else "Someone"

    def _learn(self, message: ChatMessage) -> None:
        for person in message.participants:
            if person.display_name:
                self._names.setdefault(person.user, person.display_name)
        if message.sender and message.sender_display_name:
            self._names[message.sender] = message.sender_display_name

    def _lines(self, message: ChatMessage, *, is_known: bool) -> list[Line]:
        who = self.name(message.sender)
        if not message.is_said:
            return self._happened(message)
        if message.deleted_on is not None:
            return [Line(who, "took a message back", Tone.CHANGED)] if is_known else []
        text = plain_text(message.content) if message.type is MessageType.HTML else message.content
        return [Line(who, f"changed it to: {text}", Tone.CHANGED) if is_known else Line(who, text, Tone.SAID)]

    def _happened(self, message: ChatMessage) -> list[Line]:
        others = ", ".join(self.name(person.user) for person in message.participants if person.user != self._me)
        if message.type is MessageType.PARTICIPANT_ADDED and others:
            return [Line(others, "came in", Tone.NOTICE)]
        if message.type is MessageType.PARTICIPANT_REMOVED and others:
            return [Line(others, "left", Tone.NOTICE)]
        if message.type is MessageType.TOPIC_UPDATED:
            return [Line("The topic", f"is now: {message.topic or ''}", Tone.NOTICE)]
        return []


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " if c == "\t" else repr(c)[1:-1] for c in text)
