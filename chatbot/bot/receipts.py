"""What a bot owes a thread in read receipts: the newest only, as a courtesy; the durable cursor is another thing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.errors import Forbidden, NotFound, Rejected, ServiceError
from chatbot.model import ChatMessage, MessageId, MessageType, ThreadId
from chatbot.service.back_off import BackOff
from chatbot.service.base import ChatService
from chatbot.service.budget import Budget, Operation
from chatbot.stores.base import SettleReceipt, ThreadRecord

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MAX_PEOPLE: Final = 20
"""In larger threads the service keeps no receipts (service limits)."""


class Receipts:
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
    def of(cls, record: ThreadRecord | None) -> Receipts:
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
                budget.close(Operation.SEND_RECEIPT, now + pause)
                log.debug("receipt.delayed", message=self.due, error=error)
                return pause, None
        self.sent = self.due
        self._back_off.succeeded()
        return None, SettleReceipt(thread, self.due)
