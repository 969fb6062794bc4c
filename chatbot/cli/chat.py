"""`chatbot chat`: talk to running bots from a second terminal, as one person or as several.

A `Session` sends what the person types, polls the thread, and shows messages and their changes. Nobody's text can send
control characters to the terminal.

What was typed is stored in `.chatbot/` for the next session only on the embedded emulator: on Azure it is what people
said to each other.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Self

import anyio
from cyclopts import Parameter

from chatbot.cli.boundary import EXIT_USAGE
from chatbot.cli.chat_commands import ChatCommand, ChatCommands, command_of, help_text, text_for_bots
from chatbot.cli.daemon_client import connection_to, count_unsent
from chatbot.cli.options import BOTS_YAML, RunningConfig, duration
from chatbot.cli.person import ChatUser, find_person
from chatbot.cli.playground_client import is_on_emulator
from chatbot.cli.terminal import Terminal
from chatbot.config.source_location import printable
from chatbot.dispatch.plaintext import plain_text
from chatbot.durations import format_duration
from chatbot.errors import ChatbotError, OutcomeUnknown, StateError, StoreError, Throttled, Unreachable
from chatbot.model import ChatMessage, MessageId, MessageType, Receipt, ThreadId, UserId
from chatbot.runtime.connection import Connection
from chatbot.runtime.logs import logging_to
from chatbot.runtime.run_directory import ControlDirectory, RunInfo


class LineStyle(StrEnum):
    """Style of a line, as terminal codes (ECMA-48)."""

    SAID = "1"
    CHANGED = "33"
    NOTICE = "2"


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """One entry of the transcript.

    Args:
        author: who wrote or did it.
        text: the message, or what happened.
    """

    author: str
    text: str
    style: LineStyle

    def __str__(self) -> str:
        return self.formatted()

    def formatted(self, *, has_colors: bool = False) -> str:
        """Return the entry as text: further lines of a message are indented, control characters are escaped."""
        first, *more = [_printable(line) for line in self.text.split("\n")] or [""]
        between = ": " if self.style is LineStyle.SAID else " "
        head = _printable(self.author) + between
        text = "\n".join([head + first, *("  " + line for line in more)])
        if not has_colors:
            return text
        if self.style is LineStyle.SAID:
            return f"\x1b[{self.style}m{head}\x1b[0m{text[len(head) :]}"
        return f"\x1b[{self.style}m{text}\x1b[0m"


class Transcript:
    """Describes what is new in a thread since the last poll.

    Args:
        me: the user whose own messages are not shown again.
        names: display names by user; more are learned from messages.
    """

    def __init__(self, me: UserId, names: dict[UserId, str]) -> None:
        self._mine = {me}
        self._names = dict(names)
        self._seen: dict[MessageId, int] = {}
        self._read: dict[UserId, int] = {}
        self.top = 0

    def add_me(self, user: UserId, name: str) -> None:
        """Do not show this user's messages again either: they are typed here, too."""
        self._mine.add(user)
        self._names[user] = name

    def new_lines(self, messages: Iterable[ChatMessage], *, has_own: bool = False) -> list[TranscriptLine]:
        """Return what has happened since the last call, oldest first.

        Args:
            has_own: include the person's own messages.
        """
        lines = []
        for message in sorted(messages, key=lambda one: one.version):
            known = self._seen.get(message.id)
            if known is not None and message.version <= known:
                continue
            self._seen[message.id] = message.version
            self.top = max(self.top, message.version)
            self._learn_names(message)
            if has_own or message.sender not in self._mine:
                lines += self._lines(message, is_known=known is not None)
        return lines

    def read_lines(self, receipts: Iterable[Receipt], message: MessageId) -> list[TranscriptLine]:
        """Return who has read up to this message since the last call."""
        lines = []
        for receipt in receipts:
            before, now = self._read.get(receipt.reader, 0), int(receipt.message)
            self._read[receipt.reader] = max(before, now)
            if receipt.reader not in self._mine and before < int(message) <= now:
                lines.append(TranscriptLine("✓ read by", self.name(receipt.reader), LineStyle.NOTICE))
        return lines

    def count_readers(self, message: MessageId) -> int:
        """Return how many others are known to have read up to this message."""
        return sum(read >= int(message) for reader, read in self._read.items() if reader not in self._mine)

    def name(self, user: UserId | None) -> str:
        """Return the display name of a user."""
        return self._names.get(user, "") or user[-8:] if user else "Someone"

    def _learn_names(self, message: ChatMessage) -> None:
        for person in message.participants:
            if person.display_name:
                self._names.setdefault(person.user, person.display_name)
        if message.sender and message.sender_display_name:
            self._names[message.sender] = message.sender_display_name

    def _lines(self, message: ChatMessage, *, is_known: bool) -> list[TranscriptLine]:
        who = self.name(message.sender)
        if not message.is_said:
            return self._describe_change(message)
        if message.deleted_on is not None:
            return [TranscriptLine(who, "deleted a message", LineStyle.CHANGED)] if is_known else []
        text = plain_text(message.content) if message.type is MessageType.HTML else message.content
        return [
            TranscriptLine(who, f"changed it to: {text}", LineStyle.CHANGED)
            if is_known
            else TranscriptLine(who, text, LineStyle.SAID)
        ]

    def _describe_change(self, message: ChatMessage) -> list[TranscriptLine]:
        others = ", ".join(self.name(person.user) for person in message.participants if person.user not in self._mine)
        if message.type is MessageType.PARTICIPANT_ADDED and others:
            return [TranscriptLine(others, "joined", LineStyle.NOTICE)]
        if message.type is MessageType.PARTICIPANT_REMOVED and others:
            return [TranscriptLine(others, "left", LineStyle.NOTICE)]
        if message.type is MessageType.TOPIC_UPDATED:
            return [TranscriptLine("The topic", f"is now: {message.topic or ''}", LineStyle.NOTICE)]
        return []


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " if c == "\t" else repr(c)[1:-1] for c in text)


