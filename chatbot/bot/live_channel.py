"""What a handler does at once in its thread, while it runs: show typing, ask who is there, stream a text."""

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
"""Between two typing notifications: the service takes 15 a minute (service limits)."""

PARTICIPANTS_SECONDS: Final = 60.0
"""How long it is believed who is in a thread, if nobody is seen coming or going."""

MAX_STREAMS: Final = 16
"""Of so many of its first actions it is looked up whether a handler that failed has streamed them."""


class ThreadLiveChannel:
    """The live channel of one thread while one event is handled there.

    Args:
        context: the bot's environment.
        commits: what is known and owed in the thread.
        event: what is handled.
    """

    __slots__ = ("_commits", "_context", "_event", "_lock", "_state")

    def __init__(self, context: BotContext, commits: ThreadCommits, event: Event) -> None:
        self._context = context
        self._commits = commits
        self._state = commits.state
        self._event = event
        self._lock = anyio.Lock()

    async def show_typing(self) -> float:
        """Show once that the bot is writing; return the seconds after which to show it again."""
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
            state.log.debug("typing.refused", error=error)
        return TYPING_SECONDS

    async def participants(self) -> Sequence[Participant]:
        """Return who is in the thread; the service is asked once for several events, while nobody comes or goes.

        Raises:
            ServiceError: the service does not say.
        """
        state, now = self._state, anyio.current_time()
        if state.people is None or now - state.people_at > PARTICIPANTS_SECONDS:
            wait = state.budget.delay(Operation.LIST_PARTICIPANTS, now)
            if wait:
                msg = f"who is in the thread was asked too often; the service takes it again in {wait:.1f} s"
                raise Throttled(msg, retry_after=wait)
            state.budget.spend(Operation.LIST_PARTICIPANTS, now)
            listed = self._context.service.list_participants(state.key)
            state.people = tuple([participant async for participant in listed])
            state.people_at = now
        return state.people

    async def stream(self, key: ActionKey, source: AsyncIterable[str]) -> Sequence[Action]:
        """Show a text in one message while its pieces arrive; one stream after the other."""
        state, commits = self._state, self._commits
        if state.membership.presence is not Presence.IN:  # the store does not know the thread yet
            return await NoLiveChannel().stream(key, source)
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
        """Return in how many pieces the message of an earlier event stands in the thread; deleted ones do not count."""
        find_row, count = self._context.find_row, 1
        while await find_row(piece_key(key, count)) and not await find_row(removal_key(key, count)):
            count += 1
        return count

    async def _journal(self, key: ActionKey, action: SendMessage) -> None:
        """Write a stream's message to the store before it is first sent: after a crash its key finds it again."""
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
    """Return what tells people that texts which a handler has streamed for an event will not be finished.

    Args:
        context: the bot's environment.
        commits: what is known and owed in the thread.
        event: the event that is given up.
        failed: what came of its handler, or of its error handler.
        attempts: how often it was tried; a further try that fails says it anew.
    """
    thread = commits.state.thread
    if thread is None or not failed.handler:
        return ()
    broken: list[KeyedAction] = []
    for ordinal in range(MAX_STREAMS):
        # Of an event that is not committed, only streams have rows: they are journalled before they are sent.
        key = action_key(context.user, thread, event.key, failed.handler, ordinal)
        row = await context.find_row(key)
        if row is not None and isinstance(row.action, SendMessage) and row.status is not RowStatus.FAILED:
            shown = commits.unfinished_streams.pop(key, row.action.content)
            edit = EditMessage(key, interrupted_text(shown))
            broken.append(KeyedAction(ActionKey(f"{key}.broken.{attempts}"), edit))
    return tuple(broken)
