"""Read receipts, those that the bot owes and those of other people.

`ReceiptSender` sends the newest receipt only, as a courtesy; the durable cursor is another thing.

`ReceiptPoller` asks what others have read, where a handler wants to know, while people talk. No request tells that
there is a new receipt, and the service keeps only the latest of each person (REST: read receipts), and none in threads
of more than 20. So they are polled with the thread, as long as somebody has spoken not long ago. What handlers were
told is stored like a state, in the event's own commit: each receipt is told once, also over restarts. A service that
does not give them is left alone for a while; nothing else waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.bot.environment import BotContext
from chatbot.bot.handlers import HandlerRunner
from chatbot.bot.membership import ThreadState
from chatbot.conversation.state import State, StateType, state_type_of
from chatbot.errors import Forbidden, NotFound, Rejected, ServiceError, Throttled
from chatbot.events import ReadReceiptReceived
from chatbot.model import ChatMessage, MessageId, MessageType, Receipt, ThreadId, UserId
from chatbot.service.back_off import BackOff
from chatbot.service.base import ChatService
from chatbot.service.budget import Budget, Operation
from chatbot.stores.records import StateKey, StoredState, ThreadRecord
from chatbot.stores.writes import SaveState, SettleReceipt, Write

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MAX_PEOPLE: Final = 20
"""In larger threads the service keeps no receipts (service limits)."""


class ReceiptSender:
    """The receipts of one thread.

    Args:
        due: the message up to which one is owed.
        sent: the message up to which one was sent.
        people: how many are in the thread, as far as known; 0 when unknown.
        counted: the version up to which comings and goings are in `people` already.
    """

    __slots__ = ("_back_off", "_counted", "due", "people", "sent")

    def __init__(
        self, due: MessageId | None = None, sent: MessageId | None = None, *, people: int = 0, counted: int = 0
    ) -> None:
        self.due = due
        self.sent = sent
        self.people = people
        self._counted = counted
        self._back_off = BackOff()

    @classmethod
    def of(cls, record: ThreadRecord | None) -> ReceiptSender:
        """As the store remembers them."""
        return cls(record.receipt_due, record.receipt_sent) if record else cls()

    @property
    def is_owed(self) -> bool:
        """Whether one is still to be sent."""
        return self.due is not None and (self.sent is None or int(self.due) > int(self.sent))

    @property
    def is_worth_waiting_for(self) -> bool:
        """Whether one is still to be sent and nothing stood in its way so far: a courtesy holds up no stop."""
        return self.is_owed and not self._back_off.has_failed

    def owe(self, message: MessageId) -> None:
        """One is due up to this message; an older one than is due already changes nothing."""
        if self.due is None or int(message) > int(self.due):
            self.due = message

    def recount(self, people: int, counted: int) -> None:
        """So many are in the thread by now, comings and goings up to this version included."""
        self.people, self._counted = people, counted

    def count_people(self, message: ChatMessage) -> None:
        """Keep count of the people by what a system message says."""
        if not self.people or message.version <= self._counted:
            return
        if message.type is MessageType.PARTICIPANT_ADDED:
            self.people += len(message.participants)
        elif message.type is MessageType.PARTICIPANT_REMOVED:
            self.people = max(1, self.people - len(message.participants))

    async def send(
        self,
        service: ChatService,
        thread: ThreadId,
        budget: Budget,
        log: FilteringBoundLogger,
        *,
        during: Callable[[ThreadId, MessageId], AbstractContextManager[object]] = lambda _thread, _message: (
            nullcontext()
        ),
    ) -> tuple[float | None, SettleReceipt | None]:
        """Send what is owed. One that is refused is forgotten; one that got lost is sent again.

        Args:
            service: the bot's view of it.
            thread: where.
            budget: the thread's quotas.
            log: bound to bot and thread.
            during: entered while a receipt is being sent.

        Returns:
            Seconds to wait if none may be sent yet; and what to remember once one is settled.
        """
        if not self.is_owed or self.due is None:
            return None, None
        if self.people <= MAX_PEOPLE:
            now = anyio.current_time()
            delay = budget.delay(Operation.SEND_RECEIPT, now)
            if delay:
                return delay, None
            budget.spend(Operation.SEND_RECEIPT, now)
            try:
                with during(thread, self.due):
                    await service.send_receipt(thread, self.due)
            except (Rejected, NotFound, Forbidden) as error:
                log.debug("receipt.refused", message=self.due, error=error)
            except ServiceError as error:
                pause = self._back_off.failed(error, now)
                budget.block(Operation.SEND_RECEIPT, now + pause)
                log.debug("receipt.delayed", message=self.due, error=error)
                return pause, None
        self.sent = self.due
        self._back_off.succeeded()
        return None, SettleReceipt(thread, self.due)


ACTIVE_SECONDS: Final = 3600.0
"""How long after somebody has spoken it is asked what was read."""

REFUSED_PAUSE: Final = 60.0


@dataclass(frozen=True, slots=True)
class ReportedReceipts:
    """Up to which message each person is known to have read.

    Args:
        messages: the ids, by the person's.
    """

    messages: dict[str, str] = field(default_factory=dict)


class ReceiptPoller:
    """The receipts of others in one thread.

    Args:
        context: the bot's environment.
        handlers: the bot's handlers; nobody asks for receipts that none of them wants.
        state: what the bot knows of the thread.
    """

    __slots__ = ("_context", "_handlers", "_kind", "_known", "_state")

    def __init__(self, context: BotContext, handlers: HandlerRunner, state: ThreadState) -> None:
        self._context = context
        self._handlers = handlers
        self._state = state
        self._kind = _kind_of_told()
        self._known: dict[UserId, int] = {}

    async def poll(self, floor: int) -> list[Receipt]:
        """Ask what was read, if it is time; return what is new.

        Args:
            floor: the message above which the bot was there.
        """
        now = anyio.current_time()
        if self.delay:
            return []
        self._state.budget.spend(Operation.LIST_RECEIPTS, now)
        try:
            receipts = [receipt async for receipt in self._context.service.list_receipts(self._state.key)]
        except ServiceError as error:
            asked = error.retry_after if isinstance(error, Throttled) else None
            self._state.budget.block(Operation.LIST_RECEIPTS, now + (asked or REFUSED_PAUSE))
            self._state.log.debug("receipts.refused", error=error)
            return []
        return [receipt for receipt in receipts if self._is_news(receipt.reader, int(receipt.message), floor)]

    async def events(
        self, receipts: Sequence[Receipt], floor: int
    ) -> AsyncGenerator[tuple[ReadReceiptReceived, Write]]:
        """Yield an event for each receipt that handlers were not told of, with what to write in the event's commit.

        A receipt counts as told when the next one is asked for, so the event must be handled and committed by then.
        """
        if not receipts:
            return
        key = StateKey(self._kind.name, self._state.key)
        stored = await self._context.conversations.state(key)
        told: ReportedReceipts = self._kind.load(stored.value if stored else None)
        self._known = {UserId(reader): int(message) for reader, message in told.messages.items()}
        for receipt in sorted(receipts, key=lambda receipt: (receipt.read_on, int(receipt.message))):
            if not self._is_news(receipt.reader, int(receipt.message), floor):
                continue
            told = ReportedReceipts({**told.messages, receipt.reader: receipt.message})
            event = ReadReceiptReceived(
                bot=self._context.user, thread=self._state.key, occurred_on=receipt.read_on, receipt=receipt
            )
            version = max(int(self._context.clock() * 1000), stored.version + 1 if stored else 1)
            yield event, SaveState(key, self._kind.dump(told), stored.version if stored else None, version)
            stored = StoredState(self._kind.dump(told), version)
            self._known[receipt.reader] = int(receipt.message)

    @property
    def delay(self) -> float:
        """Seconds until it may be asked again."""
        return self._state.budget.delay(Operation.LIST_RECEIPTS, anyio.current_time())

    def has_news(self, latest: Mapping[UserId, int], floor: int) -> bool:
        """Return whether one of these is new.

        Args:
            latest: the number of the latest message that each person has read.
            floor: the message above which the bot was there.
        """
        return any(self._is_news(reader, number, floor) for reader, number in latest.items())

    def is_wanted(self, spoke_at: float, people: int) -> bool:
        """Return whether handlers want to know what was read here.

        Args:
            spoke_at: when somebody last spoke.
            people: how many are in the thread.
        """
        is_active = anyio.current_time() - spoke_at < ACTIVE_SECONDS and people <= MAX_PEOPLE
        return is_active and self._handlers.dispatcher.subscribes(ReadReceiptReceived)

    def _is_news(self, reader: UserId, number: int, floor: int) -> bool:
        """Return whether it is another's, of a message that the bot was there for, and newer than what is known."""
        return reader != self._context.user and number > max(floor, self._known.get(reader, 0))


@cache
def _kind_of_told() -> StateType:
    kind = state_type_of(State[ReportedReceipts])
    assert kind is not None
    # Under this name it stands in the stores of every earlier version, wherever the class is defined.
    return replace(kind, name="chatbot.bot.reading.Told")
