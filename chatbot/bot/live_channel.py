"""A lane's open line into its thread: typing, who is there, and texts that grow while a handler runs."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.actions import Action, ActionKey, KeyedAction, SendMessage, piece_key, removal_key
from chatbot.bot.membership import Presence
from chatbot.bot.read_receipts import MAX_PEOPLE
from chatbot.dispatch import NoLiveChannel
from chatbot.errors import ServiceError, Throttled
from chatbot.events import Event
from chatbot.model import Participant
from chatbot.outbox.action_rows import person_behind, row_of
from chatbot.outbox.stream import Stream
from chatbot.service.budget import Operation

if TYPE_CHECKING:
    from chatbot.bot.lane import Lane

TYPING_SECONDS: Final = 5.0
"""Between two typing notifications: the service takes 15 a minute (service limits)."""

PEOPLE_SECONDS: Final = 60.0
"""How long it is believed who is in a thread, if nobody is seen coming or going."""


class ThreadLiveChannel:
    """The line of one lane while it handles one event.

    Args:
        lane: whose.
        event: what is handled.
    """

    __slots__ = ("_event", "_lane", "_lock")

    def __init__(self, lane: Lane, event: Event) -> None:
        self._lane = lane
        self._event = event
        self._lock = anyio.Lock()

    async def show_typing(self) -> float:
        """Show once that the bot is writing; gives the seconds after which to come again."""
        lane, now = self._lane, anyio.current_time()
        if lane.handling.receipts.people > MAX_PEOPLE:
            return PEOPLE_SECONDS
        wait = lane.budget.delay(Operation.SEND_TYPING, now)
        if wait:
            return wait
        lane.budget.spend(Operation.SEND_TYPING, now)
        try:
            await lane.bot.service.send_typing(lane.thread, display_name=lane.bot.display_name)
        except ServiceError as error:
            lane.log.debug("typing.refused", error=error)
        return TYPING_SECONDS

    async def participants(self) -> Sequence[Participant]:
        """Who is in the thread; asked of the service once for several events, while nobody comes or goes.

        Raises:
            ErrorResponse: the service does not say.
        """
        lane, now = self._lane, anyio.current_time()
        if lane.people is None or now - lane.people_at > PEOPLE_SECONDS:
            wait = lane.budget.delay(Operation.LIST_PARTICIPANTS, now)
            if wait:
                msg = f"who is in the thread was asked too often; the service takes it again in {wait:.1f} s"
                raise Throttled(msg, retry_after=wait)
            lane.budget.spend(Operation.LIST_PARTICIPANTS, now)
            lane.people = tuple([one async for one in lane.bot.service.list_participants(lane.thread)])
            lane.people_at = now
        return lane.people

    async def stream(self, key: ActionKey, source: AsyncIterable[str]) -> Sequence[Action]:
        """Show a text in one message while its pieces arrive; one stream after the other."""
        lane = self._lane
        if lane.membership.presence is not Presence.IN:  # the store does not know the thread yet
            return await NoLiveChannel().stream(key, source)
        async with self._lock:
            stream = Stream(
                key,
                lane.thread,
                service=lane.bot.service,
                outbox=lane.handling.outbox,
                budget=lane.budget,
                journal=self._journal,
            )
            try:
                actions = await stream.run(source, await lane.bot.find_row(key))
            except BaseException:
                if stream.shown:
                    lane.handling.half_shown[key] = stream.shown
                raise
            lane.handling.half_shown.pop(key, None)
            return actions

    async def pieces(self, key: ActionKey) -> int:
        """In how many pieces the message of an earlier event stands in the thread; those that were deleted are not."""
        find_row, count = self._lane.bot.find_row, 1
        while await find_row(piece_key(key, count)) and not await find_row(removal_key(key, count)):
            count += 1
        return count

    async def _journal(self, key: ActionKey, action: SendMessage) -> None:
        lane = self._lane
        row = row_of(
            KeyedAction(key, action),
            lane.thread,
            after=lane.handling.latest_version,
            created_ms=int(lane.bot.clock() * 1000),
            caused_by=person_behind(self._event),
        )
        await lane.handling.enqueue([row])
