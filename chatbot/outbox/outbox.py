"""The outbox of one thread: carries out journalled actions in order, within the quotas, each effectively once.

`flush` does what can be done now and returns when to call it again; it never sleeps. The outbox never writes to the
store: the lane takes the results (`take_settlements`) and puts them into its next commit. A crash in between leaves
the row pending, and a pending row that may have been sent is repeated only after a proof read.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

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
from chatbot.stores.writes import ReplaceRowMessage, SettleRow

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MAX_ROWS: Final = 20
"""With this many pending rows a lane stops polling: the backlog stays in the service, where it is safe."""

PROOF_DELAY_SECONDS: Final = 3.0
"""Seconds between an attempt of unknown outcome and its proof read: a send may become visible late."""

MAX_PARTIAL_TRIES: Final = 3
MAX_REMEMBERED: Final = 32
"""Replies whose message ids are kept in memory: as many as the service accepts in a minute, and a few more."""

REMEMBERED_MS: Final = 120_000
"""Milliseconds for which such a reply is kept, counted back from the latest one."""

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
ReportFailure = Callable[[ThreadId, ServiceError | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxServices:
    """What all outboxes of one bot share.

    Args:
        service: the bot's view of the service.
        user_budget: the bot's quotas outside threads.
        find_row: reads a settled row from the store, for example for an edit of a message sent long ago.
        find_known_messages: returns which of these messages the store knows as results of settled rows.
        clock: the time, in seconds since the epoch.
        display_name: shown with messages that have no name of their own.
        slack_ms: see `polling.cursor`.
        log: bound to the bot.
        during: entered while a row is carried out.
        report_failure: called with the thread and every failure that delays a row, and with None at the first success
            after one.
    """

    service: ChatService
    user_budget: Budget
    find_row: FindRow
    find_known_messages: FindKnownMessages
    clock: Callable[[], float]
    display_name: str
    slack_ms: int
    log: FilteringBoundLogger
    during: During
    report_failure: ReportFailure


class Outbox:
    """The pending actions of one thread.

    Args:
        services: what all outboxes of the bot share.
        thread: the thread.
        budget: the thread's quotas, shared with everything else that uses them for this bot.
        rows: what an earlier process left pending. Each may have been sent, so each needs a proof read.

    Attributes:
        latest: the id of the latest message sent here, as a number; 0 if there is none. No pending row has sent it.
    """

    __slots__ = (
        "_back_off",
        "_budget",
        "_given_up",
        "_is_refusal_accepted",
        "_partial_tries",
        "_proof_at",
        "_refused",
        "_rows",
        "_sent",
        "_services",
        "_settlements",
        "_thread",
        "_unproven",
        "latest",
    )

    def __init__(
        self, services: OutboxServices, thread: ThreadId, budget: Budget, rows: Iterable[OutboxRow] = ()
    ) -> None:
        self._services = services
        self._thread = thread
        self._budget = budget
        self._rows = list(rows)  # no deque: an empty one costs ten times as much, and most threads have nothing to send
        # Frozen and never changed in place: all that are empty are one object, and most threads have nothing to send.
        self._unproven = frozenset(row.key for row in self._rows)
        self._proof_at = get_running_loop().time() + PROOF_DELAY_SECONDS if self._rows else 0.0
        self._back_off = BackOff()
        self._partial_tries = 0
        self._sent: dict[ActionKey, MessageId] = {}
        self._settlements: tuple[SettleRow | ReplaceRowMessage, ...] = ()
        self._given_up: tuple[tuple[OutboxRow, str], ...] = ()
        self.latest = 0
        self._refused: ActionKey | None = None
        self._is_refusal_accepted = False

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def _service(self) -> ChatService:
        return self._services.service

    @property
    def _log(self) -> FilteringBoundLogger:
        # Bound when it is needed: most threads have nothing to log, and a logger takes 300 bytes.
        return self._services.log.bind(thread=self._thread) if self._thread else self._services.log

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest pending row was journalled, epoch ms; None if none is pending."""
        return min((row.created_ms for row in self._rows if row.created_ms), default=None)

    @property
    def is_full(self) -> bool:
        """Whether the lane should wait before it adds more rows."""
        return len(self._rows) >= MAX_ROWS

    def knows(self, key: ActionKey) -> bool:
        """Return whether a row of this key is pending here, or was settled here lately."""
        rows = [*self._rows, *(row for row, _ in self._given_up), *self._settlements]
        return key in self._sent or any(row.key == key for row in rows)

    def add(self, row: OutboxRow, proofs: Mapping[str, MessageId] | None = None) -> None:
        """Add a row that was just journalled; a row with a known key is ignored.

        Args:
            row: the row.
            proofs: keys of own messages that were just read. Such a row is done already: a store that was restored
                from a backup does not know what was sent after the backup.
        """
        if self._is_pending(row):
            return
        self._rows.append(row)
        if proofs and row.key in proofs:
            self._settle(row, RowStatus.DONE, proofs[row.key])

    async def confirm(self, message: ChatMessage, doubles: Collection[MessageId] = ()) -> list[OutboxRow]:
        """Handle an own message with a key that a poll has read: its row is done, or there is a double to heal.

        Args:
            message: the message.
            doubles: messages with the same key that are not deleted; of a row that was pruned, only they tell.

        Returns:
            Rows to journal that heal a double: another message has the same key, because it became visible only
            after the proof read. The older one stays, with the newest content.

        Raises:
            ServiceError: the other message cannot be read now; nothing was changed.
        """
        key = ActionKey(message.reply_key or "")
        for row in self._rows:
            if row.key == key:
                self._settle(row, RowStatus.DONE, message.id)
                return []
        known = self._sent.get(key)
        if known == message.id:
            return []
        settled = await self._services.find_row(key)
        other = known or (settled.message if settled else None)
        is_known = other is not None
        other = other or next((double for double in sorted(doubles, key=int) if double != message.id), None)
        if other is None or other == message.id or message.deleted_on:
            return []
        younger = max(other, message.id, key=int)
        if await self._services.find_row(healing_key(key, younger)) is not None:  # it is being healed already
            return []
        try:
            found = await self._service.get_message(self._thread, other)
            # A tombstone may be the reply itself, which somebody deleted: then its double goes, too. But it may also
            # be a double that was healed long ago: then the message that is still visible is the reply, and stays.
            return self._heal(key, message, found) if is_known or found.deleted_on is None else []
        except (NotFound, Forbidden):  # one of the two is gone: nothing is left to heal
            return []

    def _heal(self, key: ActionKey, seen: ChatMessage, other: ChatMessage) -> list[OutboxRow]:
        healing = heal(key, seen, other, is_edited_soon=self._edits(key))
        self._sent[key] = healing.kept
        self._settlements += (ReplaceRowMessage(key, healing.kept),)
        self._log.warning("double.healed", key=key, kept=healing.kept, deleted=healing.deleted)
        # The creation time matters: rows are pruned by age, and a tombstone of our own making must stay known for as
        # long as a proof read may ask about it. Otherwise it would prove a later reply, which is then never sent.
        created_ms = int(self._services.clock() * 1000)
        return [
            OutboxRow(healing_row_key, self._thread, action, after=seen.version, created_ms=created_ms)
            for healing_row_key, action in healing.actions
        ]

    def _edits(self, key: ActionKey) -> bool:
        """Return whether an edit of this message is pending; it will apply to the message that stays."""
        return any(isinstance(row.action, EditMessage) and row.action.message == key for row in self._rows)

    def message_of(self, key: ActionKey) -> MessageId | None:
        """Return the message that was recently sent under this key, if it is remembered."""
        return self._sent.get(key)

    def take_settlements(self) -> Sequence[SettleRow | ReplaceRowMessage]:
        """Return what was settled since the last call, for the lane's next commit."""
        taken, self._settlements = self._settlements, ()
        return taken

    def next_failure(self) -> tuple[OutboxRow, str] | None:
        """Return the oldest row that was given up and has no dead letter yet, with the reason."""
        return self._given_up[0] if self._given_up else None

    def drop_failure(self, failure: tuple[OutboxRow, str]) -> None:
        """Forget a failure that was committed together with its dead letter."""
        self._given_up = tuple(other for other in self._given_up if other != failure)

    def erase(self, user: UserId) -> None:
        """Drop the rows that hold data of a person, as the store did; a request that is under way is not repeated."""
        erased = (erasure.erase(row, user) for row in self._rows)
        self._rows = [row for row in erased if row.status is RowStatus.PENDING]
        self._given_up = tuple(failure for failure in self._given_up if erasure.erase(failure[0], user) is failure[0])
        self._unproven &= {row.key for row in self._rows}
        if not self._rows:
            self._end_failure()

    def _is_pending(self, row: OutboxRow) -> bool:
        return any(row.key == other.key for other in self._rows)

    def accept_refusal(self) -> bool:
        """Take the last refusal (403, 404) for an answer about its row: the bot was found to be in the thread.

        Returns:
            Whether the service has refused a row.
        """
        self._is_refusal_accepted = self._refused is not None
        return self._is_refusal_accepted

    def give_up(self, reason: str) -> None:
        """Give up everything that is pending; each row is a failure of its own."""
        for row in [*self._rows]:
            self._give_up(row, reason)
        self._refused = None

    async def flush(self) -> float | None:
        """Carry out what can be done now.

        Returns:
            Seconds after which to call again; None when nothing is left to do.

        Raises:
            Forbidden, NotFound: the service refused the first row, perhaps because the bot was removed from the
                thread. Check the membership, then call `accept_refusal` or leave the rows as they are.
        """
        while self._rows:
            row = self._rows[0]
            operation = _OPERATIONS[type(row.action)]
            now = get_running_loop().time()
            pause = max(self._budget.delay(operation, now), self._back_off.pause(now))
            if row.key in self._unproven:
                pause = max(pause, self._proof_at - now)
                if isinstance(row.action, UpdateTopic):
                    pause = max(pause, self._services.user_budget.delay(Operation.GET_THREAD, now))
            if pause > 0:
                return pause
            try:
                if row.key in self._unproven:
                    await self._read_proofs()
                else:
                    # Before the request: one of unknown outcome may have been counted by the service.
                    self._budget.spend(operation, now)
                    with self._services.during(row):
                        await self._execute(row)
            except ServiceError as error:
                self._failed(row, operation, error)
        return None

    async def _read_proofs(self) -> None:
        """Read which rows of unknown outcome were done; the others may be tried again."""
        sends = [row for row in self._rows if row.key in self._unproven and isinstance(row.action, SendMessage)]
        if sends:
            own = await read_own(self._service, self._thread, sends, slack_ms=self._services.slack_ms)
            proofs = match_proofs(own, sends, made=await self._known_among(tombstones_without_key(own)))
            for row in sends:
                if row.key in proofs:
                    self._log.info("send.confirmed_by_reading", key=row.key, message=proofs[row.key])
                    self._settle(row, RowStatus.DONE, proofs[row.key])
        first = self._rows[0] if self._rows else None
        if first is not None and first.key in self._unproven and isinstance(first.action, UpdateTopic):
            self._services.user_budget.spend(Operation.GET_THREAD, get_running_loop().time())
            try:
                thread = await self._service.get_thread(self._thread)
            except Throttled as error:
                self._services.user_budget.block_throttled(
                    Operation.GET_THREAD, get_running_loop().time(), error.retry_after
                )
                raise
            if thread.topic == first.action.topic:
                self._settle(first, RowStatus.DONE)
        # Topics overwrite each other: whether a later one was set can be read only after all earlier ones are set.
        self._unproven &= {row.key for row in self._rows if row is not first and isinstance(row.action, UpdateTopic)}

    async def _known_among(self, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """Return which of these messages a settled row sent, or a pending row deletes."""
        if not messages:
            return frozenset()
        targets = {target for row in self._rows if (target := self._known_target(row)) is not None}
        return await self._services.find_known_messages(messages) | targets | frozenset(self._sent.values())

    def _known_target(self, row: OutboxRow) -> MessageId | None:
        """Return the message that a row deletes, if it is known without asking the store."""
        if not isinstance(row.action, DeleteMessage):
            return None
        target = row.action.message
        return MessageId(target) if target.isdecimal() else self._sent.get(ActionKey(target))

    async def _execute(self, row: OutboxRow) -> None:
        """Carry out one row. Everything but a send and a topic can safely be repeated."""
        message: MessageId | None = None
        match row.action:
            case SendMessage() as send:
                message = await self._service.send_message(
                    self._thread,
                    send.content,
                    type=send.type,
                    display_name=send.display_name or self._services.display_name,
                    # The key proves this send after an unclear outcome. No metadata of an author may replace it.
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
                text = f"the outbox cannot carry out {type(row.action).__name__}"
                raise Rejected(text)
        self._settle(row, RowStatus.DONE, message)

    async def _add_participants(self, row: OutboxRow, action: AddParticipants) -> bool:
        """Add people; those that the service refused are tried again, a few times. Return whether all are in."""
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
        if not self._is_pending(row):  # its person was erased meanwhile
            return False
        refused = {person.user for person in failed}
        remaining = tuple(person for person in action.participants if person.user in refused)
        self._rows[0] = replace(row, action=replace(action, participants=remaining))
        self._back_off.wait(FIRST_PAUSE * 2**self._partial_tries, get_running_loop().time())
        return False

    async def _resolve(self, target: MessageId | ActionKey) -> MessageId:
        """Return the id of a message that is named by its id or by the key it was sent under."""
        if target.isdecimal():
            return MessageId(target)
        key = ActionKey(target)
        if key in self._sent:
            return self._sent[key]
        row = await self._services.find_row(key)
        if row is None or row.message is None:
            text = "the message to change was never sent"
            raise Rejected(text)
        return row.message

    def _settle(
        self, row: OutboxRow, status: RowStatus, message: MessageId | None = None, reason: str | None = None
    ) -> None:
        self._remove(row)
        if message is None:
            message = self._known_target(row)  # it may be deleted now: its tombstone is of our making
        elif isinstance(row.action, SendMessage):
            self.latest = max(self.latest, int(message))
        if message is not None:
            self._sent[row.key] = message
            self._drop_old_sent(int(message) - REMEMBERED_MS)
        self._settlements += (SettleRow(row.key, status, message, reason),)
        if status is RowStatus.DONE:
            log, thread = self._services.log, self._thread
            log.debug("action.done", thread=thread, action=type(row.action).__name__, key=row.key, message=message)

    def _remove(self, row: OutboxRow) -> None:
        """Remove a row that nothing more will be done for, for whatever reason."""
        is_first = bool(self._rows) and self._rows[0].key == row.key
        self._rows = [other for other in self._rows if other.key != row.key]
        self._unproven -= {row.key}
        # Only the first row is tried. While it stays, as after a proof read that proves nothing for it, its pauses must
        # go on growing. Once it is gone, what it failed of is no longer true, although perhaps nothing else is sent.
        if is_first:
            self._end_failure()

    def _end_failure(self) -> None:
        if self._back_off.succeeded():
            self._services.report_failure(self._thread, None)

    def _drop_old_sent(self, before: int) -> None:
        """Drop old message ids, which the store knows as well: every busy thread holds memory for its own."""
        old = [key for key, message in self._sent.items() if int(message) < before]
        for key in old or list(self._sent)[:-MAX_REMEMBERED]:
            del self._sent[key]

    def _give_up(self, row: OutboxRow, reason: str) -> None:
        """Stop trying a row. It is committed as failed together with its dead letter: see `next_failure`."""
        self._remove(row)
        message = self._known_target(row)  # it may be deleted now: its tombstone is of our making
        if message is not None:
            self._sent[row.key] = message
        self._given_up += ((replace(row, message=message), reason),)

    def _failed(self, row: OutboxRow, operation: Operation, error: ServiceError) -> None:
        """Decide what an error means for the first row: failed, of unknown outcome, or to be tried later."""
        now = get_running_loop().time()
        if not self._is_pending(row):  # its person was erased meanwhile
            return
        if isinstance(error, NotFound | Forbidden) and self._is_deferred(row, error):
            return
        if isinstance(error, NotFound) and isinstance(row.action, DeleteMessage | RemoveParticipant):
            self._settle(row, RowStatus.DONE)
            return
        if isinstance(error, Rejected | NotFound | Forbidden):
            self._give_up(row, str(error))
            return
        pause = self._back_off.failed(error, now, operation)
        if isinstance(error, Throttled):
            self._budget.block(operation, now + pause)
        elif isinstance(error, OutcomeUnknown | ProtocolError) and row.key not in self._unproven:
            self._unproven |= {row.key}
            self._proof_at = now + PROOF_DELAY_SECONDS
        self._services.report_failure(self._thread, error)

    def _is_deferred(self, row: OutboxRow, error: NotFound | Forbidden) -> bool:
        """Return whether a refusal is no answer about this row, at least not yet.

        Raises:
            Forbidden, NotFound: this error, once: the service may refuse the whole thread.
        """
        if not is_refusal(error):  # not from the service: the page of a proxy, or a wrong address
            self._back_off.failed(error, get_running_loop().time(), _OPERATIONS[type(row.action)])
            self._services.report_failure(self._thread, error)
            return True
        if self._is_refusal_accepted and self._refused == row.key:
            self._refused, self._is_refusal_accepted = None, False
            if row.key not in self._unproven:
                return False
            # Only the proof read was refused. The row itself may be done, so it must not become a dead letter.
            self._back_off.failed(error, get_running_loop().time(), _OPERATIONS[type(row.action)])
            self._services.report_failure(self._thread, error)
            return True
        self._refused, self._is_refusal_accepted = row.key, False
        raise error
