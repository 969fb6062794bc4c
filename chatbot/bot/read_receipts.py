"""Send the bot's read receipts, and poll those of other participants.

`ReceiptSender` sends only the newest receipt. Receipts are a courtesy and independent of the durable cursor.

`ReceiptPoller` polls what others have read, if a handler subscribes to it. No request reports new receipts; the service
keeps only the latest receipt of each participant (REST: read receipts), and none in threads of more than 20. So
receipts are polled with the thread, as long as its last message is recent. The receipts reported to handlers are stored
like a state, in the commit of the event: each receipt is reported once, also across restarts. If the service refuses
to list receipts, polling pauses; no other work waits for it.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

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
"""Maximum number of participants; the service keeps no receipts in larger threads (service limits)."""


class ReceiptSender:
    """Sends the bot's read receipts in one thread.

    Args:
        due: Message up to which a receipt is due.
        sent: Message up to which a receipt was sent.
        people: Number of participants; 0 if unknown.
        counted: Version up to which `people` includes joins and leaves.
    """

    __slots__ = ("_back_off", "_counted", "due", "people", "sent")

    def __init__(
        self, due: MessageId | None = None, sent: MessageId | None = None, *, people: int = 0, counted: int = 0
    ) -> None:
        self.due = due
        self.sent = sent
        self.people = people
        self._counted = counted
        self._back_off: BackOff | None = None

    @classmethod
    def of(cls, record: ThreadRecord | None) -> ReceiptSender:
        """Create the sender from a stored record."""
        return cls(record.receipt_due, record.receipt_sent) if record else cls()

    @property
    def is_due(self) -> bool:
        """Whether a receipt must still be sent."""
        return self.due is not None and (self.sent is None or int(self.due) > int(self.sent))

    @property
    def is_worth_waiting_for(self) -> bool:
        """Whether a receipt is due and none has failed so far: a failing receipt must not delay the bot's stop."""
        return self.is_due and not (self._back_off is not None and self._back_off.has_failed)

    def mark_due(self, message: MessageId) -> None:
        """Make a receipt due up to this message; an older message changes nothing."""
        if self.due is None or int(message) > int(self.due):
            self.due = message

    def recount(self, people: int, counted: int) -> None:
        """Set the number of participants, which includes joins and leaves up to version `counted`."""
        self.people, self._counted = people, counted

    def count_people(self, message: ChatMessage) -> None:
        """Update the number of participants from a system message."""
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
        during: Callable[[ThreadId, MessageId], AbstractContextManager[object]],
    ) -> tuple[float | None, SettleReceipt | None]:
        """Send the due receipt. A refused receipt is dropped; any other failure is retried.

        Args:
            service: The service, accessed as the bot.
            thread: The thread.
            budget: Quotas of the thread.
            log: Logger bound to bot and thread.
            during: Context manager around the request.

        Returns:
            The seconds to wait if no receipt may be sent yet, and the write that records a settled receipt.
        """
        if not self.is_due or self.due is None:
            return None, None
        if self.people <= MAX_PEOPLE:
            now = get_running_loop().time()
            if delay := budget.delay(Operation.SEND_RECEIPT, now):
                return delay, None
            budget.spend(Operation.SEND_RECEIPT, now)
            try:
                with during(thread, self.due):
                    await service.send_receipt(thread, self.due)
            except (Rejected, NotFound, Forbidden) as error:
                log.debug("receipt.refused", message=self.due, error=error)
            except ServiceError as error:
                self._back_off = self._back_off or BackOff()
                pause = self._back_off.failed(error, now, Operation.SEND_RECEIPT)
                budget.block(Operation.SEND_RECEIPT, now + pause)
                log.debug("receipt.delayed", message=self.due, error=error)
                return pause, None
        self.sent = self.due
        self._back_off = None
        return None, SettleReceipt(thread, self.due)


ACTIVE_SECONDS: Final = 3600.0
"""Seconds after the last message of a thread for which its receipts are polled."""

REFUSED_PAUSE: Final = 60.0

