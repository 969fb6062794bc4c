"""What others in a thread have read: asked of the service only where a handler wants to know, while people talk.

Nothing rings for a receipt, and the service keeps only the latest of each person (REST: read receipts), and none in
threads of more than 20. So they are asked for on the thread's own beat, as long as somebody has spoken not long ago.
What handlers were told is remembered like a state, in the event's own commit: each receipt is told, once, also over
restarts. A service that does not give them is left alone for a while; nothing else waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.bot.receipts import MAX_PEOPLE
from chatbot.conversation.kind import Kind, kind_of
from chatbot.conversation.state import State
from chatbot.errors import ServiceError, Throttled
from chatbot.events import ReadReceiptReceived
from chatbot.model import Receipt, UserId
from chatbot.service.budget import Operation
from chatbot.stores.conversation import SaveState, StateKey, StoredState

if TYPE_CHECKING:
    from chatbot.bot.lane import Lane

ACTIVE_SECONDS: Final = 3600.0
"""How long after somebody has spoken it is asked what was read."""

REFUSED_PAUSE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Told:
    """Up to which message each person is known to have read.

    Args:
        messages: the ids, by the person's.
    """

    messages: dict[str, str] = field(default_factory=dict)


class Reading:
    """The receipts of others in one thread.

    Args:
        lane: whose.
    """

    __slots__ = ("_kind", "_known", "_lane")

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._kind = _kind_of_told()
        self._known: dict[UserId, int] = {}

    async def run(self) -> None:
        """Ask what was read, if it is time, and have the handlers told of what is new.

        Raises:
            TryAgain, StoreError: as `Handling.handle`.
        """
        lane, now = self._lane, anyio.current_time()
        if not self._is_wanted(now) or self.delay:
            return
        lane.budget.spend(Operation.LIST_RECEIPTS, now)
        try:
            receipts = [receipt async for receipt in lane.bot.service.list_receipts(lane.thread)]
        except ServiceError as error:
            asked = error.retry_after if isinstance(error, Throttled) else None
            lane.budget.close(Operation.LIST_RECEIPTS, now + (asked or REFUSED_PAUSE))
            lane.log.debug("receipts.refused", error=error)
            return
        await self._tell([one for one in receipts if self._is_news(one.reader, int(one.message))])

    @property
    def delay(self) -> float:
        """Seconds until it may be asked again."""
        return self._lane.budget.delay(Operation.LIST_RECEIPTS, anyio.current_time())

    def lacks(self, latest: Mapping[UserId, int]) -> bool:
        """Whether handlers want to know of one of these and do not yet.

        Args:
            latest: the number of the latest message that each person has read.
        """
        is_news = any(self._is_news(reader, number) for reader, number in latest.items())
        return is_news and self._is_wanted(anyio.current_time())

    def _is_wanted(self, now: float) -> bool:
        lane = self._lane
        is_active = now - lane.looking.spoke_at < ACTIVE_SECONDS and lane.handling.receipts.people <= MAX_PEOPLE
        return is_active and lane.bot.crew.dispatcher.subscribes(ReadReceiptReceived)

    def _is_news(self, reader: UserId, number: int) -> bool:
        """Whether it is another's, of a message that the bot was there for, and newer than what is known."""
        floor = max(self._lane.handling.cursor.floor, self._lane.arrived)
        return reader != self._lane.bot.user and number > max(floor, self._known.get(reader, 0))

    async def _tell(self, receipts: Sequence[Receipt]) -> None:
        if not receipts:
            return
        lane = self._lane
        key = StateKey(self._kind.name, lane.thread)
        stored = await lane.bot.conversations.state(key)
        told: Told = self._kind.load(stored.value if stored else None)
        self._known = {UserId(reader): int(message) for reader, message in told.messages.items()}
        for receipt in sorted(receipts, key=lambda one: (one.read_on, int(one.message))):
            if not self._is_news(receipt.reader, int(receipt.message)):
                continue
            if lane.bot.is_stopping or lane.handling.outbox.is_full:
                return
            told = Told({**told.messages, receipt.reader: receipt.message})
            event = ReadReceiptReceived(
                bot=lane.bot.user, thread=lane.thread, occurred_on=receipt.read_on, receipt=receipt
            )
            version = max(int(lane.bot.clock() * 1000), stored.version + 1 if stored else 1)
            write = SaveState(key, self._kind.dump(told), stored.version if stored else None, version)
            await lane.handling.handle(event, {}, write)
            stored = StoredState(self._kind.dump(told), version)
            self._known[receipt.reader] = int(receipt.message)
            await lane.flush()


@cache
def _kind_of_told() -> Kind:
    kind = kind_of(State[Told])
    assert kind is not None
    return kind
