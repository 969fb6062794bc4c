"""A lane's looks: read what is new in the thread, put it in order, and have it handled."""

from __future__ import annotations

from contextlib import aclosing
from enum import Enum
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.bot.membership import absences
from chatbot.model import ChatMessage
from chatbot.polling.cursor import Change, moment
from chatbot.polling.message_events import event_of
from chatbot.polling.poller import Interrupted, Poll, full_poll, incremental_poll
from chatbot.polling.thread_list import is_covered
from chatbot.service.budget import Operation

if TYPE_CHECKING:
    from chatbot.bot.lane import Lane


WAKE_SECONDS: Final = 1.0
"""Between two looks for which Event Grid has woken a thread, in the long run: 60 a minute, of the 200 allowed."""

WAKES_AT_ONCE: Final = 4
"""So many further looks may follow at once before they are that far apart: people who talk are heard at once."""


class PollResult(Enum):
    """How a look, or one message of it, ended."""

    READ = "read"
    SKIPPED = "skipped"
    STOPPED = "stopped"
    REMOVED = "removed"


class ThreadPoller:
    """The looks of one lane, one after the other.

    Args:
        lane: whose.
        looked_ms: the service's time at which the thread was last known to be read; None if it was not.

    Attributes:
        looked_ms: the service's time at the start of the last look that read everything.
        rung_ms: the latest activity that the doorbell has told of and no look has covered yet; the service's time.
        run_at: when the last look began, in seconds of the event loop's clock; None if none did.
        spoke_at: when somebody last spoke in the thread, in seconds of the event loop's clock.
        unhandled_ms: the version of the message that was seen and is not handled yet.
        removal: the system message that tells of the bot's removal, as id to version; empty where none was shown.
    """

    __slots__ = (
        "_bot", "_is_stirred", "_known", "_lane", "_look", "_pardoned", "_shown", "_wakes", "_whole_at",
        "looked_ms", "removal", "run_at", "rung_ms", "spoke_at", "unhandled_ms",
    )  # fmt: skip

    def __init__(self, lane: Lane, *, looked_ms: int | None) -> None:
        self._lane = lane
        self._bot = lane.bot
        self._look: Poll | None = None
        self._known: int | None = None
        self._pardoned = 0
        self._is_stirred = False
        self._wakes = 0.0
        self._shown = lane.handling.cursor.top
        self._whole_at: float | None = None
        self.looked_ms = looked_ms
        self.run_at: float | None = None
        self.rung_ms: int | None = None
        self.removal: dict[int, int] = {}
        self.unhandled_ms: int | None = None
        self.spoke_at = anyio.current_time() - max(0.0, lane.bot.clock() - lane.handling.cursor.top / 1000)

    def begin(self) -> None:
        """The bot came into the thread."""
        self._whole_at, self.spoke_at, self.removal = None, anyio.current_time(), {}

    def pardon(self) -> None:
        """The bot is in the thread whatever its messages say: the return may be shown late, or not at all."""
        self._pardoned = max(self._pardoned, *self.removal, 0)
        self.removal = {}

    @property
    def has_looked(self) -> bool:
        """Whether the thread was read since the bot has started, or has come in."""
        return self._whole_at is not None

    def ring(self, stamp_ms: int) -> None:
        """The doorbell tells of activity at this time, the service's, epoch ms."""
        self.rung_ms = max(stamp_ms, self.rung_ms or 0)

    def stir(self) -> None:
        """Event Grid tells that something has happened."""
        self._is_stirred = True

    def next_wake(self, now: float) -> float:
        """When a look may follow what Event Grid tells: at once, unless it has told of much lately.

        Anybody who may deliver can tell of a thread as often as he likes, and each look takes of its quota.
        """
        return max(now, self._wakes - WAKES_AT_ONCE * WAKE_SECONDS)

    def interrupt(self) -> None:
        """End the look that is under way, if it is waiting for the service; a handler is left to finish."""
        if self._look is not None:
            self._look.interrupt()

    async def run(self) -> bool:
        """Read what is new and have it handled. True when the thread shows that the bot was removed.

        Raises:
            ErrorResponse: the thread cannot be read now.
            TryAgain, StoreError: as `Handling.handle`.
        """
        now = self.run_at = anyio.current_time()
        if self._is_stirred:
            self._wakes = max(self._wakes, now) + WAKE_SECONDS
        since_whole = None if self._whole_at is None else now - self._whole_at
        is_whole = self._bot.settings.cadence.is_full_poll_due(since_whole)
        look = self._look = self._begin_look(is_whole)
        shown_before = self._shown
        self._known = self._lane.handling.cursor.top if self._lane.arrived else None
        end = PollResult.STOPPED
        try:
            end = await self._read(look, begun=now)
        except Interrupted:
            self._lane.log.debug("look.interrupted")
        finally:
            self._look, self._lane.handling.proofs = None, {}
        if end is PollResult.READ:
            self._bot.trouble.over("read", place=self._lane.thread)
            if is_whole and self._lane.membership.was_told:
                await self._lane.tell_joined(None)
            self.looked_ms = look.server_time_ms
            self._shown = max(self._shown, look.top or 0)
            self._answer_bell(shown_before)
            if is_whole:
                self._whole_at = now
                self._lane.handling.rise(look.top)
        return end is PollResult.REMOVED

    def _answer_bell(self, shown_before: int) -> None:
        """A look has ended; the doorbell's news are covered if it began clearly after them.

        Args:
            shown_before: the highest version that earlier looks have shown.
        """
        is_rung_in_vain = self.rung_ms is not None and self._shown < self.rung_ms
        if is_rung_in_vain or (self._is_stirred and self._shown <= shown_before):
            self.spoke_at = anyio.current_time()  # what has rung does not show yet, and may show late
        self._is_stirred = False
        if self.rung_ms is not None and is_covered(self.rung_ms, self.looked_ms):
            self.rung_ms = None

    def _begin_look(self, is_whole: bool) -> Poll:
        service, thread, budget = self._bot.service, self._lane.thread, self._lane.budget
        cursor = self._lane.handling.cursor
        if is_whole:
            return full_poll(service, thread, cursor, budget, catch_up=self._whole_at is None)
        return incremental_poll(service, thread, cursor, budget, polled_ms=self.looked_ms)

    async def _read(self, look: Poll, *, begun: float) -> PollResult:
        """Handle what a look shows, batch by batch."""
        async with aclosing(look.batches()) as batches:
            async for batch in batches:
                self._lane.handling.proofs = look.keys
                self._bot.watch.at_work(self._lane.thread)
                if batch:
                    self._bot.tracer.looked(self._lane.thread, anyio.current_time() - begun)
                self._shown = max(self._shown, *(message.version for message in batch), 0)
                for message in self._in_order(batch):
                    if (
                        look.membership_changes
                        and (end := await self._go_by_comings(message, look)) is not PollResult.READ
                    ):
                        if end is PollResult.SKIPPED:
                            continue
                        return end
                    if not await self._notice(message):
                        return PollResult.STOPPED
        return PollResult.READ

    def _in_order(self, batch: list[ChatMessage]) -> list[ChatMessage]:
        """The batch in the order in which things happened."""
        cursor = self._lane.handling.cursor
        return sorted(batch, key=lambda message: moment(cursor.classify(message), message))

    async def _go_by_comings(self, message: ChatMessage, look: Poll) -> PollResult:
        """Deal with what a message means to a bot that was removed, or came back, while it did not look.

        Returns:
            REMOVED: it tells of a removal that no return follows. SKIPPED: nothing else is to be done about it.
        """
        lane, cursor = self._lane, self._lane.handling.cursor
        change = cursor.classify(message)
        if change is Change.NONE:
            return PollResult.READ
        when, is_new = moment(change, message)[0], change is Change.RECEIVED
        for begin, end in absences(look.membership_changes, arrived=max(lane.arrived, cursor.floor), known=self._known):
            if is_new and message.number == end:
                await lane.tell_joined(message.id)
                return PollResult.READ
            if is_new and message.number == begin:
                if end is None and begin > self._pardoned:
                    self.removal = {message.number: message.version}
                    return PollResult.REMOVED
                if end is not None and not lane.membership.was_told:
                    await lane.tell_left(message)
                lane.handling.skip(message.number, message.version)
                return PollResult.SKIPPED
            if end is not None and begin < when < end and message.sender != self._bot.user:
                lane.handling.skip(message.number, message.version)
                return PollResult.SKIPPED
        return PollResult.READ

    async def _notice(self, message: ChatMessage) -> bool:
        """Deal with one message as a look showed it. False when the turn should go no further."""
        handling = self._lane.handling
        change = handling.cursor.classify(message)
        if change is Change.NONE:
            return True
        if message.sender == self._bot.user and message.reply_key is not None:
            doubles = self._look.doubles.get(message.reply_key, ()) if self._look is not None else ()
            healing = await handling.outbox.confirm(message, doubles)
            await handling.enqueue(healing)
            if healing:
                self._bot.watch.healed()
        event = event_of(change, message, bot=self._bot.user, thread=self._lane.thread)
        if event is None:
            handling.skip(message.number, message.version)
            return True
        self._spoke(message)
        if self.unhandled_ms is None:
            self.unhandled_ms = message.version
            self._bot.watch.noticed(self._bot.clock() - message.version / 1000)
        await handling.handle(event, {message.number: message.version})
        self.unhandled_ms = None
        await self._lane.flush()
        return not self._bot.is_stopping and not handling.outbox.is_full

    def _spoke(self, message: ChatMessage) -> None:
        """Note that the thread is alive, and that others used up its shared quota."""
        now = anyio.current_time()
        self.spoke_at = now
        self._lane.handling.receipts.count_people(message)
        if message.participants:
            self._lane.people = None
        # By the service's clock: ours may be wrong, and what others have used up of the quota must be known.
        read_ms = self._look.server_time_ms if self._look is not None else None
        age = 0.0 if read_ms is None else (read_ms - message.version) / 1000
        if message.is_said and age < 60:
            # Another bot of this process has counted what it said already.
            change = None if message.sender in self._bot.commons.users else message.version
            self._lane.budget.count_other(Operation.WRITE_MESSAGE, now - max(0.0, age), change)
