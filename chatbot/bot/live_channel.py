"""Live channel of a thread: typing indicators, participants and streams, used while a handler runs."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from typing import Final

import anyio

from chatbot.actions import (
    Action,
    ActionKey,
    EditMessage,
    KeyedAction,
    SendMessage,
    action_key,
    piece_key,
    removal_key,
)
from chatbot.bot.commits import ThreadCommits
from chatbot.bot.environment import BotContext
from chatbot.bot.membership import Presence
from chatbot.bot.read_receipts import MAX_PEOPLE
from chatbot.dispatch import NoLiveChannel, Outcome
from chatbot.errors import ServiceError, Throttled
from chatbot.events import Event
from chatbot.model import Participant
from chatbot.outbox.action_rows import person_who_caused, row_of
from chatbot.outbox.stream import Stream, interrupted_text
from chatbot.service.budget import Operation
from chatbot.stores.records import RowStatus

TYPING_SECONDS: Final = 5.0
"""Seconds between two typing notifications; the service allows 15 per minute (service limits)."""

PARTICIPANTS_SECONDS: Final = 60.0
"""Seconds for which a list of participants is reused, unless a join or leave is seen."""

MAX_STREAMS: Final = 16
"""Number of a failed handler's first actions that are checked for unfinished streams."""


class ThreadLiveChannel:
    """The live channel of one thread while an event is handled.

    Args:
        context: The bot's environment.
        commits: Cursor, outbox and receipts of the thread.
        event: The event.
    """

    __slots__ = ("_commits", "_context", "_event", "_lock", "_state")

    def __init__(self, context: BotContext, commits: ThreadCommits, event: Event) -> None:
        self._context = context
        self._commits = commits
        self._state = commits.state
        self._event = event
        self._lock: anyio.Lock | None = None  # made by the first stream

    async def show_typing(self) -> float:
        """Send one typing indicator; return the seconds after which to send the next."""
        state, now = self._state, anyio.current_time()
        if self._commits.receipts.people > MAX_PEOPLE:
            return PARTICIPANTS_SECONDS
        wait = state.budget.delay(Operation.SEND_TYPING, now)
        if wait:
            return wait
        state.budget.spend(Operation.SEND_TYPING, now)
        try:
            await self._context.service.send_typing(state.key, display_name=self._context.display_name)
        except ServiceError as error:
            if isinstance(error, Throttled):
                state.budget.block_throttled(Operation.SEND_TYPING, now, error.retry_after)
            state.log.debug("typing.refused", error=error)
        return TYPING_SECONDS

    async def participants(self) -> Sequence[Participant]:
        """Return who is in the thread; the list is reused for a while, unless someone joins or leaves.

        Raises:
            ServiceError: The service did not return the list.
        """
        state, now = self._state, anyio.current_time()
        if state.people is None or now - state.people_at > PARTICIPANTS_SECONDS:
            wait = state.budget.delay(Operation.LIST_PARTICIPANTS, now)
            if wait:
                msg = f"the participants were listed too often for the service's quota; retry in {wait:.1f} s"
                raise Throttled(msg, retry_after=wait)
            state.budget.spend(Operation.LIST_PARTICIPANTS, now)
            listed = self._context.service.list_participants(state.key)
            try:
                state.people = tuple([participant async for participant in listed])
            except Throttled as error:
                state.budget.block_throttled(Operation.LIST_PARTICIPANTS, now, error.retry_after)
                raise
            state.people_at = now
        return state.people

    async def stream(self, key: ActionKey, source: AsyncIterable[str]) -> Sequence[Action]:
        """Show a text in one message while its pieces arrive. Streams of one thread run one at a time."""
        state, commits = self._state, self._commits
        if state.membership.presence is not Presence.IN:  # the store does not know the thread yet
            return await NoLiveChannel().stream(key, source)
        self._lock = self._lock or anyio.Lock()
        async with self._lock:
            stream = Stream(
                key,
                state.key,
                service=self._context.service,
                outbox=commits.outbox,
                budget=state.budget,
                journal=self._journal,
            )
            try:
                actions = await stream.run(source, await self._context.find_row(key))
            except BaseException:
                if stream.shown:
                    commits.unfinished_streams[key] = stream.shown
                raise
            commits.unfinished_streams.pop(key, None)
            return actions

    async def pieces(self, key: ActionKey) -> int:
        """Return the number of pieces of an earlier event's message; deleted pieces do not count."""
        find_row, count = self._context.find_row, 1
        while await find_row(piece_key(key, count)) and not await find_row(removal_key(key, count)):
            count += 1
        return count

    async def _journal(self, key: ActionKey, action: SendMessage) -> None:
        """Store a stream's message before it is first sent, so that it is found by its key after a crash."""
        row = row_of(
            KeyedAction(key, action),
            self._state.key,
            after=self._commits.latest_version,
            created_ms=int(self._context.clock() * 1000),
            caused_by=person_who_caused(self._event),
        )
        await self._commits.enqueue([row])


async def broken_streams(
    context: BotContext, commits: ThreadCommits, event: Event, failed: Outcome, attempts: int
) -> tuple[KeyedAction, ...]:
    """Return edits that mark a failed handler's streamed texts as interrupted.

    Args:
        context: The bot's environment.
        commits: Cursor, outbox and receipts of the thread.
        event: The event that was given up.
        failed: Outcome of its handler, or of its error handler.
        attempts: Number of attempts; part of the key, so that a failed retry edits the text again.
    """
    thread = commits.state.thread
    if thread is None or not failed.handler:
        return ()
    broken: list[KeyedAction] = []
    for ordinal in range(MAX_STREAMS):
        # Before its commit, an event has rows only for its streams, which are journalled before they are sent.
        key = action_key(context.user, thread, event.key, failed.handler, ordinal)
        row = await context.find_row(key)
        if row is not None and isinstance(row.action, SendMessage) and row.status is not RowStatus.FAILED:
            shown = commits.unfinished_streams.pop(key, row.action.content)
            edit = EditMessage(key, interrupted_text(shown))
            broken.append(KeyedAction(ActionKey(f"{key}.broken.{attempts}"), edit))
    return tuple(broken)
