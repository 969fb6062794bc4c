"""Streaming: one message that grows while its text arrives.

Rules of this file
1. The message is journalled under its key before it is first sent; the outbox sends it, in order. Another attempt of
   the handler finds its row and edits the same message.
2. Edits that show progress are not journalled and may fail. They use at most their share of the thread's quota and
   leave one request for whatever comes next. They end with an ellipsis.
3. The final text is not sent here: it becomes actions that the event's commit journals. No edit of unknown outcome may
   overtake it, so after such an edit no further progress is shown, and the end waits until the edit has settled.
4. A text that is complete before any progress was shown is sent as an ordinary message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from typing import Final

import anyio
from anyio.abc import TaskGroup

from chatbot.actions import Action, ActionKey, DeleteMessage, EditMessage, SendMessage
from chatbot.errors import Forbidden, NotFound, OutcomeUnknown, ProtocolError, ServiceError, Throttled, Unreachable
from chatbot.message_size import split
from chatbot.model import MessageId, ThreadId
from chatbot.outbox.outbox import PROOF_DELAY_SECONDS, Outbox
from chatbot.service.base import ChatService
from chatbot.service.budget import Budget, Operation
from chatbot.stores.records import OutboxRow, RowStatus

FIRST_PAUSE: Final = 0.5
"""Seconds to wait for the whole text before a part of it is shown."""

MAX_EDIT_PAUSE: Final = 6.0
"""Seconds between two edits of a long text; at this pace a stream never exceeds its quota."""

ELLIPSIS: Final = " …"

INTERRUPTED: Final = "(This answer breaks off here: something went wrong.)"
"""Added to a text whose event was given up, so that nobody waits for the rest."""

JournalAction = Callable[[ActionKey, SendMessage], Awaitable[None]]
"""Commits an action, and adds it to the outbox."""


class Stream:
    """A text that is being streamed into one message.

    Args:
        key: the message's key.
        thread: the thread.
        service: the bot's view of the service.
        outbox: the thread's outbox.
        budget: the thread's quotas.
        journal: see `JournalAction`.
    """

    def __init__(
        self,
        key: ActionKey,
        thread: ThreadId,
        *,
        service: ChatService,
        outbox: Outbox,
        budget: Budget,
        journal: JournalAction,
    ) -> None:
        self._key = key
        self._thread = thread
        self._service = service
        self._outbox = outbox
        self._budget = budget
        self._journal = journal
        self._pieces: list[str] = []
        self._changed = anyio.Event()
        self._complete = anyio.Event()
        self._failure: BaseException | None = None
        self._message: MessageId | None = None
        self._is_journalled = False
        self._is_over = False
        self._gap = FIRST_PAUSE
        self._not_before = anyio.current_time() + FIRST_PAUSE
        self._settled_at = 0.0
        self.shown = ""
        """The text that people have seen, without the ellipsis."""

    async def run(self, source: AsyncIterable[str], earlier: OutboxRow | None) -> Sequence[Action]:
        """Read the source to its end, show what arrives, and return the actions that make the final text.

        Args:
            source: the pieces of the text.
            earlier: the row that an earlier attempt has journalled under the same key.

        Raises:
            StoreError: the message could not be journalled.
            Exception: whatever the source raises.
        """
        self._restore(earlier)
        async with anyio.create_task_group() as group:
            group.start_soon(self._show_progress, group)
            try:
                async for piece in source:
                    self._pieces.append(piece)
                    self._changed.set()
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException as error:  # also SystemExit: the task group would wrap it, and hide what it is
                self._failure = error
            self._complete.set()
            self._changed.set()
        await anyio.sleep(max(0.0, self._settled_at - anyio.current_time()))
        if self._failure is not None:
            raise self._failure
        return self._final_actions()

    def _restore(self, earlier: OutboxRow | None) -> None:
        if earlier is None:
            return
        self._is_journalled = True
        self._message = earlier.message
        self._is_over = earlier.status is RowStatus.FAILED

    def _final_actions(self) -> Sequence[Action]:
        text = "".join(self._pieces)
        if not self._is_journalled:
            return [SendMessage(text)] if text.strip() else []
        if not text.strip():
            return [DeleteMessage(self._key)]
        head, *rest = split(text)
        return [EditMessage(self._key, head), *(SendMessage(piece) for piece in rest)]

    # ── progress ──────────────────────────────────────────────────────────────────────────────

    async def _show_progress(self, group: TaskGroup) -> None:
        """Show the text as it grows until it is complete; a request is never canceled half-way."""
        try:
            while not self._is_over:
                await self._changed.wait()
                with anyio.move_on_after(self._pause()):
                    await self._complete.wait()
                if self._complete.is_set():
                    return
                self._changed = anyio.Event()
                await self._show("".join(self._pieces))
        except Exception as error:  # `run` raises it; the task group would wrap it in an ExceptionGroup
            self._failure = error
            group.cancel_scope.cancel()

    def _pause(self) -> float:
        now = anyio.current_time()
        return max(
            self._not_before - now,
            self._budget.delay(Operation.STREAM_MESSAGE, now),
            self._budget.delay(Operation.WRITE_MESSAGE, now, spare=1),
        )

    async def _show(self, text: str) -> None:
        if not text.strip():
            return
        self.shown = split(text)[0].rstrip()
        shown = self.shown + ELLIPSIS
        self._gap = min(MAX_EDIT_PAUSE, self._gap * 2)
        self._not_before = anyio.current_time() + self._gap
        self._message = self._message or self._outbox.message_of(self._key)
        if self._message is not None:
            await self._edit(self._message, shown)
        else:
            await self._send(shown)

    async def _send(self, text: str) -> None:
        if not self._is_journalled:
            await self._journal(self._key, SendMessage(text))
            self._is_journalled = True
            self._budget.spend(Operation.STREAM_MESSAGE, anyio.current_time())
        try:
            pause = await self._outbox.flush()
        except (Forbidden, NotFound):  # the lane checks whether the bot is still in the thread
            self._is_over = True
            return
        if self._outbox.message_of(self._key) is None:
            self._changed.set()  # not sent yet, so there is still something new to show
            self._not_before = anyio.current_time() + (pause or MAX_EDIT_PAUSE)

    async def _edit(self, message: MessageId, text: str) -> None:
        now = anyio.current_time()
        self._budget.spend(Operation.WRITE_MESSAGE, now)
        self._budget.spend(Operation.STREAM_MESSAGE, now)
        try:
            await self._service.edit_message(self._thread, message, content=text)
        except Throttled as error:
            self._budget.block_throttled(Operation.WRITE_MESSAGE, now, error.retry_after)
        except Unreachable:
            self._not_before = now + MAX_EDIT_PAUSE
        except (OutcomeUnknown, ProtocolError):
            self._is_over = True
            self._settled_at = anyio.current_time() + PROOF_DELAY_SECONDS
        except ServiceError:  # the message or the bot is gone; the final text will get the error
            self._is_over = True


def interrupted_text(shown: str) -> str:
    """Return a text that will not be finished, with a note that says so."""
    return f"{shown.removesuffix(ELLIPSIS).rstrip()}{ELLIPSIS}\n\n{INTERRUPTED}"