POLL_SECONDS: Final = 0.5
"""Pause between two polls: 120 polls a minute, of the 200 that the service allows one user in one thread."""

RECEIPTS_SECONDS: Final = 2.1
"""Pause between two polls of the receipts: the service allows five in ten seconds."""

RECEIPTS_AFTER: Final = 1.2
"""Pause between a message and the first poll of its receipts: bots that answer have read it by then."""

QUIET_SECONDS: Final = 1.0
"""Once input has ended and bots have answered, the session ends after so many seconds without news."""

EARLIER_LINES: Final = 5

MAX_HISTORY: Final = 500
"""Lines that are kept for the next session."""

_HISTORY: Final = "chat_history"
_PAGE: Final = 50
_MAX_FAILURES: Final = 6


class Session:
    """One session in one thread.

    Args:
        person: the person at the terminal.
        thread: a thread that the person is in.
        terminal: the person's terminal.
        unsent: returns how many messages the bots still have to send to the thread.
        commands: carries out what is not for the bots.
    """

    def __init__(
        self,
        person: ChatUser,
        thread: ThreadId,
        terminal: Terminal,
        unsent: Callable[[], Awaitable[int]],
        commands: ChatCommands,
    ) -> None:
        self._commands = commands
        self._person = person
        self._service = person.service
        self._thread = thread
        self._terminal = terminal
        self._unsent = unsent
        names = {bot.user_id: bot.display_name for bot in person.info.bots} | {person.user: person.name}
        self._transcript = Transcript(person.user, names)
        self._unread: MessageId | None = None
        self._receipts_at = 0.0
        self._sent_at = self._last_news_at = 0.0
        self._failures = 0

    async def run(self, answer_timeout: timedelta) -> None:
        """Run until the person ends the input.

        Args:
            answer_timeout: how long to wait for replies after piped input has ended.

        Raises:
            ServiceError: the service cannot be reached, or refuses a request.
        """
        self._show(self._transcript.new_lines(await self._messages(), has_own=True)[-EARLIER_LINES:])
        async with anyio.create_task_group() as group:
            group.start_soon(self._poll_forever)
            async with aclosing(self._terminal.lines()) as lines:
                async for line in lines:
                    if (command := command_of(line)) is None:
                        await self._send(text_for_bots(line))
                    else:
                        await self._carry_out(command, line, answer_timeout)
            group.cancel_scope.cancel()
        if self._sent_at and not self._terminal.is_interactive:
            await self._await_answers(answer_timeout.total_seconds())

    async def _carry_out(self, command: ChatCommand, line: str, answer_timeout: timedelta) -> None:
        """Carry out a command, or say why not: the session goes on in any case."""
        if command.name == "help":
            self._notice("here", help_text())
            await self._send(line)
            return
        if not self._terminal.is_echoing:
            self._notice(self._person.name, line)
        if self._sent_at and not self._terminal.is_interactive:
            await self._await_answers(answer_timeout.total_seconds())  # what was sent before it
        try:
            match command.name:
                case "as":
                    await self._switch(command.rest)
                case "inspect":
                    self._notice(*await self._commands.inspect(self._person, self._thread))
                case "fault":
                    self._notice("faults", await self._commands.fault(self._person, command.rest))
                case _:
                    self._notice("clock", await self._commands.advance(self._person, command.rest))
        except ChatbotError as error:
            self._show([TranscriptLine("(not done:", f"{error}) //{command.name} goes to the bots", LineStyle.CHANGED)])

    async def _switch(self, name: str) -> None:
        self._person = await self._commands.switch(self._person, name, self._thread)
        self._service = self._person.service
        self._transcript.add_me(self._person.user, self._person.name)
        self._terminal.prompt = prompt_of(self._person)
        self._notice("you", f"are {self._person.name}")

    def _notice(self, author: str, text: str) -> None:
        self._show([TranscriptLine(author, text, LineStyle.NOTICE)])

    async def _send(self, line: str) -> None:
        if not line.strip():
            return
        if not self._terminal.is_echoing:
            self._show([TranscriptLine(self._person.name, line, LineStyle.SAID)])
        while True:
            try:
                self._unread = await self._service.send_message(self._thread, line, display_name=self._person.name)
            except Throttled as error:
                await anyio.sleep(error.retry_after or 1.0)
                continue
            except OutcomeUnknown:
                self._show([TranscriptLine("(perhaps", f"not sent: {line})", LineStyle.CHANGED)])
            self._sent_at = anyio.current_time()
            self._receipts_at = max(self._receipts_at, self._sent_at + RECEIPTS_AFTER)
            return

    async def _await_answers(self, answer_timeout: float) -> None:
        """Wait for replies to the last message, until they have come and nothing follows, or the time is up."""
        with anyio.move_on_after(answer_timeout):
            while True:
                await self._poll()
                is_answered = self._last_news_at > self._sent_at and not self._awaits_receipts
                is_quiet = is_answered and anyio.current_time() - self._last_news_at >= QUIET_SECONDS
                if is_quiet and not await self._unsent():
                    return
                await anyio.sleep(POLL_SECONDS)
        if count := await self._unsent():
            more = "1 more reply is" if count == 1 else f"{count} more replies are"
            print(
                f"chatbot: {more} pending; `--wait 30s` waits longer, and the next `chatbot chat` shows them",
                file=sys.stderr,
            )

    async def _poll_forever(self) -> None:
        while True:
            await self._poll()
            await anyio.sleep(POLL_SECONDS)

    async def _poll(self) -> None:
        """Poll once; tolerate a few consecutive failures of the service."""
        try:
            lines = self._transcript.new_lines(await self._messages())
            if lines:
                self._last_news_at = anyio.current_time()
            self._show(lines)
            await self._poll_receipts()
            self._failures = 0
        except Throttled as error:
            await anyio.sleep(error.retry_after or 1.0)
        except (Unreachable, OutcomeUnknown) as error:
            self._failures += 1
            if self._failures == _MAX_FAILURES:
                message = f"{error}; the bots may have stopped: check the terminal of `chatbot run`"
                raise Unreachable(message) from error

    async def _messages(self) -> list[ChatMessage]:
        """Return what changed since the last poll; at the first one, the newest page."""
        top = self._transcript.top
        page = await self._service.list_messages(self._thread, page_size=_PAGE)
        messages = list(page.messages)
        while top and page.next_link and messages and messages[-1].version > top:
            page = await self._service.list_messages(self._thread, link=page.next_link)
            messages += page.messages
        return messages

    @property
    def _awaits_receipts(self) -> bool:
        if self._unread is None:
            return False
        return self._transcript.count_readers(self._unread) < len(self._person.info.bots)

    async def _poll_receipts(self) -> None:
        now = anyio.current_time()
        if not self._awaits_receipts or self._unread is None or now < self._receipts_at:
            return
        self._receipts_at = now + RECEIPTS_SECONDS
        receipts = [receipt async for receipt in self._service.list_receipts(self._thread)]
        self._show(self._transcript.read_lines(receipts, self._unread))

    def _show(self, lines: Iterable[TranscriptLine]) -> None:
        for line in lines:
            self._terminal.show(line.formatted(has_colors=self._terminal.has_colors))