_NONE_KNOWN: Final[Mapping[UserId, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ReportedReceipts:
    """Receipts that were reported to the handlers.

    Args:
        messages: Id of the last read message, by user id.
    """

    messages: dict[str, str] = field(default_factory=dict)


class ReceiptPoller:
    """Polls the read receipts of other participants in one thread.

    Args:
        context: The bot's environment.
        handlers: The bot's handlers; receipts are polled only if one of them subscribes to them.
        state: State of the thread.
    """

    __slots__ = ("_context", "_handlers", "_kind", "_known", "_state")

    def __init__(self, context: BotContext, handlers: HandlerRunner, state: ThreadState) -> None:
        self._context = context
        self._handlers = handlers
        self._state = state
        self._kind = _kind_of_told()
        self._known: Mapping[UserId, int] = _NONE_KNOWN

    async def poll(self, floor: int) -> list[Receipt]:
        """Poll the receipts if the quota allows it, and return the new ones.

        Args:
            floor: Message id above which the bot was in the thread.
        """
        now = get_running_loop().time()
        if self.delay:
            return []
        self._state.budget.spend(Operation.LIST_RECEIPTS, now)
        try:
            receipts = [receipt async for receipt in self._context.service.list_receipts(self._state.key)]
        except ServiceError as error:
            retry_after = error.retry_after if isinstance(error, Throttled) else None
            self._state.budget.block(Operation.LIST_RECEIPTS, now + (retry_after or REFUSED_PAUSE))
            self._state.log.debug("receipts.refused", error=error)
            return []
        return [receipt for receipt in receipts if self._is_news(receipt.reader, int(receipt.message), floor)]

    async def events(
        self, receipts: Sequence[Receipt], floor: int
    ) -> AsyncGenerator[tuple[ReadReceiptReceived, Write]]:
        """Yield an event for each unreported receipt, with the write for the event's commit.

        A receipt counts as reported once the next one is requested. So the caller must handle and commit each event
        before it continues, or the receipt is lost.
        """
        if not receipts:
            return
        key = StateKey(self._kind.name, self._state.key)
        stored = await self._context.conversations.state(key)
        reported: ReportedReceipts = self._kind.load(stored.value if stored else None)
        known = self._known = {UserId(reader): int(message) for reader, message in reported.messages.items()}
        for receipt in sorted(receipts, key=lambda receipt: (receipt.read_on, int(receipt.message))):
            if not self._is_news(receipt.reader, int(receipt.message), floor):
                continue
            reported = ReportedReceipts({**reported.messages, receipt.reader: receipt.message})
            event = ReadReceiptReceived(
                bot=self._context.user, thread=self._state.key, occurred_on=receipt.read_on, receipt=receipt
            )
            version = max(int(self._context.clock() * 1000), stored.version + 1 if stored else 1)
            # The write goes into the same commit as the event: separately, a crash would lose or repeat the event.
            yield event, SaveState(key, self._kind.dump(reported), stored.version if stored else None, version)
            stored = StoredState(self._kind.dump(reported), version)
            known[receipt.reader] = int(receipt.message)

    @property
    def delay(self) -> float:
        """Seconds until the next poll is allowed."""
        return self._state.budget.delay(Operation.LIST_RECEIPTS, get_running_loop().time())

    def has_news(self, latest: Mapping[UserId, int], floor: int) -> bool:
        """Return whether any of these receipts is new.

        Args:
            latest: Number of the last message that each participant has read.
            floor: Message id above which the bot was in the thread.
        """
        return any(self._is_news(reader, number, floor) for reader, number in latest.items())

    def is_wanted(self, last_message_at: float, people: int) -> bool:
        """Return whether receipts should be polled: a handler subscribes, and the thread is active and small enough.

        Args:
            last_message_at: Time of the last message, in seconds of the event loop's clock.
            people: Number of participants.
        """
        if people > MAX_PEOPLE or not self._handlers.dispatcher.subscribes(ReadReceiptReceived):
            return False
        return get_running_loop().time() - last_message_at < ACTIVE_SECONDS

    def _is_news(self, reader: UserId, number: int, floor: int) -> bool:
        """Return whether a receipt is someone else's, above the floor, and newer than the known one."""
        return reader != self._context.user and number > max(floor, self._known.get(reader, 0))


@cache
def _kind_of_told() -> StateType:
    kind = state_type_of(State[ReportedReceipts])
    assert kind is not None
    # Do not change this name: existing stores contain it, wherever the class is defined now.
    return replace(kind, name="chatbot.bot.reading.Told")
