"""One thread's outbox: does the journalled wishes in their order, within the quotas, each effectively once.

It never sleeps: `flush` does what can be done now and says when to come again. It never writes to the store: what
came of a wish is handed to the lane (`take_settlements`), which puts it into its next commit. A crash in between
leaves the row pending, and a pending row that may have been tried is repeated only after a proof read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.actions import (
    Action,
    ActionKey,
    AddParticipants,
    DeleteMessage,
    EditMessage,
    RemoveParticipant,
    SendMessage,
    UpdateTopic,
)
from chatbot.errors import (
    Forbidden,
    NotFound,
    OutcomeUnknown,
    ProtocolError,
    Rejected,
    ServiceError,
    Throttled,
)
from chatbot.model import REPLY_KEY, ChatMessage, MessageId, ThreadId, UserId
from chatbot.outbox.proof import heal, healing_key, match_proofs, read_own, tombstones_without_key
from chatbot.service.back_off import FIRST_PAUSE, BackOff
from chatbot.service.base import ChatService, is_refusal
from chatbot.service.budget import Budget, Operation
from chatbot.stores import erasure
from chatbot.stores.records import OutboxRow, RowStatus
from chatbot.stores.writes import RepointRow, SettleRow

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MAX_ROWS: Final = 20
"""Rows at which a lane stops looking: the backlog stays in the service, where it is safe."""

PROOF_DELAY_SECONDS: Final = 3.0
"""How long after an attempt of unknown outcome the thread is read for its proof."""

MAX_PARTIAL_TRIES: Final = 3
MAX_REMEMBERED: Final = 32
"""Replies whose messages are known without asking the store: as many as the service takes in a minute, and some."""

REMEMBERED_MS: Final = 120_000
"""How much older than the latest reply they may be."""

_OPERATIONS: Final[dict[type[Action], Operation]] = {
    SendMessage: Operation.WRITE_MESSAGE,
    EditMessage: Operation.WRITE_MESSAGE,
    DeleteMessage: Operation.WRITE_MESSAGE,
    AddParticipants: Operation.CHANGE_PARTICIPANTS,
    RemoveParticipant: Operation.CHANGE_PARTICIPANTS,
    UpdateTopic: Operation.UPDATE_THREAD,
}

FindRow = Callable[[ActionKey], Awaitable[OutboxRow | None]]
FindKnownMessages = Callable[[Collection[MessageId]], Awaitable[frozenset[MessageId]]]
During = Callable[[OutboxRow], AbstractContextManager[object]]
ReportFailure = Callable[[ServiceError | None], None]


class Outbox:
    """The wishes of one thread on their way.

    Args:
        service: the bot's view of the service.
        thread: where.
        budget: the thread's quotas, shared with whoever else speaks for the bot there.
        find_row: reads a settled row back from the store (an edit of a message sent long ago).
        find_known_messages: says of messages whether the store knows them to come of settled wishes.
        clock: the time, in seconds since the epoch.
        display_name: shown with messages that name no other.
        slack_ms: see `polling.cursor`.
        log: bound to bot and thread.
        during: entered while a wish is carried out.
        report_failure: called with every failure that delays a wish, and of None when one succeeds after that.
        rows: what an earlier process left pending; each may have been tried, so each needs a proof.

    Attributes:
        latest: the number of the latest message that was made here, or 0: no wish to come has made it.
    """

    def __init__(
        self,
        service: ChatService,
        thread: ThreadId,
        budget: Budget,
        *,
        find_row: FindRow,
        find_known_messages: FindKnownMessages,
        clock: Callable[[], float],
        display_name: str,
        slack_ms: int,
        log: FilteringBoundLogger,
        during: During,
        report_failure: ReportFailure,
        rows: Iterable[OutboxRow] = (),
    ) -> None:
        self._service = service
        self._thread = thread
        self._budget = budget
        self._find_row = find_row
        self._find_known_messages = find_known_messages
        self._clock = clock
        self._display_name = display_name
        self._slack_ms = slack_ms
        self._log = log
        self._during = during
        self._report_failure = report_failure
        self._rows = list(rows)  # no deque: an empty one costs ten times as much, and most threads have nothing to send
        self._doubtful = {row.key for row in self._rows}
        self._proof_at = anyio.current_time() + PROOF_DELAY_SECONDS if self._rows else 0.0
        self._back_off = BackOff()
        self._partial_tries = 0
        self._sent: dict[ActionKey, MessageId] = {}
        self._settlements: list[SettleRow | RepointRow] = []
        self._given_up: list[tuple[OutboxRow, str]] = []
        self.latest = 0
        self._refused: ActionKey | None = None
        self._is_refusal_accepted = False

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest wish was journalled, epoch ms; None if none is on its way."""
        return min((row.created_ms for row in self._rows if row.created_ms), default=None)

    @property
    def is_full(self) -> bool:
        """Whether the lane should wait before it makes more work for the outbox."""
        return len(self._rows) >= MAX_ROWS

    def add(self, row: OutboxRow, proofs: Mapping[str, MessageId] | None = None) -> None:
        """Take a wish that was just journalled; the same key a second time is the same wish.

        Args:
            row: the journalled wish.
            proofs: keys of own messages that were just read: such a wish is done already (the store forgot it, as
                one restored from a backup does).
        """
        if self._holds(row):
            return
        self._rows.append(row)
        if proofs and row.key in proofs:
            self._settle(row, RowStatus.DONE, proofs[row.key])

    async def confirm(self, message: ChatMessage, doubles: Collection[MessageId] = ()) -> list[OutboxRow]:
        """The poller saw an own message with a key: if its row is still here, it is done.

        Args:
            message: what was seen.
            doubles: living messages that were seen with the same key; of a row that was pruned, they alone tell.

        Returns:
            Rows to journal: what heals a double, when another message has the same key. It became visible after a
            stale read had shown nothing; the elder one stays, and gets what the younger one was edited to.

        Raises:
            ErrorResponse: the other message cannot be read now; nothing was changed.
        """
        key = ActionKey(message.reply_key or "")
        for row in self._rows:
            if row.key == key:
                self._settle(row, RowStatus.DONE, message.id)
                return []
        known = self._sent.get(key)
        if known == message.id:
            return []
        settled = await self._find_row(key)
        other = known or (settled.message if settled else None)
        is_known = other is not None
        other = other or next((double for double in sorted(doubles, key=int) if double != message.id), None)
        if other is None or other == message.id or message.deleted_on:
            return []
        younger = max(other, message.id, key=int)
        if await self._find_row(healing_key(key, younger)) is not None:  # it is being done already
            return []
        try:
            found = await self._service.get_message(self._thread, other)
            # A tombstone takes its double with it only where it is the reply, and not what was healed long ago.
            return self._heal(key, message, found) if is_known or found.deleted_on is None else []
        except (NotFound, Forbidden):  # of two, one is gone: that is none too many
            return []

    def _heal(self, key: ActionKey, seen: ChatMessage, other: ChatMessage) -> list[OutboxRow]:
        healing = heal(key, seen, other, is_edited_soon=self._edits(key))
        self._sent[key] = healing.kept
        self._settlements.append(RepointRow(key, healing.kept))
        self._log.warning("double.healed", key=key, kept=healing.kept, deleted=healing.deleted)
        # With its time: what we delete ourselves must be known for as long as other tombstones are asked for.
        created_ms = int(self._clock() * 1000)
        return [
            OutboxRow(own, self._thread, wish, after=seen.version, created_ms=created_ms)
            for own, wish in healing.actions
        ]

    def _edits(self, key: ActionKey) -> bool:
        """Whether an edit of this message is still to be done; it will find the one that stays."""
        return any(isinstance(row.action, EditMessage) and row.action.message == key for row in self._rows)

    def message_of(self, key: ActionKey) -> MessageId | None:
        """The message that was sent under this key not long ago."""
        return self._sent.get(key)

    def take_settlements(self) -> list[SettleRow | RepointRow]:
        """What came of wishes since the last call; to be written with the lane's next commit."""
        taken, self._settlements = self._settlements, []
        return taken

    def next_failure(self) -> tuple[OutboxRow, str] | None:
        """The eldest wish that was given up and not yet mourned, with the reason."""
        return self._given_up[0] if self._given_up else None

    def drop_failure(self, failure: tuple[OutboxRow, str]) -> None:
        """That one was committed as failed, together with its dead letter."""
        if failure in self._given_up:
            self._given_up.remove(failure)

    def forget(self, user: UserId) -> None:
        """Drop the wishes that tell of a person, as the store did; one that is under way is not repeated."""
        erased = (erasure.erase(row, user) for row in self._rows)
        self._rows = [row for row in erased if row.status is RowStatus.PENDING]
        self._given_up = [one for one in self._given_up if erasure.erase(one[0], user) is one[0]]
        self._doubtful &= {row.key for row in self._rows}

    def _holds(self, row: OutboxRow) -> bool:
        return any(row.key == other.key for other in self._rows)

    def accept_refusal(self) -> bool:
        """The bot is in the thread: what the service has refused (403, 404) is refused for a reason of its own.

        Returns:
            Whether anything of this outbox was refused.
        """
        self._is_refusal_accepted = self._refused is not None
        return self._is_refusal_accepted

    def give_up(self, reason: str) -> None:
        """None of what waits here will ever be done; each row is a failure of its own."""
        for row in [*self._rows]:
            self._give_up(row, reason)
        self._refused = None

    async def flush(self) -> float | None:
        """Do what can be done now.

        Returns:
            Seconds after which to come again; None when nothing is left to do.

        Raises:
            Forbidden, NotFound: the service refused the first row, perhaps because the bot is not in the thread any
                more. Find that out; then `accept_refusal`, or leave the rows where they are.
        """
        while self._rows:
            row = self._rows[0]
            operation = _OPERATIONS[type(row.action)]
            now = anyio.current_time()
            pause = max(self._budget.delay(operation, now), self._back_off.pause(now))
            if row.key in self._doubtful:
                pause = max(pause, self._proof_at - now)
            if pause > 0:
                return pause
            try:
                if row.key in self._doubtful:
                    await self._prove()
                else:
                    self._budget.spend(operation, now)
                    with self._during(row):
                        await self._do(row)
                # A proof read that proves nothing is no success: what failed before may fail again.
                if not self._holds(row) and self._back_off.succeeded():
                    self._report_failure(None)
            except ServiceError as error:
                self._failed(row, operation, error)
        return None

    async def _prove(self) -> None:
        """Find out which of the doubtful wishes were done after all; the others may be tried (again)."""
        sends = [row for row in self._rows if row.key in self._doubtful and isinstance(row.action, SendMessage)]
        if sends:
            own = await read_own(self._service, self._thread, sends, slack_ms=self._slack_ms)
            proofs = match_proofs(own, sends, made=await self._known_among(tombstones_without_key(own)))
            for row in sends:
                if row.key in proofs:
                    self._log.info("send.confirmed_by_reading", key=row.key, message=proofs[row.key])
                    self._settle(row, RowStatus.DONE, proofs[row.key])
        first = self._rows[0] if self._rows else None
        if first is not None and first.key in self._doubtful and isinstance(first.action, UpdateTopic):
            thread = await self._service.get_thread(self._thread)
            if thread.topic == first.action.topic:
                self._settle(first, RowStatus.DONE)
        # Whether a later topic was given shows only once all before it are.
        self._doubtful &= {row.key for row in self._rows if row is not first and isinstance(row.action, UpdateTopic)}

    async def _known_among(self, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """Which of these messages come of wishes that are done, or are being deleted by one."""
        if not messages:
            return frozenset()
        targets = {target for row in self._rows if (target := self._known_target(row)) is not None}
        return await self._find_known_messages(messages) | targets | frozenset(self._sent.values())

    def _known_target(self, row: OutboxRow) -> MessageId | None:
        """The message that a wish deletes, as far as it is known without asking the store."""
        if not isinstance(row.action, DeleteMessage):
            return None
        target = row.action.message
        return MessageId(target) if target.isdecimal() else self._sent.get(ActionKey(target))

    async def _do(self, row: OutboxRow) -> None:
        """Carry one wish out; everything but a send and a topic may safely be carried out twice."""
        message: MessageId | None = None
        match row.action:
            case SendMessage() as send:
                message = await self._service.send_message(
                    self._thread,
                    send.content,
                    type=send.type,
                    display_name=send.display_name or self._display_name,
                    metadata={**send.metadata, REPLY_KEY: row.key},
                )
            case EditMessage(target, content):
                message = await self._resolve(target)
                await self._service.edit_message(self._thread, message, content=content)
            case DeleteMessage(target):
                message = await self._resolve(target)
                await self._service.delete_message(self._thread, message)
            case AddParticipants():
                if not await self._add_participants(row, row.action):
                    return
            case RemoveParticipant(user):
                await self._service.remove_participant(self._thread, user)
            case UpdateTopic(topic):
                await self._service.update_topic(self._thread, topic)
            case _:
                text = f"the outbox cannot do {type(row.action).__name__}"
                raise Rejected(text)
        self._settle(row, RowStatus.DONE, message)

    async def _add_participants(self, row: OutboxRow, action: AddParticipants) -> bool:
        """Add; whoever the service refused is tried again alone, up to a few times. True when all are in."""
        failed = await self._service.add_participants(self._thread, action.participants)
        if not failed:
            self._partial_tries = 0
            return True
        self._partial_tries += 1
        reasons = "; ".join(f"{person.user}: {person.code} {person.message}".strip() for person in failed)
        if self._partial_tries >= MAX_PARTIAL_TRIES:
            self._partial_tries = 0
            raise Rejected(f"not added: {reasons}")  # noqa: EM102 - the reasons are the message
        self._log.warning("participants.refused", count=len(failed), reasons=reasons)
        if not self._holds(row):  # a person was forgotten meanwhile
            return False
        refused = {person.user for person in failed}
        remaining = tuple(person for person in action.participants if person.user in refused)
        self._rows[0] = replace(row, action=replace(action, participants=remaining))
        self._back_off.wait(FIRST_PAUSE * 2**self._partial_tries, anyio.current_time())
        return False

    async def _resolve(self, target: MessageId | ActionKey) -> MessageId:
        """The message's id on the service, of a message named by id or by the key it was sent under."""
        if target.isdecimal():
            return MessageId(target)
        key = ActionKey(target)
        if key in self._sent:
            return self._sent[key]
        row = await self._find_row(key)
        if row is None or row.message is None:
            text = "the message to change was never sent"
            raise Rejected(text)
        return row.message

    def _settle(
        self, row: OutboxRow, status: RowStatus, message: MessageId | None = None, reason: str | None = None
    ) -> None:
        self._rows = [other for other in self._rows if other.key != row.key]
        self._doubtful.discard(row.key)
        if message is None:
            message = self._known_target(row)  # it is gone, or may be: its tombstone is of our making
        elif isinstance(row.action, SendMessage):
            self.latest = max(self.latest, int(message))
        if message is not None:
            self._sent[row.key] = message
            self._forget_sent(int(message) - REMEMBERED_MS)
        self._settlements.append(SettleRow(row.key, status, message, reason))
        if status is RowStatus.DONE:
            self._log.debug("action.done", action=type(row.action).__name__, key=row.key, message=message)

    def _forget_sent(self, before: int) -> None:
        """Leave to the store what was sent long ago: what every talking thread remembers is the daemon's memory."""
        old = [key for key, message in self._sent.items() if int(message) < before]
        for key in old or list(self._sent)[:-MAX_REMEMBERED]:
            del self._sent[key]

    def _give_up(self, row: OutboxRow, reason: str) -> None:
        """Have a row committed as failed together with its dead letter, never before it: see `next_failure`."""
        self._rows = [other for other in self._rows if other.key != row.key]
        self._doubtful.discard(row.key)
        message = self._known_target(row)  # it is gone, or may be: its tombstone is of our making
        if message is not None:
            self._sent[row.key] = message
        self._given_up.append((replace(row, message=message), reason))

    def _failed(self, row: OutboxRow, operation: Operation, error: ServiceError) -> None:
        """Decide what an error means for the first row: gone, doubtful, or simply later."""
        now = anyio.current_time()
        if not self._holds(row):  # a person was forgotten meanwhile
            return
        if isinstance(error, NotFound | Forbidden) and self._defers(row, error):
            return
        if isinstance(error, NotFound) and isinstance(row.action, DeleteMessage | RemoveParticipant):
            self._settle(row, RowStatus.DONE)
            return
        if isinstance(error, Rejected | NotFound | Forbidden):
            self._give_up(row, str(error))
            return
        pause = self._back_off.failed(error, now)
        if isinstance(error, Throttled):
            self._budget.block(operation, now + pause)
        elif isinstance(error, OutcomeUnknown | ProtocolError) and row.key not in self._doubtful:
            self._doubtful.add(row.key)
            self._proof_at = now + PROOF_DELAY_SECONDS
        self._report_failure(error)

    def _defers(self, row: OutboxRow, error: NotFound | Forbidden) -> bool:
        """Whether a refusal is not to be taken for an answer about this row, at least not yet.

        Raises:
            Forbidden, NotFound: this error, once: it may be the whole thread that is refused.
        """
        if not is_refusal(error):  # the page of a proxy, or of a wrong address
            self._back_off.failed(error, anyio.current_time())
            self._report_failure(error)
            return True
        if self._is_refusal_accepted and self._refused == row.key:
            self._refused, self._is_refusal_accepted = None, False
            if row.key not in self._doubtful:
                return False
            # Only the reading for its proof was refused: it may have been done, so it has not failed.
            self._back_off.failed(error, anyio.current_time())
            self._report_failure(error)
            return True
        self._refused, self._is_refusal_accepted = row.key, False
        raise error