def chat(
    config: RunningConfig = BOTS_YAML,
    *,
    as_: Annotated[
        str | None, Parameter(name="--as", help="Your name. The same name is the same person next time.")
    ] = None,
    thread: Annotated[str | None, Parameter(help="Talk in the thread with this id.")] = None,
    new: Annotated[str | None, Parameter(help="Open a new thread with all bots and this topic.")] = None,
    list_: Annotated[
        bool, Parameter(name="--list", negative="", show_default=False, help="List your threads and exit.")
    ] = False,
    wait: Annotated[
        timedelta,
        Parameter(
            converter=duration,
            show_default=format_duration,
            help="How long to wait for replies after piped input ends.",
        ),
    ] = timedelta(seconds=5),
) -> int:
    """Talk to running bots as a person."""
    if sum((thread is not None, new is not None, list_)) > 1:
        print("chatbot chat: give only one of --thread, --new and --list", file=sys.stderr)
        return EXIT_USAGE
    info = ControlDirectory(config.absolute().parent).running()
    with logging_to(sys.stderr, format="console", level="error"):
        control, connection = ControlDirectory(config.absolute().parent), connection_to(info, config)
        if not connection.can_issue_tokens:
            message = (
                "`chatbot chat` needs a user of your own, and creating one takes the resource's key or Microsoft "
                "Entra ID; use `chatbot threads` and `chatbot send`, which act as a bot"
            )
            raise StateError(message)
        anyio.run(_chat, config, info, connection, control, as_ or _own_name(), thread, new, list_, wait)
    return 0


