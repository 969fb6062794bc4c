"""One message that grows while its text arrives.

Rules:
    1. The message is journalled, under its key, before it is first sent; the outbox sends it, in its turn. Another
       attempt finds its row and edits that same message.
    2. What is shown on the way are edits of no consequence: they are not journalled, may fail, take at most their
       part of the thread's quota and leave one request for whoever comes next. They end with an ellipsis.
    3. The final text is not sent here: it becomes wishes, which the event's commit journals. No edit of unknown outcome
       may overtake it, so after one nothing more is shown, and the end waits until it has settled.
    4. A text that is complete before anything was shown is a message like any other.
"""

from __future__ import annotations

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

FIRST_SECONDS: Final = 0.5
"""How long a text is waited for before a part of it is shown."""

LONGEST_GAP: Final = 6.0
"""Between two edits of a long text: with this gap a stream can go on for ever."""

ELLIPSIS: Final = " …"

BROKEN_OFF: Final = "(This answer breaks off here: something went wrong.)"
"""What stands below a text whose event was given up, so that nobody waits for the rest of it."""

JournalAction = Callable[[ActionKey, SendMessage], Awaitable[None]]
"""Makes a wish durable, and hands it to the outbox."""


class Stream:
    """A text on its way into one message.

    Args:
        key: what the message is sent under.
        thread: where.
        service: the bot's view of the service.
        outbox: the thread's.
        budget: the thread's.
        journal: see there.
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
        self._grown = anyio.Event()
        self._complete = anyio.Event()
        self._failure: Exception | None = None
        self._message: MessageId | None = None
        self._is_journalled = False
        self._is_over = False
        self._gap = FIRST_SECONDS
        self._not_before = anyio.current_time() + FIRST_SECONDS
        self._settled_at = 0.0
        self.shown = ""
        """What people have seen of it, without the ellipsis."""

    async def run(self, source: AsyncIterable[str], earlier: OutboxRow | None) -> Sequence[Action]:
        """Read the source to its end, show what arrives, and give what brings the message to its final text.

        Args:
            source: the pieces.
            earlier: the row that another attempt has journalled under the same key.

        Raises:
            StoreError: the message could not be journalled.
            Exception: what the source raises.
        """
        self._recall(earlier)
        async with anyio.create_task_group() as group:
            group.start_soon(self._show_growth, group)
            try:
                async for piece in source:
                    self._pieces.append(piece)
                    self._grown.set()
            except Exception as error:
                self._failure = error
            self._complete.set()
            self._grown.set()
        await anyio.sleep(max(0.0, self._settled_at - anyio.current_time()))
        if self._failure is not None:
            raise self._failure
        return self._conclusion()

    def _recall(self, earlier: OutboxRow | None) -> None:
        if earlier is None:
            return
        self._is_journalled = True
        self._message = earlier.message
        self._is_over = earlier.status is RowStatus.FAILED

    def _conclusion(self) -> Sequence[Action]:
        text = "".join(self._pieces)
        if not self._is_journalled:
            return [SendMessage(text)] if text.strip() else []
        if not text.strip():
            return [DeleteMessage(self._key)]
        head, *rest = split(text)
        return [EditMessage(self._key, head), *(SendMessage(piece) for piece in rest)]

    # ── what is shown on the way ──────────────────────────────────────────────────────────────────────────────

    async def _show_growth(self, group: TaskGroup) -> None:
        """Show the text again and again until it is complete; never cut off in the middle of a request."""
        try:
            while not self._is_over:
                await self._grown.wait()
                with anyio.move_on_after(self._pause()):
                    await self._complete.wait()
                if self._complete.is_set():
                    return
                self._grown = anyio.Event()
                await self._show("".join(self._pieces))
        except Exception as error:  # raised by `run`, which would else wrap it in a group
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
        self._gap = min(LONGEST_GAP, self._gap * 2)
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
        except (Forbidden, NotFound):  # the lane finds out whether the bot is still in the thread
            self._is_over = True
            return
        if self._outbox.message_of(self._key) is None:
            self._grown.set()  # what could not be sent yet is new still
            self._not_before = anyio.current_time() + (pause or LONGEST_GAP)

    async def _edit(self, message: MessageId, text: str) -> None:
        now = anyio.current_time()
        self._budget.spend(Operation.WRITE_MESSAGE, now)
        self._budget.spend(Operation.STREAM_MESSAGE, now)
        try:
            await self._service.edit_message(self._thread, message, content=text)
        except Throttled as error:
            self._budget.block(Operation.WRITE_MESSAGE, now + (error.retry_after or LONGEST_GAP))
        except Unreachable:
            self._not_before = now + LONGEST_GAP
        except (OutcomeUnknown, ProtocolError):
            self._is_over = True
            self._settled_at = anyio.current_time() + PROOF_DELAY_SECONDS
        except ServiceError:  # it is gone, or we are: the final text will be told why
            self._is_over = True


def broken_off(shown: str) -> str:
    """Return a text that will not be finished, with a word that says so."""
    return f"{shown.removesuffix(ELLIPSIS).rstrip()}{ELLIPSIS}\n\n{BROKEN_OFF}"
