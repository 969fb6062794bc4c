"""A person's talk in one thread: sends what they type, and shows what happens there, by looking again and again."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from datetime import timedelta
from typing import Final

import anyio

from chatbot.cli.person import Person
from chatbot.cli.terminal import Terminal
from chatbot.cli.transcript import Line, Tone, Transcript
from chatbot.errors import OutcomeUnknown, Throttled, Unreachable
from chatbot.model import ChatMessage, MessageId, ThreadId

LOOK_SECONDS: Final = 0.5
"""Between two looks: 120 a minute, of the 200 that the service allows one user in one thread."""

RECEIPTS_SECONDS: Final = 2.1
"""Between two looks at the receipts: the service allows five in ten seconds."""

RECEIPTS_AFTER: Final = 1.2
"""Until the first look at the receipts of one's words: bots that answer have read them by then."""

QUIET_SECONDS: Final = 1.0
"""When input has ended and bots have answered, the talk is over once nothing came for so long."""

EARLIER: Final = 5
_PAGE: Final = 50
_MOST_FAILURES: Final = 6


class Session:
    """One talk.

    Args:
        person: who talks.
        thread: where; the person is in it.
        terminal: where they type and read.
        unsent: tells how much the bots still want to say in the thread.
    """

    def __init__(
        self, person: Person, thread: ThreadId, terminal: Terminal, unsent: Callable[[], Awaitable[int]]
    ) -> None:
        self._person = person
        self._service = person.service
        self._thread = thread
        self._terminal = terminal
        self._unsent = unsent
        names = {bot.user_id: bot.display_name for bot in person.info.bots} | {person.user: person.name}
        self._transcript = Transcript(person.user, names)
        self._unread: MessageId | None = None
        self._receipts_at = 0.0
        self._sent_at = self._heard_at = 0.0
        self._failures = 0

    async def run(self, patience: timedelta) -> None:
        """Talk until the person ends it.

        Args:
            patience: how long to wait for answers when the input has ended.

        Raises:
            ServiceError: the service is gone, or refuses.
        """
        self._show(self._transcript.news(await self._messages(), has_own=True)[-EARLIER:])
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            async with aclosing(self._terminal.lines()) as lines:
                async for line in lines:
                    await self._say(line)
            group.cancel_scope.cancel()
        if self._sent_at and not self._terminal.is_interactive:
            await self._listen_on(patience.total_seconds())

    async def _say(self, line: str) -> None:
        if not line.strip():
            return
        if not self._terminal.is_echoing:
            self._show([Line(self._person.name, line, Tone.SAID)])
        while True:
            try:
                self._unread = await self._service.send_message(self._thread, line, display_name=self._person.name)
            except Throttled as error:
                await anyio.sleep(error.retry_after or 1.0)
                continue
            except OutcomeUnknown:
                self._show([Line("(perhaps", f"not sent: {line})", Tone.CHANGED)])
            self._sent_at = anyio.current_time()
            self._receipts_at = max(self._receipts_at, self._sent_at + RECEIPTS_AFTER)
            return

    async def _listen_on(self, patience: float) -> None:
        """Wait for answers to the last words: until they have come and it is quiet, or patience ends."""
        with anyio.move_on_after(patience):
            while True:
                await self._look()
                is_answered = self._heard_at > self._sent_at and not self._awaits_receipts
                is_quiet = is_answered and anyio.current_time() - self._heard_at >= QUIET_SECONDS
                if is_quiet and not await self._unsent():
                    return
                await anyio.sleep(LOOK_SECONDS)
        if count := await self._unsent():
            more = "another answer" if count == 1 else f"{count} more answers"
            print(
                f"chatbot: {more} under way; `--wait 30s` waits longer, and the next talk shows them", file=sys.stderr
            )

    async def _watch(self) -> None:
        while True:
            await self._look()
            await anyio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        """One look; a service that does not answer now is asked again, for a while."""
        try:
            lines = self._transcript.news(await self._messages())
            if lines:
                self._heard_at = anyio.current_time()
            self._show(lines)
            await self._look_at_receipts()
            self._failures = 0
        except Throttled as error:
            await anyio.sleep(error.retry_after or 1.0)
        except (Unreachable, OutcomeUnknown) as error:
            self._failures += 1
            if self._failures == _MOST_FAILURES:
                message = f"{error}; perhaps the bots were stopped: look where `chatbot run` was started"
                raise Unreachable(message) from error

    async def _messages(self) -> list[ChatMessage]:
        """What changed since the last look; at the first one, the newest page."""
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
        return self._transcript.readers(self._unread) < len(self._person.info.bots)

    async def _look_at_receipts(self) -> None:
        now = anyio.current_time()
        if not self._awaits_receipts or self._unread is None or now < self._receipts_at:
            return
        self._receipts_at = now + RECEIPTS_SECONDS
        receipts = [receipt async for receipt in self._service.list_receipts(self._thread)]
        self._show(self._transcript.reads(receipts, self._unread))

    def _show(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._terminal.show(line.shown(has_colors=self._terminal.has_colors))