async def _chat(
    config: Path,
    info: RunInfo,
    connection: Connection,
    control: ControlDirectory,
    name: str,
    thread: str | None,
    topic: str | None,
    is_list: bool,
    answer_timeout: timedelta,
) -> None:
    async with connection.open() as resource:
        person = await find_person(name, control, info, resource)
        if is_list:
            await _list(person)
            return
        if topic is not None:
            joined = await person.open_thread(topic)
        else:
            joined = await (person.join(ThreadId(thread)) if thread else person.default_thread())
        history = await _History.of(control, info)
        terminal = Terminal(prompt_of(person), history.lines, on_line=history.add)
        if terminal.is_interactive:
            topic = (await person.service.get_thread(joined)).topic
            print(
                f"{printable(topic)}  {joined}\nYou are {printable(name)}. /help shows more, Ctrl-D leaves.\n",
                flush=True,
            )
        unsent = partial(count_unsent, config, joined)
        await Session(person, joined, terminal, unsent, ChatCommands(control)).run(answer_timeout)


def prompt_of(person: ChatUser) -> str:
    """Return the text before the line that a person types."""
    return f"{printable(person.name)}> "


class _History:
    """The lines that were typed, in this session and in earlier ones.

    Args:
        control: where they are stored; None on Azure, where people's words stay out of files.
        lines: those of earlier sessions, oldest first.
    """

    def __init__(self, control: ControlDirectory | None, lines: list[str]) -> None:
        self._control = control
        self.lines = lines

    @classmethod
    async def of(cls, control: ControlDirectory, info: RunInfo) -> Self:
        """Return the history of the sessions with these bots."""
        if not is_on_emulator(info):
            return cls(None, [])
        return cls(control, await anyio.to_thread.run_sync(_stored_history, control))

    async def add(self, line: str) -> None:
        """Remember a line; another session may do so at the same time."""
        if not line.strip() or self.lines[-1:] == [line]:
            return
        self.lines.append(line)
        if self._control is not None:
            with suppress(StoreError, OSError):  # whoever cannot write there can talk all the same
                await anyio.to_thread.run_sync(_store_in_history, self._control, line)


def _stored_history(control: ControlDirectory) -> list[str]:
    try:
        lines = control.read_facts(_HISTORY).get("lines")
    except StoreError:  # a damaged history is worth no question: it begins anew
        return []
    return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []


def _store_in_history(control: ControlDirectory, line: str) -> None:
    control.write_facts(_HISTORY, {"lines": [*_stored_history(control), line][-MAX_HISTORY:]})


async def _list(person: ChatUser) -> None:
    async for item in person.threads():
        print(f"{item.id}  {printable(item.topic)}")


def _own_name() -> str:
    try:
        return getpass.getuser().capitalize()
    except (OSError, KeyError, ImportError):  # the system user has no name, as in some containers
        return "Guest"
